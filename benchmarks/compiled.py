"""A training step as Python makes it, compiled by torch, and (on CUDA) recorded once and replayed.

    python benchmarks/compiled.py --threads 1

Milliseconds of a whole step, from the gathering of the batch to the update, on the same batches: processor time on a
CPU, the clock on a GPU. The ways take turns; each number is the median of the turns. The seconds before the
first compiled step are those of an empty cache.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import subo
from subo.data.batches import batches
from subo.data.on_device import kept_on, places
from subo.data.splits import Split
from subo.runtime.devices import make_fabric
from subo.training.loop import train


@dataclass(frozen=True)
class Case:
    """A model on data."""

    make: Callable[[], tuple[subo.Objective, Split]]
    batch_size: int


def of_images(**options: Any) -> Callable[[], tuple[subo.Objective, Split]]:
    def make() -> tuple[subo.Objective, Split]:
        images = Split(torch.randint(256, (20_000, 1, 28, 28), dtype=torch.uint8), levels=255, resample=True)
        seen = Split((torch.rand(1000, 1, 28, 28) < 0.3).float())
        return subo.make("vae", seen, likelihood="bernoulli", latent_dim=50, **options), images

    return make


def of_named(name: str, recipe: str, **options: Any) -> Callable[[], tuple[subo.Objective, Split]]:
    def make() -> tuple[subo.Objective, Split]:
        data = subo.load_data(name, **options)
        return subo.make(recipe, data), data.train

    return make


CASES = {
    "784-200-200-50, tanh": Case(of_images(hidden=(200, 200), activation="tanh"), 100),
    "784-500-500-50, the default": Case(of_images(hidden=(500, 500)), 250),
    "convolutions": Case(of_images(network="conv"), 100),
    "digits, the default": Case(of_named("digits", "vae", binarize="dynamic"), 128),
    "digits, hierarchical": Case(of_named("digits", "hierarchical", binarize="dynamic"), 128),
}
TABLE = Case(lambda: of_named(arguments.table, "vae")(), 256)


def stream(split: Split, batch_size: int, device: torch.device) -> Iterator[Any]:
    there = kept_on(device, split)
    for epoch in range(10_000):
        if there is not None:
            yield from places(there, batch_size, seed=0, epoch=epoch)
        else:
            yield from batches(split, batch_size, seed=0, epoch=epoch)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Way:
    """One way of making steps, kept going between its turns."""

    def __init__(self, compile: Any, case: Case, fabric: Any):
        torch.manual_seed(0)
        objective, split = case.make()
        self.device = fabric.device
        objective.to(self.device)
        source = stream(split, case.batch_size, self.device)
        self.steps = train(objective, source, steps=1_000_000, fabric=fabric, compile=compile)
        began = time.perf_counter()
        for _ in range(5 if compile != "graph" else 100):
            next(self.steps)
        self.before = time.perf_counter() - began

    def turn(self, steps: int) -> float:
        """Milliseconds of a step."""
        began = now(self.device)
        for _ in range(steps):
            next(self.steps)
        return 1000 * (now(self.device) - began) / steps


def main() -> None:
    torch.set_num_threads(arguments.threads)
    fabric = make_fabric(device=arguments.device)
    ways = ["none", "torch", *(["graph"] if fabric.device.type == "cuda" else [])]
    card = torch.cuda.get_device_name() if fabric.device.type == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"torch {torch.__version__}, {card}; {arguments.turns} turns of {arguments.steps} steps")
    print(f"{'':30s}" + "".join(f"{way:>10s}" for way in ways) + "   ratios   seconds to compile")
    cases = CASES | ({arguments.table: TABLE} if arguments.table else {})
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            made = {way: Way(way, case, fabric) for way in ways}
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(arguments.turns):
                for way, one in made.items():
                    times[way].append(one.turn(arguments.steps))
        medians = {way: statistics.median(each) for way, each in times.items()}
        ratios = " ".join(f"{medians['none'] / medians[way]:.2f}" for way in ways[1:])
        row = "".join(f"{medians[way]:10.3f}" for way in ways)
        print(f"{os.path.basename(name):30s}{row}   {ratios}   {made['torch'].before:.0f}", flush=True)
        torch.compiler.reset()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--table", help="a file of a table, such as credit_data.csv.gz")
    arguments = parser.parse_args()
    main()
