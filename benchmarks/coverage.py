"""How often 1.96 standard errors around log p(x) hold the truth, where it is known in closed form.

Weights w with E[w] = 1, hence log p(x) = 0, of tails whose shape k is known: Pareto's own, those of a normal target
and a q of variance 1 - k in one and ten dimensions, q's that are centered between two modes of the target, and q's
that lie around one mode and hardly ever visit the other.
Three kinds of error of the plain average's logarithm are set side by side: the delta method's, that of Pareto smoothed
weights around their own average, and the one that `log_marginal` gives; over all cases, over those whose k-hat is at
most 0.7, and over those where it is at most the threshold min(1 - 1/log10 K, 0.7). Below the same for annealing's
chains, whose log-weights are normal, or skewed to either side.

    python benchmarks/coverage.py
"""

import argparse
import math
from collections.abc import Callable

import torch
from arviz_stats.base import array_stats
from torch import Tensor

from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing, few_chains
from subo.evaluation.evidence.importance import WeightSums
from subo.evaluation.evidence.pareto import WeightTail, highest_pareto_k

SHAPES = (0.3, 0.5, 0.6, 0.68, 0.8)
Draw = Callable[[int, int], Tensor]


def pareto(k: float) -> Draw:
    """Log-weights of ``(1 - k) U^-k``."""
    return lambda K, R: math.log1p(-k) - k * torch.rand(K, R, dtype=torch.float64).log()


def normal(k: float, dim: int = 1) -> Draw:
    """Of a standard normal target and a narrower q, of variance 1 - k."""

    def draw(K: int, R: int) -> Tensor:
        z = torch.randn(K, R, dim, dtype=torch.float64) * math.sqrt(1 - k)
        return (z.square() * (0.5 / (1 - k) - 0.5)).sum(-1) + 0.5 * dim * math.log1p(-k)

    return draw


def modes(distance: float, scale: float) -> Draw:
    """Of two normals, `distance` to either side of the middle of q."""

    def draw(K: int, R: int) -> Tensor:
        z = torch.randn(K, R, dtype=torch.float64) * scale
        target = torch.logaddexp(-(z - distance).square() / 2, -(z + distance).square() / 2) - math.log(2)
        return target + (z / scale).square() / 2 + math.log(scale)

    return draw


def missed(share: float, distance: float, scale: float) -> Draw:
    """Of two normals, of which q lies around the one that has this share of the target, and hardly visits the other."""

    def draw(K: int, R: int) -> Tensor:
        z = torch.randn(K, R, dtype=torch.float64) * scale
        other = math.log(1 - share) - (z - distance).square() / 2
        target = torch.logaddexp(math.log(share) - z.square() / 2, other)
        return target + (z / scale).square() / 2 + math.log(scale)

    return draw


CASES: dict[str, Draw] = {
    **{f"Pareto, k = {k}": pareto(k) for k in SHAPES},
    **{f"normal, k = {k}": normal(k) for k in SHAPES},
    "normal in 10 dimensions, k = 0.3": normal(0.3, 10),
    "modes at 3, q of scale 2": modes(3, 2.0),
    "modes at 3, q of scale 1.5": modes(3, 1.5),
    "modes at 4, q of scale 1.5": modes(4, 1.5),
    "q at one of two halves, 3 apart": missed(0.5, 3, 1.2),
    "q at 0.7 of it, 0.3 is 4 apart": missed(0.7, 4, 1.2),
    "q at 0.9 of it, 0.1 is 4 apart": missed(0.9, 4, 1.2),
}


def estimated(log_weight: Tensor) -> dict[str, Tensor]:
    """log p(x) and errors of each column, as `log_marginal` makes them, and its k-hat."""
    sums, tail = WeightSums(log_weight.shape[1]), WeightTail(log_weight.shape[1], len(log_weight))
    sums.add(log_weight)
    tail.add(log_weight)
    return {
        "log_px": sums.log_mean,
        "error": sums.error_by(tail),
        "delta": sums.standard_error,
        "k": tail.pareto_k(),
    }


