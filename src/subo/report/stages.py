"""Long measurements in pieces: each is kept on disk when it is done, so that the whole can be stopped and continued.

A piece's random numbers depend on the seed, its stage and its place, and on nothing that ran before it: a measurement
that was stopped ten times ends with the numbers of one that never was.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subo.errors import InputError
from subo.files.whole import write_text
from subo.report.pieces import joined, read_record, write_record
from subo.runtime.randomness import stream

__all__ = ["Measured", "Stage", "measure_in_stages"]

_LAYOUT = 2  # of the files of pieces: those of another layout are measured again


@dataclass(frozen=True, eq=False)
class Stage:
    """A measurement that is made piece by piece.

    Attributes:
        name: A word; pieces are kept under it.
        title: What a progress bar calls it.
        kind: The dataclass of its record.
        pieces: The data of each, positions in the split; for a measurement of the whole, one piece.
        work: From positions and a seed to a record of these data; those of several pieces are
            :func:`~subo.report.pieces.joined`.
        settings: Numbers that its results depend on: what was measured with others is not taken for it.
        optional: Whether the others are made though this one refuses the model.
    """

    name: str
    title: str
    kind: type
    pieces: Sequence[Tensor]
    work: Callable[[Tensor, int], Any]
    settings: tuple[int, ...] = ()
    optional: bool = True


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of a stage.

    Attributes:
        rows: Positions of the data that were measured.
        record: Of all these data; None where nothing is known yet.
        complete: Whether there is nothing left to do.
        refused: Why it cannot be measured of this model; empty where it can.
    """

    rows: Tensor
    record: Any
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
    started, made = time.monotonic(), False
    if folder is not None:
        _prepare(folder, identity)
    found: dict[str, Measured] = {}
    for stage in stages:
        done: list[tuple[Tensor, Any]] = []
        refused = ""
        for number, rows in enumerate(stage.pieces):
            file = folder / _name(stage, rows, seed) if folder is not None else None
            record = _kept(file, stage, notice)
            if record is None:
                if made and minutes is not None and time.monotonic() - started >= 60 * minutes:
                    continue  # pieces further on may be there from an earlier time
                record, refused = _made(stage, number, seed)
                if refused:
                    break
                made = True
                if file is not None:
                    write_record(file, record)
            done.append((rows, record))
            if advance is not None:
                advance(stage.title, len(rows))
        complete = bool(refused) or len(done) == len(stage.pieces)
        found[stage.name] = _measured([] if refused else done, complete, refused)
    return found


def _kept(file: Path | None, stage: Stage, notice: Callable[[str], Any] | None) -> Any:
    """A piece's record from its file; None where there is none that can be used."""
    if file is None or not file.exists():
        return None
    record = read_record(file, stage.kind)
    if record is None and notice is not None:
        notice(f"{file} is damaged or has no SHA-256 digest, and is measured again")
    return record


def _made(stage: Stage, number: int, seed: int) -> tuple[Any, str]:
    """A piece's record, or why there is none."""
    try:
        return stage.work(stage.pieces[number], _seed(stage, number, seed)), ""
    except InputError as error:
        if not stage.optional:
            raise
        return None, str(error)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if not stage.optional:  # one measurement that fails does not cost the others
            raise
        return None, f"it failed ({type(error).__name__}: {error}). This should not happen: please report it."


def _prepare(folder: Path, identity: str) -> None:
    """An empty folder of this identity, or the one that has it already."""
    kept = folder / "identity.txt"
    if not kept.is_file() or kept.read_bytes() != identity.encode():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(kept, identity)


def _name(stage: Stage, rows: Tensor, seed: int) -> str:
    """The file of a piece: by all that its results depend on."""
    key = repr((_LAYOUT, stage.settings, rows.tolist(), seed))
    return f"{stage.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"


def _measured(done: list[tuple[Tensor, Any]], complete: bool, refused: str) -> Measured:
    if not done:
        return Measured(torch.zeros(0, dtype=torch.long), None, complete, refused)
    rows, records = zip(*done, strict=True)
    return Measured(torch.cat(rows), joined(records), complete)


def _seed(stage: Stage, number: int, seed: int) -> int:
    """Of one piece."""
    return int(torch.randint(2**31, (), generator=stream(stage.name, number, seed)))
