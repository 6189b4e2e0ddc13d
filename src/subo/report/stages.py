"""Long measurements in pieces: each is kept on disk when it is done, so that the whole can be stopped and continued.

A piece's random numbers depend on the seed, its stage and its place, and on nothing that ran before it: a measurement
that was stopped ten times ends with the numbers of one that never was.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from subo.errors import InputError
from subo.files.digests import digest_of
from subo.files.weights import read_tensors
from subo.files.whole import replacing, write_text
from subo.runtime.randomness import stream

__all__ = ["Measured", "Stage", "measure_in_stages"]

Results = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Stage:
    """A measurement that is made piece by piece.

    Attributes:
        name: A word; pieces are kept under it.
        title: What a progress bar calls it.
        pieces: The data of each, positions in the split; for a measurement of the whole, one piece.
        work: From positions and a seed to results by name, the last axis that of the data, or without any.
        settings: Numbers that its results depend on: what was measured with others is not taken for it.
        optional: Whether the others are made though this one refuses the model.
    """

    name: str
    title: str
    pieces: Sequence[Tensor]
    work: Callable[[Tensor, int], Results]
    settings: tuple[int, ...] = ()
    optional: bool = True


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of a stage.

    Attributes:
        rows: Positions of the data that were measured.
        results: By name, joined along the last axis; empty where nothing is known yet.
        complete: Whether there is nothing left to do.
        refused: Why it cannot be measured of this model; empty where it can.
    """

    rows: Tensor
    results: dict[str, Tensor]
    complete: bool
    refused: str = ""


def measure_in_stages(
    stages: Sequence[Stage],
    *,
    folder: Path | None = None,
    identity: str = "",
    minutes: float | None = None,
    seed: int = 0,
    advance: Callable[[str, int], Any] | None = None,
    notice: Callable[[str], Any] | None = None,
) -> dict[str, Measured]:
    """Makes all measurements that are not there yet, in their order, until time is up.

    Args:
        stages: What to measure.
        folder: Where pieces are kept; nowhere by default.
        identity: Of the model and the data: pieces of others are thrown away.
        minutes: How long at the most; a piece that has begun is finished, and at least one is made.
        seed: Of all random numbers.
        advance: Called with a stage's title and the number of data done, as they are.
        notice: Called with a sentence for each piece that is damaged, or has no digest, and is measured again.

    Returns:
        What is known of each stage, by name.

    Raises:
        InputError: A stage that is not optional refuses the model or the data.
    """
    started = time.monotonic()
    if folder is not None:
        _prepare(folder, identity)
    found: dict[str, Measured] = {}
    made = False
    for stage in stages:
        done: list[tuple[Tensor, Results]] = []
        refused = ""
        for number, rows in enumerate(stage.pieces):
            file = folder / _name(stage, rows, seed) if folder is not None else None
            kept = None
            if file is not None and file.exists():
                kept = _read(file, rows)
                if kept is None and notice is not None:
                    notice(f"{file} is damaged or has no SHA-256 digest, and is measured again")
            if kept is not None:
                results: Results = kept
            elif made and minutes is not None and time.monotonic() - started >= 60 * minutes:
                continue  # pieces further on may be there from an earlier time
            else:
                try:
                    results = stage.work(rows, _seed(stage, number, seed))
                except InputError as error:
                    if not stage.optional:
                        raise
                    refused = str(error)
                    break
                except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                    if not stage.optional:  # one measurement that fails does not cost the others
                        raise
                    refused = f"it failed ({type(error).__name__}: {error}). This should not happen: please report it."
                    break
                made = True
                if file is not None:
                    _write(file, results)
            done.append((rows, results))
            if advance is not None:
                advance(stage.title, len(rows))
        found[stage.name] = _joined(done, bool(refused) or len(done) == len(stage.pieces), refused)
    return found


def _prepare(folder: Path, identity: str) -> None:
    """An empty folder of this identity, or the one that has it already."""
    kept = folder / "identity.txt"
    if not kept.is_file() or kept.read_bytes() != identity.encode():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(kept, identity)


def _write(file: Path, results: Results) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in results.items()}
    with replacing(file) as temporary:
        save_file(tensors, temporary, metadata={"sha256": _digest_of(tensors)})


def _read(file: Path, rows: Tensor) -> Results | None:
    """A piece's results; None where the file is not what was written."""
    try:
        results, metadata = read_tensors(file)
    except (OSError, SafetensorError, LookupError, ValueError):
        return None
    fit = all(tensor.ndim == 0 or tensor.shape[-1] == len(rows) for tensor in results.values())
    return results if results and fit and metadata.get("sha256") == _digest_of(results) else None


def _digest_of(results: Results) -> str:
    return digest_of(dict(sorted(results.items())))


def _name(stage: Stage, rows: Tensor, seed: int) -> str:
    """The file of a piece: by all that its results depend on."""
    key = repr((stage.settings, rows.tolist(), seed))
    return f"{stage.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"


def _joined(done: list[tuple[Tensor, Results]], complete: bool, refused: str) -> Measured:
    if not done or refused:
        return Measured(torch.zeros(0, dtype=torch.long), {}, complete, refused)
    shapes = {name: tensor for _, part in done for name, tensor in part.items()}
    results = {
        name: torch.cat([_of_piece(part.get(name), tensor, rows) for rows, part in done], dim=-1)
        if tensor.ndim
        else tensor
        for name, tensor in shapes.items()
    }
    return Measured(torch.cat([rows for rows, _ in done]), results, complete)


def _of_piece(known: Tensor | None, like: Tensor, rows: Tensor) -> Tensor:
    """A piece's result, NaN where it has none of that name."""
    return like.new_full((*like.shape[:-1], len(rows)), torch.nan) if known is None else known


def _seed(stage: Stage, number: int, seed: int) -> int:
    """Of one piece."""
    return int(torch.randint(2**31, (), generator=stream(stage.name, number, seed)))
