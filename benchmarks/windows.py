"""Long sequences: piano rolls of 200 to 4,000 steps, whole and in windows, after the same time of one processor.

87 synthetic rolls of 88 keys to train on, and 16 others: a scale, chords that last some beats and a melody. Each
training is a process of its own, with the defaults of sequences (batches of 16, Adam at 0.003 with a cosine, a KL
warm-up over the first half of the time). Bounds are those of whole sequences, in nats per step.

    python benchmarks/windows.py --seconds 60
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import subo
from subo.data.batches import Batch, batches
from subo.data.splits import Split
from subo.recipes import deep_markov
from subo.training.loop import Schedule, train
from subo.training.metrics import measure
from subo.training.optimizers import make_optimizer

SCALE, CHORDS = np.array([0, 2, 4, 5, 7, 9, 11]), (0, 3, 4, 5, 1)
BATCH = 16


def roll(length: int, random: np.random.Generator) -> np.ndarray:
    """One piece, ``(length, 88)``: a bass and a triad for each chord, and a melody that walks on the scale."""
    x, key, beat = np.zeros((length, 88), dtype=np.uint8), random.integers(12), random.integers(3, 7)
    chord, place, start = 0, 14, 0
    while start < length:
        lasts = int(beat * random.choice([2, 4, 8]))
        degrees = CHORDS[chord] + np.array([0, 2, 4])
        notes = key + SCALE[degrees % 7] + 12 * (degrees // 7)
        x[start : start + lasts, [notes[0] + 12, *(notes + 36)]] = 1
        at = start
        while at < min(start + lasts, length):
            note, held = (
                39 + key + SCALE[place % 7] + 12 * (place // 7 - 1),
                int(beat * random.choice([0.5, 1, 2])) or 1,
            )
            x[at : at + held, min(note, 87)] = 1
            place, at = int(np.clip(place + random.integers(-2, 3), 7, 24)), at + held
        chord, start = int((chord + random.choice([1, 1, 1, 2, 3])) % len(CHORDS)), start + lasts
    return x


def rolls(count: int, *, seed: int) -> Split:
    random = np.random.default_rng(seed)
    lengths = random.integers(200, 4001, count)
    return Split(
        torch.from_numpy(np.concatenate([roll(int(n), random) for n in lengths])), lengths=torch.from_numpy(lengths)
    )


def endless(split: Split) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from batches(split, BATCH, seed=0, epoch=epoch)
        epoch += 1


def of_window(window: int | None, seconds: float) -> str:
    """The line of one training."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, others = rolls(87, seed=0), rolls(16, seed=1)
    objective = deep_markov((88,), examples=data.x.float(), likelihood="bernoulli", num_data=87)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    steps = train(
        objective,
        endless(data),
        optimizer=make_optimizer(objective, "Adam", learning_rate=3e-3),
        schedule=Schedule(warmup=6, decay="cosine", kl_warmup=1_000_000, by_clock=True),
        window=window,
        progress=lambda _: (time.process_time() - started) / seconds,
    )
    while (spent := time.process_time() - started) < seconds:
        number = next(steps).number
    epochs = number * BATCH / len(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = measure(objective, others, batch_size=BATCH)
    bound, rate = (value * len(others) / others.num_steps for value in (found.bound, found.rate))
    return (
        f"{window or 'whole':>7}{spent / epochs:12.1f}{epochs:9.1f}{(peak - before) * 1024 / 1e6:13.0f}"
        f"{bound:12.3f}{rate:9.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--windows", nargs="+", default=["none", "1000", "500", "200", "100", "50"])
    parser.add_argument("--only", help="train with this window alone")
    options = parser.parse_args()
    if options.only is not None:
        print(of_window(None if options.only == "none" else int(options.only), options.seconds), flush=True)
        return
    data = rolls(87, seed=0)
    print(f"subo {subo.__version__}, torch {torch.__version__}; {len(data)} rolls of {data.num_steps:,} steps in all")
    print(f"after {options.seconds:.0f} s of one processor each:")
    print(" window   s an epoch   epochs   memory (MB)   bound/step   KL/step", flush=True)
    for window in options.windows:
        own = [sys.executable, __file__, "--seconds", str(options.seconds), "--only", window]
        subprocess.run(own, check=True)


if __name__ == "__main__":
    main()
