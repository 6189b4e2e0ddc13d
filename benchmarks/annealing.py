"""Leapfrog steps per second of annealed importance sampling, beside the cost of the gradients that they are made of.

The one-layer network of Burda et al. (2016) with fresh weights; random bits as data. A leapfrog step of one chain takes
one gradient of log p(x, z) in z: one pass forward and one back. Both are timed in turns, in one process.

    python benchmarks/annealing.py
"""

import argparse
import os
import statistics
import time

import torch

import subo
from subo.evaluation.evidence.annealed import Annealing, ais


def build() -> subo.VAE:
    torch.manual_seed(0)
    return subo.VAE(
        subo.StandardNormal(50),
        subo.Conditional(subo.Bernoulli((784,)), subo.mlp(50, 784)),
        subo.Conditional(subo.Gaussian((50,)), subo.mlp(784, 100)),
    )


def gradients_per_second(model: subo.VAE, x: torch.Tensor, chains: int, repeats: int) -> float:
    """Of ``log p(x, z)`` in z alone, all chains and data at once."""
    z = torch.randn(chains, len(x), 50)
    started = time.perf_counter()
    for _ in range(repeats):
        at = z.requires_grad_()
        torch.autograd.grad(model.log_joint(x, at).sum(), at)
    return repeats * chains * len(x) / (time.perf_counter() - started)


def leapfrogs_per_second(model: subo.VAE, x: torch.Tensor, chains: int, temperatures: int, steps: int) -> float:
    """Of a whole estimate; those of the run that adapts the step are counted, too."""
    started = time.perf_counter()
    ais(
        model,
        x,
        annealing=Annealing(temperatures=temperatures, chains=chains, leapfrog_steps=steps),
        max_rows=chains * len(x),
    )
    seconds = time.perf_counter() - started
    pilot = min(max(temperatures // 10, 50), 200) + 30
    return (temperatures - 1 + pilot) * steps * chains * len(x) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=20)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--temperatures", type=int, default=50)
    parser.add_argument("--leapfrog-steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, x = build(), torch.randint(2, (arguments.data, 784)).float()
    gradients_per_second(model, x, arguments.chains, 20)  # warms up
    plain, ours = [], []
    for _ in range(arguments.rounds):
        plain.append(gradients_per_second(model, x, arguments.chains, 300))
        ours.append(leapfrogs_per_second(model, x, arguments.chains, arguments.temperatures, arguments.leapfrog_steps))
    ratio = statistics.median(b / a for a, b in zip(ours, plain, strict=True))
    rows = f"{arguments.chains} chains of {arguments.data} examples at once, {arguments.threads} threads"
    print(f"784-200-200-50 tanh, {rows}, torch {torch.__version__}")
    print(f"leapfrog steps per second: {statistics.median(ours):,.0f}")
    print(f"gradients per second:      {statistics.median(plain):,.0f}")
    print(f"a leapfrog step costs {ratio:.2f} gradients (median of {arguments.rounds} rounds)")


if __name__ == "__main__":
    main()