def smoothed(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same by Pareto smoothed weights, ArviZ's, and the delta method's error of these."""
    shift = log_weight.amax(0)
    weights = torch.from_numpy(array_stats.psislw(-(log_weight - shift).mT.numpy())[0]).mT
    # psislw normalizes: the smallest weight, which is in no tail, gives the constant back
    low = log_weight.argmin(0, keepdim=True)
    weights = weights - weights.gather(0, low) + log_weight.gather(0, low)
    sums = WeightSums(weights.shape[1])
    sums.add(weights)
    return sums.log_mean, sums.standard_error


def covered(log_px: Tensor, error: Tensor, rows: Tensor) -> str:
    """Share of some rows whose interval holds 0, in percent."""
    return f"{100 * (log_px.abs() <= 1.96 * error)[rows].double().mean():6.1f}" if rows.any() else "     -"


def chains(kind: str, spread: float) -> Draw:
    """Log-weights of chains with about this standard deviation, ``E[w] = 1``."""

    def draw(C: int, R: int) -> Tensor:
        if kind == "normal":
            return spread * torch.randn(C, R, dtype=torch.float64) - spread**2 / 2
        scale = torch.full((C, R), spread / 2, dtype=torch.float64)  # gamma of shape 4
        if kind == "left":
            return 4 * scale.log1p() - scale * torch._standard_gamma(torch.full_like(scale, 4.0))
        scale = scale.clamp(max=0.4)
        shape = (spread / scale).square()
        return scale * torch._standard_gamma(shape) + shape * torch.log1p(-scale)

    return draw


def of_samples(repeats: int) -> None:
    """Importance sampling."""
    torch.manual_seed(0)
    print(f"share of {repeats:,} cases within 1.96 errors, in percent (95 wanted); width: the error, in delta's")
    print(f"{'':41s}{'k-hat at most the threshold':>36s}{'at most 0.7':>20s}{'all':>20s}")
    heads = "share  delta   PSIS   here  width   delta   PSIS   here   delta   PSIS   here"
    print(f"{'':34s}    K  {heads}")
    for K in (50, 100, 1000):
        for name, draw in CASES.items():
            log_weight = draw(K, repeats)
            found, psis = estimated(log_weight), smoothed(log_weight)
            groups = [found["k"] <= highest_pareto_k(K), found["k"] <= 0.7, torch.ones_like(found["k"]).bool()]
            cells = []
            for rows in groups:
                plain = [covered(found["log_px"], found[kind], rows) for kind in ("delta", "error")]
                cells.append("".join([plain[0], " ", covered(*psis, rows), " ", plain[1]]))
            width = (found["error"] / found["delta"])[groups[0]].median().item()
            share = 100 * groups[0].double().mean()
            print(f"{name:34s}{K:5d}{share:7.1f} {cells[0]}{width:7.1f}  {'  '.join(cells[1:])}", flush=True)


def of_chains(repeats: int) -> None:
    """Annealing."""
    torch.manual_seed(0)
    print("\nannealing: chains whose log-weights have this standard deviation")
    print(f"{'':10s} spread  chains   delta   here  error  median effective chains   few")
    for kind in ("normal", "left", "right"):
        for C in (16, 64):
            for spread in (0.3, 1.0, 1.5, 2.0, 3.0):
                log_weight = chains(kind, spread)(C, repeats)
                sums = WeightSums(repeats)
                sums.add(log_weight)
                found = AnnealedEstimate.of(log_weight, torch.ones(repeats).double(), Annealing(chains=C))
                rows = torch.ones(repeats).bool()
                few = 100 * few_chains(found.effective_sample_size).double().mean()
                cells = [covered(found.log_px, error, rows) for error in (sums.standard_error, found.standard_error)]
                error, ess = found.standard_error.median(), found.effective_sample_size.median()
                print(f"{kind:10s}{spread:7.1f}{C:8d}  {' '.join(cells)}{error:7.2f}{ess:26.1f}{few:6.0f}%", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--chains-alone", action="store_true", help="leave importance sampling out: minutes")
    arguments = parser.parse_args()
    if not arguments.chains_alone:
        of_samples(arguments.repeats)
    of_chains(arguments.repeats)


if __name__ == "__main__":
    main()
