"""Data that stay on disk: memory as they grow, steps beside the same data in memory, and the start of many images.

    python benchmarks/larger_than_memory.py memory --gigabytes 1 5 20
    python benchmarks/larger_than_memory.py steps
    python benchmarks/larger_than_memory.py images --count 1000000

*memory*: Rows of 784 numbers in float32, in a file of holes (zeros that take no disk, and are read like others). A
process of its own loads and divides them, and reads an epoch of batches of 250; its peak is that of the whole process
less what it has after the imports.

*steps*: 100,000 rows of a gigabyte of normal numbers, 784 a row. An epoch of training on 784-500-500 (or, with
--hidden, another network) in batches of 250, on data in memory and on disk, in turns; one thread of torch, and wall
time, since reading ahead uses another thread. And the same loop without any training. The file is in the page cache of
the system, so that the disk is not measured.

*images*: Grey images of 28 x 28 in 100 folders: 100 files and links to them. From the start of a process, with its
imports, to the end of the first step of training.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import subo
from subo.data.batches import batches

WIDTH, BATCH = 784, 250


def peak() -> float:
    """The most megabytes that this process has had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def epoch_of_batches(path: Path) -> None:
    """Reads an epoch, and prints what that took."""
    began, before = time.perf_counter(), peak()
    data = subo.load_data(path, on_disk=True)
    first = time.perf_counter() - began
    for _ in batches(data.train, BATCH, seed=0, epoch=1):
        pass
    seconds, size = time.perf_counter() - began - first, path.stat().st_size / 2**30
    print(
        f"{size:5.1f} GB, {len(data.train):,} rows to train on: loaded in {first:.1f} s, an epoch read in "
        f"{seconds:.1f} s; peak {peak() - before:.0f} MB",
        flush=True,
    )


def memory(sizes: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = Path(folder) / "x.npy"
            rows = int(size * 2**30 / (4 * WIDTH))
            np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, WIDTH)).flush()
            subprocess.run([sys.executable, __file__, "epoch", str(path)], check=True)
            path.unlink()


def steps(hidden: list[int], turns: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        rng = np.random.default_rng(0)
        np.save(path, rng.standard_normal((2**30 // (4 * WIDTH), WIDTH), dtype=np.float32))
        sources = {"memory": subo.load_data(path, on_disk=False), "disk": subo.load_data(path, on_disk=True)}
        few = {name: data.train.take(torch.arange(100_000)) for name, data in sources.items()}
        options = {"latent_dim": 50, "hidden": tuple(hidden), "likelihood": "gaussian", "scale": "network"}
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(turns):
            for name, split in few.items():
                objective = subo.make("vae", sources["memory"], **options)
                history = subo.fit(objective, split, epochs=1, batch_size=BATCH)
                found.setdefault((name, "trained"), []).append(history.epochs[-1].seconds)
                began = time.perf_counter()
                for _ in batches(split, BATCH, seed=0, epoch=1):
                    pass
                found.setdefault((name, "read"), []).append(time.perf_counter() - began)
        for what in ("trained", "read"):
            a, b = (torch.tensor(found[name, what], dtype=torch.float64) for name in ("memory", "disk"))
            print(
                f"100,000 rows {what}, 784-{'-'.join(map(str, hidden))}: memory {_shown(a)} s, disk {_shown(b)} s; "
                f"throughput on disk {(a / b).median():.2f} of memory, {100_000 / b.median():,.0f} rows a second"
            )


def _shown(seconds: torch.Tensor) -> str:
    return " ".join(f"{value:.1f}" for value in seconds)


def first_step(folder: Path) -> None:
    data = subo.load_data(folder, on_disk=True, binarize="dynamic")
    objective = subo.make("vae", data, latent_dim=20)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    few = data.train.take(torch.arange(100))
    with suppress(KeyboardInterrupt):
        subo.fit(objective, few, epochs=1, batch_size=100, on_epoch=stop)
    print(f"peak {peak():.0f} MB with all imports", flush=True)


def images(count: int) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for group in range(100):
            place = folder / f"class{group:02}"
            place.mkdir()
            first = place / "0.png"
            Image.fromarray(rng.integers(256, size=(28, 28), dtype=np.uint8)).save(first)
            for number in range(1, count // 100):
                (place / f"{number}.png").hardlink_to(first)
        began = time.perf_counter()
        subprocess.run([sys.executable, __file__, "first-step", str(folder)], check=True)
        print(f"{count:,} images: the first step is done after {time.perf_counter() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["memory", "steps", "images", "epoch", "first-step"])
    parser.add_argument(
        "path", type=Path, nargs="?", help="for epoch and first-step, which are processes of the others"
    )
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 5.0, 20.0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, nargs="+", default=[500, 500])
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    match arguments.part:
        case "memory":
            memory(arguments.gigabytes)
        case "steps":
            steps(arguments.hidden, arguments.turns)
        case "images":
            images(arguments.count)
        case "epoch":
            epoch_of_batches(arguments.path)
        case _:
            first_step(arguments.path)


if __name__ == "__main__":
    main()
