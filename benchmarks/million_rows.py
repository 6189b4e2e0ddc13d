"""A million rows of 20 mixed columns: reading beside pandas, memory, the first step, and steps beside plain numbers.

    python benchmarks/million_rows.py --rows 1000000

Reading and memory are measured in processes of their own: peak memory is that of the whole process less what it has
after the imports, over the size of the modeled table in float32. Steps are of the same networks, batches and latents:
of the table, and of a matrix of normal numbers that is as wide as what the encoder sees of the table; both loops take
turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import subo
from subo import load_data  # before time is taken: all of the library is imported here
from subo.data.splits import Split
from subo.data.tables.reading import read_frame
from subo.parts.cells import Cells


def write_table(path: Path, rows: int) -> None:
    """Columns of all kinds; a twentieth of the cells of three of them is missing."""
    rng = np.random.default_rng(0)
    group = rng.integers(4, size=rows)
    columns: dict[str, Any] = {f"real{i}": (group + rng.normal(size=rows)).round(3) for i in range(8)}
    columns |= {f"amount{i}": np.exp(group / 2 + rng.normal(size=rows)).round(2) for i in range(2)}
    columns |= {f"count{i}": rng.negative_binomial(2, 0.02 + 0.01 * group) for i in range(3)}
    columns |= {
        f"city{i}": np.array([f"city {k}" for k in range(5 + 10 * i)])[rng.integers(5 + 10 * i, size=rows)]
        for i in range(4)
    }
    columns["member"] = np.where(rng.random(rows) < 0.2 + 0.2 * group, "yes", "no")
    columns["debt"] = np.where(rng.random(rows) < 0.4, 0.0, rng.gamma(2, 100, rows)).round(2)
    columns["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(1000, size=rows), unit="D")
    frame = pd.DataFrame(columns)
    for name in ("real0", "city1", "count2"):
        frame[name] = frame[name].where(rng.random(rows) > 0.05)
    frame.to_csv(path, index=False)


def measured(work: Callable[[Path], Any], path: Path) -> tuple[float, float, Any]:
    torch.set_num_threads(1)
    before = peak()
    began = time.process_time()
    result = work(path)
    seconds = time.process_time() - began
    return seconds, peak() - before, result


def peak() -> float:
    """The most megabytes that this process has had; not those of its parent, as getrusage may count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def alone(work: Callable[[Path], Any], path: Path) -> tuple[float, float, Any]:
    """Seconds of processor, additional megabytes and the result of work in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, work, path).result()


def by_pandas(path: Path) -> None:
    pd.read_csv(path)


def to_a_frame(path: Path) -> None:
    read_frame(path)


def to_data(path: Path) -> None:
    load_data(path)


def to_the_first_step(path: Path) -> float:
    """Seconds from the data in memory to the end of the first step."""
    data = load_data(path)
    began, first = time.perf_counter(), []

    def stop(_: Any) -> None:
        first.append(time.perf_counter() - began)
        raise KeyboardInterrupt

    objective = subo.make("vae", data)
    few = subo.Split(data.train.x[:256])
    settings = subo.training_settings(objective, data)
    with suppress(KeyboardInterrupt):
        subo.fit(objective, few, **{**settings, "epochs": 1, "patience": None}, on_epoch=stop)
    return first[0]


def seconds_of_steps(objective: Any, split: Split, *, steps: int, batch_size: int) -> float:
    few = split.take(torch.arange(batch_size * steps) % len(split))
    began = time.process_time()
    subo.fit(objective, few, epochs=1, batch_size=batch_size)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, arguments.rows)
        print(f"{arguments.rows:,} rows x 20 columns, {path.stat().st_size / 1e6:.0f} MB of text, one thread")
        plain = 0.0
        table = 4 * 20 * arguments.rows / 2**20
        for name, work in {
            "pandas.read_csv": by_pandas,
            "cells": to_a_frame,
            "cells, schema, numbers": to_data,
        }.items():
            runs = [alone(work, path) for _ in range(3)]
            seconds, memory = min(run[0] for run in runs), runs[0][1]
            plain = seconds if work is by_pandas else plain
            print(
                f"{name}: {seconds:.2f} s of processor (best of 3), {seconds / plain:.2f} times pandas; "
                f"peak {memory:.0f} MB, {memory / table:.1f} times the {table:.0f} MB of float32"
            )
        _, memory, first = alone(to_the_first_step, path)
        print(
            f"from the data in memory to the end of the first epoch of one batch: {first:.1f} s; peak {memory:.0f} MB"
        )
        data = load_data(path)
    mixed = subo.make("vae", data)
    width = Cells(data.meaning.table.described).out_features if data.meaning.table is not None else 20
    latents = mixed.model.posterior.family.event_shape[0]
    matrix = Split(torch.randn(100_000, width))
    options: dict[str, Any] = {"latent_dim": latents, "likelihood": "student-t", "scale": "network"}
    same = {name: mixed.model.made_by.options[name] for name in ("hidden", "prior", "prior_covariance", "activation")}
    numbers = subo.make("vae", matrix, **options, **same)
    for batch_size in (subo.training_settings(mixed, data)["batch_size"], 1000):
        size = {"steps": arguments.steps, "batch_size": batch_size}
        times = [
            (seconds_of_steps(mixed, data.train, **size), seconds_of_steps(numbers, matrix, **size)) for _ in range(4)
        ]
        for of_table, of_numbers in times:
            print(f"  {arguments.steps} steps: table {of_table:.2f} s, {width} numbers {of_numbers:.2f} s of processor")
        ratios = sorted(a / b for a, b in times[1:])
        print(f"batches of {batch_size}: ratio of steps, median of the last three turns: {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
