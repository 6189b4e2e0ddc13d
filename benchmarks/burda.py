"""The networks of Burda et al. (2016) on dynamically binarized MNIST, beside their table 1.

One layer: 784-200-200-50, tanh, mirrored decoder, as theirs. Two layers: z1 of 100 (784-200-200-100), z2 of 50
(100-100-100-50), mirrored. Trained on all 60,000 training images and measured on the 10,000 for
test (binarized once), log p(x) by 5,000 samples, active units by their definition. What differs is the recipe: batches
of 100 instead of 20, Adam with a cosine decay over a fixed number of epochs instead of their 3,280 in eight stages, and
for IWAE the doubly reparametrized gradient. With --stage, cells start from weights that so many epochs of the ELBO with
one sample and a KL warm-up led to, once for all cells of a network. A cell that was trained or measured before is not
done again; one that was stopped goes on from its checkpoint. Hours are those of a cell alone, without its stage.

    python benchmarks/burda.py --cells vae-1 iwae-5 --out runs/burda
    python benchmarks/burda.py --cells two-vae-1 two-iwae-5 --out runs/burda
    python benchmarks/burda.py --cells iwae-50 --stage 500 --epochs 12 --batch-size 250 --out runs/burda-stages
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import subo
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation import evaluate
from subo.gradients import DReG
from subo.runs.run import Run
from subo.runtime.devices import make_fabric
from subo.training.fitting import fit

EPOCHS = {
    "vae-1": 800,
    "vae-5": 400,
    "vae-50": 100,
    "iwae-5": 300,
    "iwae-50": 60,
    "two-vae-1": 1000,
    "two-vae-5": 400,
    "two-vae-50": 100,
    "two-iwae-5": 400,
    "two-iwae-50": 60,
}
THEIRS = {  # -log p(x) and active units, layer by layer
    "vae-1": (86.76, "19"),
    "vae-5": (86.47, "20"),
    "vae-50": (86.35, "20"),
    "iwae-5": (85.54, "22"),
    "iwae-50": (84.78, "25"),
    "two-vae-1": (85.33, "16+5"),
    "two-vae-5": (85.01, "17+5"),
    "two-vae-50": (84.78, "17+5"),
    "two-iwae-5": (83.89, "21+5"),
    "two-iwae-50": (82.90, "26+7"),
}


def decoder_of(latent_dim: int, images: Split) -> torch.nn.Module:
    """From z to the logits of the pixels; as theirs, it begins at the mean image."""
    mean = images.x.float().mean(0).flatten() / images.levels
    decoder = subo.mlp(latent_dim, 784)
    last: Any = decoder[-1]
    with torch.no_grad():
        last.bias.copy_(mean.clamp(1e-3, 1 - 1e-3).logit())
    return decoder


def one_layer(images: Split) -> subo.VAE:
    """784-200-200-50 and back."""
    return subo.VAE(
        subo.StandardNormal(50),
        subo.Conditional(subo.Bernoulli((1, 28, 28)), decoder_of(50, images)),
        subo.Conditional(subo.Gaussian((50,)), subo.mlp(784, 100)),
    )


def two_layers(images: Split) -> subo.VAE:
    """784-200-200-100 and 100-100-100-50, and back."""
    hidden = (100, 100)
    prior = subo.Joint(
        z2=subo.StandardNormal(50),
        z1=subo.Child(subo.Gaussian((100,)), subo.mlp(50, 200, hidden=hidden), "z2"),
    )
    posterior = subo.Joint(
        z1=subo.Conditional(subo.Gaussian((100,)), subo.mlp(784, 200)),
        z2=subo.Child(subo.Gaussian((50,)), subo.mlp(100, 100, hidden=hidden), "z1"),
    )
    return subo.VAE(prior, subo.Child(subo.Bernoulli((1, 28, 28)), decoder_of(100, images), "z1"), posterior)


def objective_of(cell: str, images: Split) -> subo.Objective:
    """The network, with the bound and number of samples of a cell such as ``iwae-5`` or ``two-vae-1``."""
    bound, num_samples = cell.removeprefix("two-").split("-")
    torch.manual_seed(0)
    model = two_layers(images) if cell.startswith("two-") else one_layer(images)
    if bound == "iwae":
        gradient = None if cell.startswith("two-") else DReG()  # which is for one layer
        return subo.Objective(model, subo.IWAE(), gradient=gradient, num_samples=int(num_samples))
    return subo.Objective(model, subo.ELBO(), num_samples=int(num_samples))


def train(cell: str, run: Run, images: Split, *, start: Run | None = None, **options: Any) -> subo.Objective:
    """Trains a cell, from weights of another run if there is one; goes on with it; or reads its weights."""
    objective = objective_of(cell, images)
    if run.model.exists():
        print(f"{run.path}: weights read, however they were trained", flush=True)
        run.load_weights(objective)
        return objective
    resume = run.checkpoint.exists()
    if start is not None and not resume:
        start.load_weights(objective)
    kept: dict[str, Any] = {"run_dir": run, "resume": resume, "checkpoint_minutes": 5, "progress": True}
    fit(objective, images, decay="cosine", **kept, **options)
    run.save_weights(objective)
    return objective


def stage_of(cell: str, out: Path, images: Split, *, epochs: int, **options: Any) -> Run:
    """The run of a cell's network with the ELBO, one sample and a KL warm-up over a tenth of the epochs."""
    network = "two-vae-1" if cell.startswith("two-") else "vae-1"
    run = Run(out / f"stage-{network}")
    train(network, run, images, epochs=epochs, kl_warmup_epochs=epochs / 10, **options)
    return run


