"""Steps in one thread and in two, alone and beside busy processes, by how long threads spin for each other.

    python benchmarks/threads.py

Each row is a process of its own: 80 steps of 784-500-500-50 on batches of 250; medians of eight blocks, in
milliseconds of the clock and of the processor. GNU's OpenMP lets a thread that waits spin GOMP_SPINCOUNT times before
it sleeps; by default some milliseconds. The command line sets 10,000, unless the environment decides.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time


def steps() -> None:
    import torch

    import subo

    torch.manual_seed(0)
    x = (torch.rand(250, 784) < 0.3).float()
    decoder = subo.Conditional(subo.Bernoulli((784,)), subo.mlp(50, 784, hidden=(500, 500)))
    encoder = subo.Conditional(subo.Gaussian((50,)), subo.mlp(784, 100, hidden=(500, 500)))
    training = subo.train(subo.Objective(subo.VAE(subo.StandardNormal(50), decoder, encoder)), [x], steps=90)
    for _ in range(10):
        next(training)
    blocks = []
    for _ in range(8):
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(10):
            next(training)
        blocks.append((time.perf_counter() - clock, time.process_time() - processor))
    clock, processor = (100 * statistics.median(block[i] for block in blocks) for i in range(2))
    print(f"{clock:8.1f} ms, processor {processor:8.1f} ms")


def busy() -> None:
    while True:
        pass


def main() -> None:
    cores = os.cpu_count() or 1
    for load in (0, cores, 2 * cores):
        others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(load)]
        for other in others:
            other.start()
        for threads, spin in (("1", ""), (str(cores), ""), (str(cores), "10000"), (str(cores), "0")):
            environment = {**os.environ, "OMP_NUM_THREADS": threads, **({"GOMP_SPINCOUNT": spin} if spin else {})}
            done = subprocess.run(
                [sys.executable, __file__, "steps"], env=environment, capture_output=True, text=True, check=True
            )
            print(
                f"{load} busy beside; {threads} threads, spin {spin or 'default':>8s}: {done.stdout.strip()}",
                flush=True,
            )
        for other in others:
            other.kill()


if __name__ == "__main__":
    steps() if sys.argv[1:] == ["steps"] else main()
