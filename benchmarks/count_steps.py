"""The negative binomial's log-probability with its gradient beside the plain formula by autograd, in 32 and 64 bits.

    log Gamma(x + 1/a) - log Gamma(1/a) - log Gamma(x + 1) + x log(a m) - (x + 1/a) log(1 + a m)

Seconds of the processor of a forward and a backward pass, the memory that autograd keeps between them, and the largest
error of the value, the slopes in log m and those in a, against the plain formula in 64 bits where that is accurate. The
third part has dispersions near 0 in a tenth of the columns, where the plain formula loses its digits.

    python benchmarks/count_steps.py
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from subo.distributions.negative_binomial import NegativeBinomial

Found = tuple[Tensor, Tensor, Tensor]


def by_subo(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    return NegativeBinomial(log_mean, a).log_prob(x)


def plain(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    r = 1 / a
    gammas = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
    return gammas + x * (a.log() + log_mean) - (x + r) * (a * log_mean.exp()).log1p()


def plain_in_64_bits(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    return plain(x.double(), log_mean.double(), a.double()).float()


def measured(of: Callable[..., Tensor], x: Tensor, log_mean: Tensor, a: Tensor) -> tuple[float, float, Found]:
    """Seconds, megabytes kept, and the value with its slopes."""
    inputs = [tensor.clone().requires_grad_() for tensor in (log_mean, a)]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    began = time.process_time()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        value = of(x, *inputs)
    slope, slope_in_a = torch.autograd.grad(value.sum(), inputs)
    return time.process_time() - began, sum(kept.values()) / 2**20, (value.detach(), slope, slope_in_a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread; the median of {turns} turns, methods by turns")
    for rows, columns, least in ((128, 3000, 0.1), (100, 20_000, 0.1), (128, 3000, 1e-6)):
        log_mean, a = torch.randn(rows, columns), 0.1 + torch.rand(columns)
        a[: columns // 10] = least
        x = NegativeBinomial(log_mean, a).sample()
        methods = {"subo": by_subo, "plain, 32 bits": plain, "plain, 64 bits": plain_in_64_bits}
        found: dict[str, list[tuple[float, float, Found]]] = {name: [] for name in methods}
        for _ in range(turns):
            for name, of in methods.items():
                found[name].append(measured(of, x, log_mean, a))
        truth = found["plain, 64 bits"][0][2]
        print(f"\n{rows} rows x {columns:,} counts, least dispersion {least:g}")
        print(f"{'':16s}{'seconds':>9s}{'kept':>10s}   largest differences from 64 bits")
        for name, runs in found.items():
            seconds = sorted(run[0] for run in runs)[turns // 2]
            errors = [f"{(one - other).abs().max():.1e}" for one, other in zip(runs[0][2], truth, strict=True)]
            print(f"{name:16s}{seconds:9.3f}{runs[0][1]:7.0f} MB   {', '.join(errors)}")


if __name__ == "__main__":
    main()
