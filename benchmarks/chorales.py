"""A deep Markov model of the JSB chorales, beside Krishnan, Shalit and Sontag (2017).

Piano rolls of 88 bits a step, 229 / 76 / 77 chorales as published. Trained on the training chorales; the weights with
the best validation bound are kept. Measured are the bound, and log p(x) by importance sampling, both as the sum over
all chorales divided by the number of all their steps. A run that was stopped goes on.

With `--posterior-steps S` the posterior's network alone goes on learning, for S steps without dropout, on as many
chorales drawn from the model as training chorales: of draws there is no end, so that what it infers of chorales that it
has never seen comes closer to the best. With `--temperatures T` log p(x) of the test chorales is estimated by annealed
importance sampling as well, which begins at the posterior and does not need it to be good.

    python benchmarks/chorales.py --posterior-steps 1500 --num-samples 500 --out runs/chorales
"""

import argparse
import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import subo
from subo.data.batches import batches
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation import ais, evaluate
from subo.evaluation.estimates import linearized_ratio
from subo.evaluation.evidence.annealed import Annealing
from subo.recipes import deep_markov
from subo.runs.run import Run
from subo.training.fitting import fit
from subo.training.optimizers import make_optimizer

THEIRS = {"log p(x)": 6.39, "bound": 6.93}


def train_posterior(objective: subo.Objective, split: Split, *, steps: int, learning_rate: float) -> None:
    """Raises the ELBO in phi alone, on training data and draws of the model in equal numbers."""
    phi = list(objective.model.posterior.parameters())
    objective.eval().requires_grad_(False)
    for parameter in phi:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(phi, lr=learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    endless = (batch for epoch in itertools.count() for batch in batches(split, 20, seed=1, epoch=epoch))
    for step, batch in enumerate(itertools.islice(endless, steps)):
        mask = batch.context["mask"]
        with torch.no_grad():
            _, p = objective.model.sample(len(mask), {"mask": mask})
            x = torch.cat([batch.x, p.sample()])
        optimizer.zero_grad()
        loss = objective(x, {"mask": torch.cat([mask, mask])})
        loss.loss.backward()
        torch.nn.utils.clip_grad_norm_(phi, 10.0)
        optimizer.step()
        decay.step()
        if (step + 1) % 100 == 0:
            real, drawn = loss.bound.detach().split(len(mask))
            values = [f"{part.sum() / mask.sum():.3f}" for part in (real, drawn)]
            print(f"posterior, step {step + 1}: bounds of a batch {values[0]}, of draws {values[1]}", flush=True)


def annealed(model: Any, split: Split, arguments: argparse.Namespace) -> str:
    """log p(x) by annealed importance sampling, per step."""
    started, parts = time.monotonic(), []
    for index in torch.arange(len(split)).split(20):
        x, context = split.read(index)
        annealing = Annealing(arguments.temperatures, arguments.chains, leapfrog_steps=5, start="posterior")
        parts.append(ais(model, x, context, annealing=annealing))
    log_px, acceptance = (torch.cat([getattr(part, name) for part in parts]) for name in ("log_px", "acceptance"))
    assert split.lengths is not None
    terms = linearized_ratio(-log_px, split.lengths)
    return (
        f"-log p(x) {terms.mean():.3f} +- {terms.std() / len(terms) ** 0.5:.3f} by annealing, {arguments.temperatures} "
        f"temperatures from q, {arguments.chains} chains, acceptance {acceptance.mean():.2f}; "
        f"{time.monotonic() - started:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent-dim", type=int, default=64)
    parser.add_argument("--reader-hidden", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=1500)
    parser.add_argument("--kl-warmup-epochs", type=float, default=400)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.0, help="decoupled, a share of the step size")
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--posterior-steps", type=int, default=0)
    parser.add_argument("--temperatures", type=int, default=0)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/chorales"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    data, run = load_data("jsb-chorales"), Run(arguments.out)
    objective = deep_markov(
        (88,),
        examples=data.train.x.float(),
        likelihood="bernoulli",
        latent_dim=arguments.latent_dim,
        reader_hidden=arguments.reader_hidden,
        dropout=arguments.dropout,
    )
    if run.model.exists():
        print(f"weights of {run.path}, however they were trained", flush=True)
        run.load_weights(objective)
    else:
        fit(
            objective,
            data,
            epochs=arguments.epochs,
            batch_size=20,
            optimizer=make_optimizer(
                objective, "AdamW", learning_rate=arguments.learning_rate, weight_decay=arguments.weight_decay
            ),
            decay="cosine",
            kl_warmup_epochs=arguments.kl_warmup_epochs,
            clip=10.0,
            seed=arguments.seed,
            run_dir=arguments.out,
            resume=run.checkpoint.exists(),
            checkpoint_minutes=5,
            progress=True,
        )
        run.save_weights(objective)
    if arguments.posterior_steps:
        better = Run(arguments.out / "posterior")
        if better.model.exists():
            print(f"weights of {better.path}, however they were trained", flush=True)
            better.load_weights(objective)
        else:
            train_posterior(objective, data.train, steps=arguments.posterior_steps, learning_rate=5e-4)
            better.path.mkdir()
            better.save_weights(objective)
    objective.eval()
    print(f"{len(data.train)} training chorales, seed {arguments.seed}; nats per time step")
    for part in ("validation", "test"):
        started = time.monotonic()
        result = asdict(evaluate(objective.model, getattr(data, part), name=part, num_samples=arguments.num_samples))
        (arguments.out / f"evaluation-{part}-{arguments.num_samples}.json").write_text(json.dumps(result, indent=2))
        step = result["per_step"]
        print(
            f"{part:11s} bound {-step['elbo']:.3f} +- {step['elbo_se']:.3f} (theirs {THEIRS['bound']}), -log p(x) "
            f"{-step['log_px']:.3f} +- {step['log_px_se']:.3f} by {arguments.num_samples:,} samples (theirs "
            f"{THEIRS['log p(x)']}); median effective sample size {result['median_ess']:.1f}; "
            f"{result['active_units']} of {result['latent_dim']} latents active; {time.monotonic() - started:.0f} s",
            flush=True,
        )
    if arguments.temperatures:
        print(f"test        {annealed(objective.model, data.test, arguments)}", flush=True)
    last = run.read_metrics()[-1]
    print(f"{last['epoch']} epochs in {last['seconds'] / 3600:.2f} hours")


if __name__ == "__main__":
    main()