def measure(objective: subo.Objective, run: Run, test: Split, num_samples: int) -> dict:
    """What evaluation.json holds of these data and so many samples, measured if it holds none."""
    kept = json.loads(run.evaluation.read_text()) if run.evaluation.exists() else {}
    if (kept.get("num_data"), kept.get("num_samples")) != (len(test), num_samples):
        started = time.monotonic()
        result = asdict(evaluate(objective.model, test, num_samples=num_samples))
        kept = result | {"evaluation_seconds": time.monotonic() - started}
        run.evaluation.write_text(json.dumps(kept, indent=2))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--epochs", type=int, help="instead of each cell's own number")
    parser.add_argument("--stage", type=int, help="epochs of the ELBO with one sample, from which cells start")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--precision", default="32-true", help="bf16-mixed: the products of training in 16 bits")
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/burda"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    grey, test = load_data("mnist"), load_data("mnist", binarize="dynamic").test
    images = Split(torch.cat([grey.train.x, grey.validation.x]), levels=grey.train.levels, resample=True)
    print(f"{len(images):,} training images, dynamic; {len(test):,} test images, bits drawn once; seed 0")
    print(f"{'cell':11s}{'epochs':>7s}{'hours':>7s}{'-log p(x)':>16s}{'active':>8s}{'theirs':>9s}{'active':>8s}")
    for cell in arguments.cells:
        options = {
            "learning_rate": arguments.learning_rate,
            "batch_size": arguments.batch_size,
            "fabric": make_fabric(device="cpu", precision=arguments.precision),
        }
        run, start = Run(arguments.out / cell), None
        if arguments.stage and not run.model.exists():
            start = stage_of(cell, arguments.out, images, epochs=arguments.stage, **options)
        objective = train(cell, run, images, start=start, epochs=arguments.epochs or EPOCHS[cell], **options)
        result = measure(objective, run, test, arguments.num_samples)
        last = run.read_metrics()[-1]
        nll, active = THEIRS[cell]
        print(
            f"{cell:11s}{last['epoch']:7d}{last['seconds'] / 3600:7.2f}{-result['log_px']:9.2f} +- "
            f"{result['log_px_se']:.2f}{result['active_units']!s:>8s}{nll:9.2f}{active:>8s}",
            flush=True,
        )


if __name__ == "__main__":
    main()
