"""Memory of variational inference without an encoder: a million data, 50 latent dimensions, Adam's state and all.

Every example has 100 parameters of its own (a Gaussian's locations and scales), of which there are three copies: the
parameters and two moments. The data are small, 4 features of one byte, so that what is measured is inference.

    python benchmarks/local_memory.py --data 1000000 --latent-dim 50
"""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import subo
from subo.data.splits import Split
from subo.training.fitting import fit

FEATURES = 4


def peak() -> float:
    """The most memory that the process has had so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=1_000_000)
    parser.add_argument("--latent-dim", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=1000)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores; {options.data:,} examples, {options.latent_dim} dimensions"
    )
    print(f"{'imported':40} peak {peak():.2f} GB")
    x = torch.randint(0, 2, (options.data, FEATURES), dtype=torch.uint8)
    decoder = subo.Conditional(subo.Bernoulli((FEATURES,)), subo.mlp(options.latent_dim, FEATURES, hidden=(50,)))
    posterior = subo.Local(subo.Gaussian((options.latent_dim,)), options.data)
    model = subo.VAE(subo.StandardNormal(options.latent_dim), decoder, posterior)
    print(f"{'data and model':40} peak {peak():.2f} GB (rows are memory once they are touched)")

    started = time.perf_counter()
    (epoch,) = fit(subo.Objective(model), Split(x), epochs=1, batch_size=options.batch_size).epochs
    seconds = time.perf_counter() - started
    touched = sum(int((rows != 0).any(1).sum()) for rows in posterior.params.detach().split(10_000))
    print(f"{f'an epoch, {epoch.step} steps, all {touched:,} rows moved':40} peak {peak():.2f} GB, {seconds:.0f} s")
    print(f"bound {epoch.train.bound:.3f} nats; below 2 GB: {'yes' if peak() < 2 else 'NO'}")


if __name__ == "__main__":
    main()
