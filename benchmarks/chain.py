"""Where a step of a deep Markov model goes on one thread, and what its loops would take written or compiled otherwise.

Batches of 16 piano rolls of 88 keys, the model of the recipe's defaults; the least of some repetitions in turns,
forward and backward, in milliseconds of the processor for each time step.

    python benchmarks/chain.py
    python benchmarks/chain.py --compile 25
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from subo.models.markov import MarkovDistribution
from subo.recipes import deep_markov

ROLLS, STEPS, DIM, HIDDEN = 16, 200, 32, 200


def least(functions: dict[str, Callable[[], Tensor]], *, rounds: int) -> dict[str, float]:
    """Seconds of the processor that each took with its gradient, in turns, after a first call that may compile."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            started = time.process_time()
            function().backward()
            taken[name].append(time.process_time() - started)
    return {name: min(times[1:]) for name, times in taken.items()}


def batch(steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.randint(0, 2, (ROLLS, steps, 88)).float(), {"mask": torch.ones(ROLLS, steps, dtype=torch.bool)}


def plain(combiner: Any, h: Tensor, noise: Tensor) -> Tensor:
    """The states of q without distributions, checks and padding."""
    z, path = torch.zeros(ROLLS, DIM), []
    for of_x, of_z in zip(h.unbind(1), noise.unbind(1), strict=True):
        loc, raw = combiner.params((combiner.of_state(z).tanh() + of_x) / 2).chunk(2, -1)
        z = loc + (nn.functional.softplus(raw) + 1e-3) * of_z
        path.append(z)
    return torch.stack(path, 1).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", type=int, default=0, help="compile the loop over so many steps, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    objective = deep_markov((88,), likelihood="bernoulli")
    posterior, count = objective.model.posterior, options.compile or STEPS
    x, context = batch(count)
    combiner, h = posterior.combiner, posterior.reader(x, context["mask"]).detach().requires_grad_()
    noise = torch.randn(ROLLS, count, DIM)
    print(f"torch {torch.__version__}; {count} steps")

    def chain() -> Tensor:
        first = combiner(torch.zeros(ROLLS, DIM), h[:, 0])
        return MarkovDistribution(first, combiner, count, mask=context["mask"], inputs=h).rsample().sum()

    functions = {"the loop that draws z": chain, "without distributions and checks": lambda: plain(combiner, h, noise)}
    if options.compile:
        whole, started = torch.compile(plain), time.perf_counter()
        whole(combiner, h, noise).backward()
        print(f"compiled in {time.perf_counter() - started:.0f} s")
        functions["the latter, compiled as a whole"] = lambda: whole(combiner, h, noise)
    else:
        functions["the reader"] = lambda: posterior.reader(x, context["mask"]).sum()
        functions["a step"] = lambda: objective(x, context).loss
        for cell in (nn.GRU, nn.LSTM):
            network: Any = cell(88, HIDDEN, batch_first=True)
            functions[f"{cell.__name__} of torch"] = lambda network=network: network(x)[0].sum()
    for name, seconds in least(functions, rounds=10).items():
        print(f"{name:36}{1000 * seconds / count:8.3f}", flush=True)
    for steps in () if options.compile else (1000, 4000):
        longer = batch(steps)
        found = least({"": lambda longer=longer: objective(*longer).loss}, rounds=2)
        print(f"{f'a step on {steps:,}':36}{1000 * found[''] / steps:8.3f}", flush=True)


if __name__ == "__main__":
    main()
