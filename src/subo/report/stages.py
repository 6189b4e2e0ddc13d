"""Long measurements in pieces, each stored on disk once it is done, so that the whole can be stopped and continued.

A piece's random numbers depend only on the seed, its stage and its position: a measurement that was stopped ten times
ends with the same numbers as one that never stopped.
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

__all__ = ["Measured", "Stage", "measure_in_stages", "prepare"]

_LAYOUT = 2  # of the pieces' files: those with another layout are measured again


@dataclass(frozen=True, eq=False)
class Stage:
    """A measurement made piece by piece.

    Attributes:
        name: One word; used in the pieces' file names.
        title: Name in the progress bar.
        kind: Dataclass of its record.
        pieces: Examples of each piece, as positions in the split; a single piece if the whole is measured at once.
        work: Maps positions and a seed to a record of these examples; records of several pieces are
            :func:`~subo.report.pieces.joined`.
        settings: Numbers that its results depend on: pieces measured with others are not used.
        optional: Whether the other stages run even if this one refuses the model.
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
    """The results of a stage so far.

    Attributes:
        rows: Positions of the measured examples.
        record: Record of all these examples; None if nothing is known yet.
        complete: Whether all pieces are done.
        refused: Why the model cannot be measured this way; empty if it can.
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
    share: tuple[int, int] = (0, 1),
    advance: Callable[[str, int], Any] | None = None,
    notice: Callable[[str], Any] | None = None,
) -> dict[str, Measured]:
    """Makes all missing measurements, in order, until time is up.

    Args:
        stages: Measurements to make.
        folder: Folder for the pieces; none by default.
        identity: Identity of the model and the data: pieces of another identity are deleted.
        minutes: Time limit; a piece that has begun is finished, and at least one is made.
        seed: Seed for all random numbers.
        share: Number of this process, from 0, and of all that share the pieces by their folder: each makes every so
            many, if they are missing.
        advance: Called with a stage's title and the number of examples done, after each piece.
        notice: Called with a sentence for each piece that is damaged or has no digest, and is measured again.

    Returns:
        The results of each stage, by name.

    Raises:
        InputError: A stage that is not optional refuses the model or the data.
    """
    started, made = time.monotonic(), False
    if folder is not None:
        prepare(folder, identity)
    found: dict[str, Measured] = {}
    rank, processes = share
    before = 0  # pieces of other stages
    for stage in stages:
        done: list[tuple[Tensor, Any]] = []
        refused = ""
        for number, rows in enumerate(stage.pieces):
            file = folder / _name(stage, rows, seed) if folder is not None else None
            record = _kept(file, stage, notice)
            if record is None:
                if (before + number) % processes != rank:
                    continue
                if made and minutes is not None and time.monotonic() - started >= 60 * minutes:
                    continue  # later pieces may exist from an earlier call
                record, refused = _made(stage, number, seed)
                if refused:
                    break
                made = True
                if file is not None:
                    write_record(file, record)
            done.append((rows, record))
            if advance is not None:
                advance(stage.title, len(rows))
        before += len(stage.pieces)
        complete = bool(refused) or len(done) == len(stage.pieces)
        found[stage.name] = _measured([] if refused else done, complete, refused)
    return found


def _kept(file: Path | None, stage: Stage, notice: Callable[[str], Any] | None) -> Any:
    """A piece's record from its file; None if there is no usable one."""
    if file is None or not file.exists():
        return None
    record = read_record(file, stage.kind)
    if record is None and notice is not None:
        notice(f"{file} is damaged or has no SHA-256 digest, and is measured again")
    return record


def _made(stage: Stage, number: int, seed: int) -> tuple[Any, str]:
    """A piece's record, or the reason why there is none."""
    try:
        return stage.work(stage.pieces[number], _seed(stage, number, seed)), ""
    except InputError as error:
        if not stage.optional:
            raise
        return None, str(error)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if not stage.optional:  # a failed measurement does not affect the others
            raise
        return None, f"it failed ({type(error).__name__}: {error}). This should not happen: please report it."


def prepare(folder: Path, identity: str) -> None:
    """Empties a folder of pieces, unless it already has this identity."""
    kept = folder / "identity.txt"
    if not kept.is_file() or kept.read_bytes() != identity.encode():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(kept, identity)


def _name(stage: Stage, rows: Tensor, seed: int) -> str:
    """The file name of a piece, from everything that its results depend on."""
    key = repr((_LAYOUT, stage.settings, rows.tolist(), seed))
    return f"{stage.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"


def _measured(done: list[tuple[Tensor, Any]], complete: bool, refused: str) -> Measured:
    if not done:
        return Measured(torch.zeros(0, dtype=torch.long), None, complete, refused)
    rows, records = zip(*done, strict=True)
    return Measured(torch.cat(rows), joined(records), complete)


def _seed(stage: Stage, number: int, seed: int) -> int:
    """The seed of one piece."""
    return int(torch.randint(2**31, (), generator=stream(stage.name, number, seed)))
