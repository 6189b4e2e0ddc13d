"""200 Bernoulli latents on static MNIST, linear decoder: the training curves of each gradient estimator.

Runs one ``subo fit`` an estimator, reads the runs, prints a table and draws ``docs/images/discrete.png``.

    python benchmarks/discrete_latents.py --epochs 20 --out runs/discrete
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

ESTIMATORS = {
    "no baseline": "--gradient score-function --baseline none",
    "leave-one-out": "--gradient score-function --baseline leave-one-out",
    "running mean": "--gradient score-function --baseline mean",
    "network (NVIL)": "--gradient score-function --baseline network --normalize-signal",
    "VIMCO (iwae)": "--gradient vimco --bound iwae",
    "straight-through (biased)": "--gradient straight-through",
    "Gumbel-softmax (biased)": "--gradient gumbel-softmax",
    "wake-phi (iwae)": "--gradient wake-phi --bound iwae",
}
COMMON = "--posterior bernoulli --latent-dim 200 --hidden '' --num-samples 4 --evaluation-samples 100"


def run(name: str, options: str, epochs: int, folder: Path) -> Path:
    """Fits one run, unless it is there already."""
    out = folder / name.split(" (")[0].replace(" ", "-").lower()
    if not (out / "evaluation.json").exists():
        command = f"{sys.executable} -m subo fit binarized-mnist --out {out} --epochs {epochs} {COMMON} {options}"
        resume = f"{sys.executable} -m subo fit --resume --out {out} --evaluation-samples 100"
        started = (out / "checkpoint.pt").exists()
        subprocess.run(shlex.split(resume if started else f"{command} --overwrite"), check=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/discrete"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/discrete.png"))
    arguments = parser.parse_args()
    figure, (by_step, by_second) = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    print(f"subo fit binarized-mnist {COMMON} --epochs {arguments.epochs}")
    print(f"{'gradient':28s}{'seconds':>8s}  {'test ELBO':>18s}  {'test log p(x)':>18s}   nats, with standard errors")
    for name, options in ESTIMATORS.items():
        out = run(name, options, arguments.epochs, arguments.out)
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        elbo = [record["validation"]["elbo"] for record in records]
        by_step.plot([record["step"] for record in records], elbo, label=name)
        by_second.plot([record["seconds"] for record in records], elbo, label=name)
        result = json.loads((out / "evaluation.json").read_text())
        print(
            f"{name:28s}{records[-1]['seconds']:8.0f}  {result['elbo']:9.2f} +- {result['elbo_se']:.2f}   "
            f"{result['log_px']:9.2f} +- {result['log_px_se']:.2f}",
            flush=True,
        )
    by_step.set(xlabel="step", ylabel="validation ELBO, nats", ylim=(-200, None))
    by_second.set(xlabel="seconds of training")
    by_second.legend(frameon=False, fontsize=8)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=120)


if __name__ == "__main__":
    main()
