"""Samples of a class on MNIST: does a classifier of real digits see the class that was asked for?

Fits ``subo fit mnist --condition labels``, draws as many digits of every class by ``subo sample``, and asks a
perceptron that was trained on real, binarized digits. It needs MNIST in $SUBO_DATA, or the internet.

    python benchmarks/class_samples.py --epochs 30 --out runs/classes
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

import subo
from subo.data.splits import Split
from subo.runtime.randomness import stream

SETTINGS = "--condition labels --binarize dynamic --evaluation-samples 100"
MODEL = "--latent-dim 5 --hidden 400,400 --decay cosine"
EACH = 500


def command(line: str) -> None:
    print(f"$ subo {line}", flush=True)
    subprocess.run([sys.executable, "-m", "subo", *shlex.split(line)], check=True, stdout=subprocess.DEVNULL)


def bits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Real digits as bits, and their labels."""
    assert split.labels is not None
    drawn = split if split.levels == 1 else split.drawn(stream("classifier bits", 0))
    return drawn.x.flatten(1).numpy(), split.labels.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--model", default=MODEL, help="further options of subo fit")
    parser.add_argument("--out", type=Path, default=Path("runs/classes"))
    options = parser.parse_args()

    if not (options.out / "model.safetensors").exists():  # else it is fitted already
        model = f"{SETTINGS} {options.model} --epochs {options.epochs}"
        command(f"fit mnist {model} --out {options.out} --overwrite --quiet")
    draws, means = options.out / "draws.npy", options.out / "means.npy"
    command(f"sample {options.out} -n {10 * EACH} --out {draws}")
    command(f"sample {options.out} -n {10 * EACH} --out {means} --mean")

    data = subo.load_data("mnist", binarize="dynamic")
    classifier = MLPClassifier((256,), max_iter=30, early_stopping=True, n_iter_no_change=3, random_state=0).fit(
        *bits(data.train)
    )
    print(f"{classifier.score(*bits(data.test)):.1%} of 10,000 real test digits are classified right")
    classes = np.arange(10).repeat(EACH)
    drawn = {"draws of x": np.load(draws), "E[x|z] >= 1/2": np.load(means) >= 0.5}
    seen = {name: np.asarray(classifier.predict(x.reshape(len(classes), -1))) for name, x in drawn.items()}
    agree = {name: predicted == classes for name, predicted in seen.items()}
    print(
        f"agreement with the class asked for, {EACH} samples of each\n{'':16}" + "".join(f"{c:7}" for c in range(10)),
        " all",
    )
    for name, right in agree.items():
        by_class = "".join(f"{share:7.1%}" for share in right.reshape(10, EACH).mean(1))
        print(f"{name:16}{by_class}  {right.mean():.1%} +- {right.std() / len(right) ** 0.5:.1%}")
    print("at least 90% of the draws:", "yes" if agree["draws of x"].mean() >= 0.9 else "NO")


if __name__ == "__main__":
    main()
