"""Which files in a folder belong to the run; only those are ever removed."""

import csv
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from subo.files.whole import UNFINISHED, read_json
from subo.runs.paths import PICTURES, SPLITS

__all__ = ["FOLDERS", "foreign_files", "is_left_by_a_crash", "is_own", "noted_digest", "own_files", "results"]

FOLDERS = ("snapshots", "figures", "evaluation-pieces")

_TEMPORARY = (f"{UNFINISHED}*", f".*.{'[0-9a-f]' * 8}.*")  # the second is version 0.1's name for them
_RESULTS = (
    *(f"evaluation{of}.{kind}" for of in ("", *(f"-{split}" for split in SPLITS[1:])) for kind in ("json", "csv")),
    *("evaluation-pieces", "gradients.csv", *(f"figures/{name}" for name in PICTURES)),
)
_EPOCH = "[0-9]" * 6
_OWN = (
    *("config.json", "metrics.jsonl", "checkpoint.pt", "model.safetensors", *FOLDERS),
    *(f"snapshots/means-{_EPOCH}.npy", f"snapshots/weights-{_EPOCH}.safetensors", *_RESULTS),
)


def own_files(folder: Path) -> list[Path]:
    """Files of a run, what a crash left behind of them, and folders that contain nothing else."""
    return [path for path in _entries(folder) if _is_any(path, folder, _OWN) or is_left_by_a_crash(path)]


def results(folder: Path) -> list[Path]:
    """The run's files with results of the fitted weights."""
    return [path for path in _entries(folder) if _is_any(path, folder, _RESULTS)]


def foreign_files(folder: Path) -> list[Path]:
    """What lies in a folder and is not part of a run."""
    own = set(own_files(folder))
    return [path for path in _entries(folder) if path not in own]


def is_own(path: Path) -> bool:
    """Whether a path, relative to the run's folder, belongs to the run or lies in a folder of its own.

    Example:
        >>> is_own(Path("figures/kl.png")), is_own(Path("notes.txt"))
        (True, False)
    """
    return any(fnmatch(path.parts[0], pattern) for pattern in _OWN)


def is_left_by_a_crash(path: Path) -> bool:
    """Whether a file is the remainder of an unfinished write."""
    return any(fnmatch(path.name, pattern) for pattern in _TEMPORARY)


def noted_digest(path: Path) -> str | None:
    """The digest of the weights that a result file, .json or .csv, belongs to; None if it does not say.

    Raises:
        InputError: A .json file cannot be read.
    """
    if path.suffix == ".json":
        result = read_json(path)
        return result.get("weights") if isinstance(result, dict) else None
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file), {}).get("weights")


def _entries(folder: Path) -> Iterator[Path]:
    """Entries of a folder; for ``snapshots/`` and ``figures/``, where users may put files too, their contents."""
    for path in sorted(folder.iterdir()):
        shared = path.name in FOLDERS[:2] and path.is_dir() and not path.is_symlink()
        yield from sorted(path.iterdir()) if shared else (path,)


def _is_any(path: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in patterns)
