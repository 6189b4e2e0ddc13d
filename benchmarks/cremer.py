"""Where the loss is, in the setting of Cremer et al. (2018): approximation and amortization gap of a VAE on 100 images.

784-200-200-50 with ELU, mirrored decoder and a factorized Gaussian posterior, as theirs; log p(x) is the larger of
importance sampling and annealed importance sampling, example by example. What differs is the recipe: bits drawn afresh
at every visit, batches of 100 and Adam with a cosine decay over some epochs, few beside what such models are trained
for. A training that was stopped goes on from its checkpoint; gaps that were measured are read. The second
table is of the same images and the weights that were kept during training.

    python benchmarks/cremer.py --data mnist --epochs 60 --out runs/cremer
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import subo
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation.evidence.annealed import Annealing
from subo.evaluation.gaps import gaps
from subo.evaluation.training_gap import gap_over_training, models_over_training
from subo.figures import save
from subo.figures.gaps import gap_bars, gap_curves, gaps_per_datum
from subo.runs.run import Run
from subo.training.fitting import fit

THEIRS = {
    "mnist": {"approximation": 1.4, "amortization": 1.35},
    "fashion-mnist": {"approximation": 3.1, "amortization": 4.2},
}
ROWS = (
    "log_px",
    "elbo",
    "elbo_best",
    "elbo_richer",
    "approximation",
    "approximation_richer",
    "amortization",
    "inference",
)


def objective_of(images: Split) -> subo.Objective:
    """The network, whose decoder starts from the mean image."""
    torch.manual_seed(0)
    mean = images.x.float().mean(0).flatten() / images.levels
    decoder = subo.mlp(50, 784, activation=nn.ELU)
    last: Any = decoder[-1]
    with torch.no_grad():
        last.bias.copy_(mean.clamp(1e-3, 1 - 1e-3).logit())
    model = subo.VAE(
        subo.StandardNormal(50),
        subo.Conditional(subo.Bernoulli((1, 28, 28)), decoder),
        subo.Conditional(subo.Gaussian((50,)), subo.mlp(784, 100, activation=nn.ELU)),
    )
    return subo.Objective(model)


def train(folder: Path, images: Split, epochs: int, learning_rate: float) -> subo.Objective:
    """Trains, goes on with it, or reads the weights."""
    objective, run = objective_of(images), Run(folder)
    if run.model.exists():
        run.load_weights(objective)
        return objective
    fit(
        objective,
        images,
        epochs=epochs,
        learning_rate=learning_rate,
        decay="cosine",
        run_dir=folder,
        resume=run.checkpoint.exists(),
        checkpoint_minutes=5,
        progress=True,
    )
    run.save_weights(objective)
    return objective


def measure(objective: subo.Objective, run: Run, x: torch.Tensor, temperatures: int, chains: int) -> dict:
    """What gaps.json holds, measured if it is not there."""
    file = run.path / "gaps.json"
    if not file.exists():
        started = time.monotonic()
        annealing = Annealing(temperatures, chains) if temperatures else None
        found = gaps(objective.model, x, annealing=annealing, progress=True)
        record = {
            "means": found.means(),
            "log_px_se": found.log_px_se.mean().item(),
            "annealed": found.log_px_from.count("annealed"),
            "approximation": found.approximation.tolist(),
            "amortization": found.amortization.tolist(),
            "seconds": time.monotonic() - started,
        }
        file.write_text(json.dumps(record, indent=2))
    return json.loads(file.read_text())


def show(name: str, record: dict, run: Run) -> None:
    """Prints the gaps beside theirs, and draws them."""
    means = record["means"]
    print(f"{'':22s}{'nats':>9s}{'':11s}{'theirs':>7s}")
    for row in ROWS:
        theirs = THEIRS[name].get(row)
        mean, error = means[row]
        print(f"{row:22s}{mean:9.2f} +- {error:4.2f}   {'' if theirs is None else f'{theirs:7.2f}'}")
    print(f"error of log p(x) within an example {record['log_px_se']:.3f}; annealing gave the larger for", end=" ")
    print(f"{record['annealed']} of {len(record['approximation'])}; {record['seconds'] / 60:.1f} minutes")
    run.figures.mkdir(exist_ok=True)
    bars = [np.array(means[row])[:, None] for row in ("approximation", "amortization")]
    save(gap_bars([name], np.array(means["log_px"][:1]), *bars), run.figures / "gaps.png")
    per_datum = [np.array(record[row]) for row in ("approximation", "amortization")]
    save(gaps_per_datum(*per_datum), run.figures / "gaps_per_datum.png")


def over_training(objective: subo.Objective, run: Run, x: torch.Tensor) -> None:
    """Prints surprisal and error of the same images over training, and draws them."""
    points = gap_over_training(models_over_training(run, objective.model), x)
    print(f"\n{'epoch':>5s}{'step':>8s}{'SUBO':>9s} = {'surprisal':>9s} + {'error':>6s}")
    for p in points:
        print(f"{p.epoch:5d}{p.step:8d}{p.subo:9.2f} = {p.surprisal:9.2f} + {p.error:6.2f} +- {p.error_se:.2f}")
    terms = [np.array([(getattr(p, n), getattr(p, f"{n}_se")) for p in points]).T for n in ("surprisal", "error")]
    save(gap_curves(np.array([p.step for p in points]), *terms), run.figures / "gap_over_training.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["mnist", "fashion-mnist"], default="mnist")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--temperatures", type=int, default=1000, help="of the annealing; 0 leaves it out")
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/cremer"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    grey, test = load_data(arguments.data), load_data(arguments.data, binarize="dynamic").test
    images = Split(torch.cat([grey.train.x, grey.validation.x]), levels=grey.train.levels, resample=True)
    run = Run(arguments.out / arguments.data)
    objective = train(run.path, images, arguments.epochs, arguments.learning_rate)
    x, _ = test.read(torch.arange(arguments.images))
    print(f"{arguments.data}: {len(images):,} training images, bits drawn at every visit; {len(x)} test images; seed 0")
    show(arguments.data, measure(objective, run, x, arguments.temperatures, arguments.chains), run)
    over_training(objective, run, x)


if __name__ == "__main__":
    main()
