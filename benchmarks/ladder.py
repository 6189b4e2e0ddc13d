"""A ladder autoencoder of perceptrons on dynamically binarized MNIST, beside the goal of 82.0 nats.

The recipe ``ladder``: layers of latents in one top-down pass, residual networks between them. Trained on all 60,000
training images with KL warm-up and a cosine decay over a fixed time, for the last part of it by the importance-weighted
bound (as Sonderby et al., 2016, section 3.1, fine-tune theirs), and measured on the 10,000 for test (binarized once):
log p(x) by 5,000 samples, KL and active units layer by layer. No image is held out to choose by: the options were set
beforehand, and what was tried is told beside the result. A run that was stopped goes on from its checkpoint; a stage
that was trained, or a model that was measured before, is not done again.

    python benchmarks/ladder.py --minutes 135 --iwae-minutes 45 --out runs/ladder
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import subo
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation import ais, evaluate, log_marginal
from subo.evaluation.evidence.annealed import Annealing
from subo.recipes import ladder
from subo.runs.run import Run
from subo.runtime.devices import make_fabric
from subo.training.fitting import fit

GOAL = 82.0  # nats, minus log p(x)
PUBLISHED = {  # minus log p(x), layer by layer deeper
    "VAE, 2 layers, IWAE k = 5 (Burda et al., 2016, table 1)": 83.89,
}


def objective_of(arguments: argparse.Namespace, images: Split) -> subo.Objective:
    """The recipe with these sizes; it starts at the mean image."""
    torch.manual_seed(0)
    return ladder(
        (1, 28, 28),
        examples=images.x.float() / images.levels,
        likelihood="bernoulli",
        latent_dims=tuple(arguments.latent_dims),
        hidden=tuple(arguments.hidden),
        depth=arguments.depth,
        merge=arguments.merge,
        activation=arguments.activation,
        free_bits=arguments.free_bits,
    )


def train(objective: subo.Objective, run: Run, images: Split, arguments: argparse.Namespace, **options: Any) -> None:
    """Trains, goes on where it was stopped, or reads the weights."""
    if run.model.exists():
        print(f"weights of {run.path}, however they were trained", flush=True)
        run.load_weights(objective)
        return
    fit(
        objective,
        images,
        decay="cosine",
        clip=arguments.clip,
        run_dir=run.path,
        resume=run.checkpoint.exists(),
        checkpoint_minutes=5,
        keep_weights=False,
        fabric=make_fabric(device="cpu", precision=arguments.precision),
        progress=True,
        **options,
    )
    run.save_weights(objective)


def train_in_stages(objective: subo.Objective, images: Split, arguments: argparse.Namespace) -> list[Run]:
    """First by the ELBO, then by the importance-weighted bound: a run each."""
    run = Run(arguments.out / "elbo")
    train(
        objective,
        run,
        images,
        arguments,
        minutes=arguments.minutes,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup_epochs=1.0,
        kl_warmup_epochs=arguments.kl_warmup_epochs,
    )
    if not arguments.iwae_minutes:
        return [run]
    tuned = Run(arguments.out / "iwae")
    train(
        subo.Objective(objective.model, subo.IWAE(), num_samples=arguments.iwae_samples),
        tuned,
        images,
        arguments,
        minutes=arguments.iwae_minutes,
        batch_size=max(1, arguments.batch_size // arguments.iwae_samples),
        learning_rate=arguments.iwae_learning_rate,
        warmup_epochs=0.2,
    )
    return [run, tuned]


def measure(objective: subo.Objective, run: Run, test: Split, num_samples: int) -> dict:
    """What evaluation.json holds of these data and so many samples, measured if it holds none."""
    kept = json.loads(run.evaluation.read_text()) if run.evaluation.exists() else {}
    if (kept.get("num_data"), kept.get("num_samples")) != (len(test), num_samples):
        started = time.monotonic()
        result = asdict(evaluate(objective.model, test, num_samples=num_samples))
        kept = result | {"evaluation_seconds": time.monotonic() - started}
        run.evaluation.write_text(json.dumps(kept, indent=2))
    return kept


def looseness(model: Any, test: Split, arguments: argparse.Namespace) -> str:
    """How far importance sampling is below annealing from q on some images, both being lower bounds in the mean."""
    started = time.monotonic()
    x, _ = test.read(torch.arange(arguments.num_annealed))
    sampled = log_marginal(model, x, num_samples=arguments.num_samples).log_px
    annealing = Annealing(arguments.temperatures, arguments.chains, leapfrog_steps=5, start="posterior")
    found = ais(model, x, annealing=annealing, seed=0)
    above = found.log_px - sampled
    return (
        f"of {len(x)} images annealing ({arguments.temperatures} temperatures from q, {arguments.chains} chains, "
        f"acceptance {found.acceptance.mean():.2f}) gives -log p(x) {-found.log_px.mean():.2f}, "
        f"{arguments.num_samples:,} samples {-sampled.mean():.2f}: {above.mean():.2f} +- "
        f"{above.std() / len(x) ** 0.5:.2f} more; {time.monotonic() - started:.0f} s"
    )


def report(result: dict, runs: list[Run], arguments: argparse.Namespace) -> None:
    """The table: the numbers beside the goal, then the layers."""
    nll = -result["log_px"]
    for run in runs:
        last = run.read_metrics()[-1]
        print(
            f"{run.path.name}: {last['epoch']} epochs, {last['step']:,} steps, {last['seconds'] / 3600:.2f} hours, "
            f"{arguments.threads} threads; bound of the last epoch {last['train']['bound']:.2f}"
        )
    print(
        f"{'-log p(x)':12s}{nll:8.2f} +- {result['log_px_se']:.2f} by {result['num_samples']:,} samples of "
        f"{result['num_data']:,} images, goal {GOAL}"
    )
    print(f"{'-ELBO':12s}{-result['elbo']:8.2f} +- {result['elbo_se']:.2f}")
    print(f"{'rate':12s}{result['rate']:8.2f}\n{'distortion':12s}{result['distortion']:8.2f}")
    high = f"k-hat above {result['highest_pareto_k']:.2g}: {result['high_pareto_k']:,} examples"
    print(f"median effective sample size {result['median_ess']:.0f}; {high}")
    for name, layer in (result["layers"] or {}).items():
        print(f"{name:12s}{layer['rate']:8.2f} nats, {layer['active_units']:.0f} of {layer['latent_dim']:.0f} active")
    for name, value in PUBLISHED.items():
        print(f"{value:8.2f}  {name}")
    print(f"at most {GOAL} nats: {'yes' if nll <= GOAL else 'NO'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=135, help="by the ELBO")
    parser.add_argument("--iwae-minutes", type=float, default=45, help="after it, by the importance-weighted bound")
    parser.add_argument("--iwae-samples", type=int, default=5, help="an image; a batch has so many times fewer")
    parser.add_argument("--iwae-learning-rate", type=float, default=5e-4)
    parser.add_argument("--latent-dims", type=int, nargs="+", default=[32, 16, 8], help="from x upwards")
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 256, 128], help="from x upwards")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--merge", choices=["residual", "precision"], default="residual")
    parser.add_argument("--activation", default="silu")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--kl-warmup-epochs", type=float, default=30.0)
    parser.add_argument("--free-bits", type=float, default=0.0)
    parser.add_argument("--clip", type=float, default=100.0)
    parser.add_argument("--precision", default="32-true", help="bf16-mixed: the products of training in 16 bits")
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--num-test", type=int, default=10_000, help="test images that are measured")
    parser.add_argument("--temperatures", type=int, default=0, help="of annealing, on some images; 0: none")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--num-annealed", type=int, default=100)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    grey, test = load_data("mnist"), load_data("mnist", binarize="dynamic").test
    images = Split(torch.cat([grey.train.x, grey.validation.x]), levels=grey.train.levels, resample=True)
    test = test.take(torch.arange(min(arguments.num_test, len(test))))
    print(f"{len(images):,} training images, dynamic; {len(test):,} test images, bits drawn once; seed 0")
    objective = objective_of(arguments, images)
    count = sum(parameter.numel() for parameter in objective.parameters())
    print(f"latents {arguments.latent_dims}, widths {arguments.hidden}, {count:,} parameters", flush=True)
    runs = train_in_stages(objective, images, arguments)
    result = measure(objective, runs[-1], test, arguments.num_samples)
    report(result, runs, arguments)
    if arguments.temperatures:
        print(looseness(objective.model.eval(), test, arguments), flush=True)


if __name__ == "__main__":
    main()
