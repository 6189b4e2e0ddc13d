"""Seconds of training until one stochastic layer of 50 latents reaches Burda et al.'s log p(x) of dynamic MNIST.

Their table 1 has 86.76 nats for the VAE with one sample and 84.78, the best with one layer, for IWAE with 50
(arXiv 1509.00519). Here a plan is a sequence of stages, each with a bound, a number of samples and of epochs: `fit` is
called once per stage, on the same model and optimizer. The learning rate is constant, and falls by a cosine to 0 in the
last stage. The products of matrices in training are made from 16 bits where the processor can (`--products medium`);
everything else, and all that is measured, has 32.

The first 50,000 images are trained on, and plans are compared by the 10,000 for validation; the 10,000 for test (bits
drawn once) are measured with `--test`. log p(x) by 5,000 samples is that of 100 samples over all images plus the
difference between the two over the first 1,000, with the error of this sum.

    python benchmarks/time_to_nats.py --plan short --out short.pt           # trains, measures the validation data
    python benchmarks/time_to_nats.py --plan short --out short.pt --test    # measures the test data with these weights
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import subo
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation.scores import score
from subo.gradients import DReG
from subo.training.fitting import fit

GOALS = {"short": 86.76, "long": 84.78}
PLANS = {"short": "elbo:1:20 iwae:5:20", "long": "elbo:1:30 iwae:5:30 iwae:20:12"}


def make_model(images: Split, hidden: tuple[int, ...]) -> subo.VAE:
    """One layer of 50 latents; the decoder begins at the mean image."""
    decoder = subo.mlp(50, 784, hidden=hidden, activation=nn.SiLU)
    encoder = subo.mlp(784, 100, hidden=hidden[::-1], activation=nn.SiLU)
    mean = images.x.float().mean(0).flatten() / images.levels
    last: Any = decoder[-1]
    with torch.no_grad():
        last.bias.copy_(mean.clamp(1e-3, 1 - 1e-3).logit())
    return subo.VAE(
        subo.StandardNormal(50),
        subo.Conditional(subo.Bernoulli((1, 28, 28)), decoder),
        subo.Conditional(subo.Gaussian((50,)), encoder),
    )


def train(model: subo.VAE, images: Split, plan: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """Trains by the stages of the plan; returns the seconds of the processor and of the clock."""
    options = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    stages = [stage.split(":") for stage in plan.split()]
    clock, processor = time.perf_counter(), time.process_time()
    for number, (bound, samples, epochs) in enumerate(stages):
        is_iwae = bound == "iwae"
        objective = subo.Objective(
            model,
            subo.IWAE() if is_iwae else subo.ELBO(),
            gradient=DReG() if is_iwae else None,
            num_samples=int(samples),
        )
        history = fit(
            objective,
            images,
            epochs=int(epochs),
            batch_size=arguments.batch_size,
            optimizer=optimizer,
            decay="cosine" if number == len(stages) - 1 else "constant",
            kl_warmup_epochs=0 if number else arguments.kl_warmup_epochs,
            seed=arguments.seed + number,
            device="cpu",
        )
        print(
            f"  {epochs:>3s} epochs of {bound} with {samples} samples: training bound "
            f"{history.epochs[-1].train.bound:.2f} nats; so far {time.process_time() - processor:.0f} s of the "
            f"processor, {time.perf_counter() - clock:.0f} s of the clock",
            flush=True,
        )
    return time.process_time() - processor, time.perf_counter() - clock


def measured(model: subo.VAE, split: Split, arguments: argparse.Namespace) -> tuple[float, float]:
    """-log p(x) and its standard error, see above."""
    few = -score(model, split, num_samples=arguments.few_samples).log_px
    first = split.take(torch.arange(arguments.num_data))
    more = -score(model, first, num_samples=arguments.num_samples, seed=1).log_px - few[: len(first)]
    error = (few.var() / len(few) + more.var() / len(more)).sqrt()
    return float(few.mean() + more.mean()), float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=list(PLANS), default="short")
    parser.add_argument("--stages", help="instead of the plan's, such as 'elbo:1:30 iwae:5:15'")
    parser.add_argument("--out", type=Path, required=True, help="file of the weights; is read if it is there")
    parser.add_argument("--test", action="store_true", help="measure the test data, not the validation data")
    parser.add_argument("--hidden", type=int, nargs="+", default=[500, 500])
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--kl-warmup-epochs", type=float, default=0, help="of the first stage")
    parser.add_argument("--products", choices=["highest", "medium"], default="medium")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--few-samples", type=int, default=100)
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--num-data", type=int, default=1000, help="images with 5,000 samples")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    data = load_data("mnist", binarize="dynamic")
    held_out = data.test if arguments.test else data.validation
    assert held_out is not None
    model = make_model(data.train, tuple(arguments.hidden))
    stages = arguments.stages or PLANS[arguments.plan]
    print(f"torch {torch.__version__}, {arguments.threads} threads; {stages}; {arguments.hidden}", flush=True)
    if arguments.out.exists():
        kept = torch.load(arguments.out)
    else:
        torch.set_float32_matmul_precision(arguments.products)
        processor, clock = train(model, data.train, stages, arguments)
        torch.set_float32_matmul_precision("highest")
        kept = {"weights": model.state_dict(), "processor": processor, "clock": clock}
        torch.save(kept, arguments.out)
    model.load_state_dict(kept["weights"])
    nats, error = measured(model, held_out, arguments)
    print(
        f"{'test' if arguments.test else 'validation'} -log p(x) {nats:.2f} +- {error:.2f} nats; goal "
        f"{GOALS[arguments.plan]}; training took {kept['processor']:.0f} s of the processor, {kept['clock']:.0f} s of "
        "the clock",
        flush=True,
    )


if __name__ == "__main__":
    main()
