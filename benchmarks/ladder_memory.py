"""Memory of training a ladder of 10 layers on images of 28 x 28, batches of 100, Adam's state and all.

python benchmarks/ladder_memory.py --network mlp
python benchmarks/ladder_memory.py --network conv
"""

import argparse
import os
import resource
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from subo.data.splits import Split
from subo.recipes import ladder
from subo.training.fitting import fit

SIZES: dict[str, dict[str, Any]] = {
    "mlp": {"latent_dims": (64, 48, 32, 32, 16, 16, 16, 8, 8, 8), "hidden": (512,)},
    "conv": {"latent_dims": (4, 8, 8, 16, 16, 16, 16, 8, 8, 8), "channels": (32, 64)},
}


def peak() -> float:
    """The most memory that the process has had so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(SIZES), default="mlp")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=100)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    name: Any = options.network
    print(f"torch {torch.__version__}; {name}, batches of {options.batch_size}, {SIZES[name]}")
    print(f"{'imported':28} peak {peak():.2f} GB")
    x = torch.randint(0, 2, (options.batches * options.batch_size, 1, 28, 28), dtype=torch.uint8)
    objective = ladder((1, 28, 28), likelihood="bernoulli", network=name, **SIZES[name])
    count = sum(parameter.numel() for parameter in objective.parameters())
    print(f"{'data and model':28} peak {peak():.2f} GB, {count:,} parameters")
    started = time.perf_counter()
    (epoch,) = fit(objective, Split(x), epochs=1, batch_size=options.batch_size).epochs
    seconds = time.perf_counter() - started
    print(f"{f'{epoch.step} steps':28} peak {peak():.2f} GB, {1000 * seconds / epoch.step:.0f} ms a step")
    print(f"bound {epoch.train.bound:.2f} nats, below 2 GB: {'yes' if peak() < 2 else 'NO'}")


if __name__ == "__main__":
    main()
