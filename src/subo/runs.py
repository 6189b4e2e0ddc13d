"""The run directory, and its one reader and writer.

===================== ==================================================================================
``config.json``       what was asked for: data, recipe, training; enough to build the model again
``metrics.jsonl``     one line an epoch
``checkpoint.pt``     all that training needs to go on
``model.safetensors`` the fitted weights; there when the run is finished
``evaluation.json``   what was measured on the test data; ``evaluation-train.json`` and
                      ``evaluation-validation.json``: on those, where they were asked for
``evaluation.csv``    what a full evaluation measured of each datum, ``evaluation-pieces/`` what it has done so far
``gradients.csv``     what ``subo gradients`` measured
``snapshots/``        posterior means of some held-out data during training, and the weights after some epochs
``figures/``          pictures
===================== ==================================================================================

No file holds code: weights are safetensors, settings JSON, and the checkpoint is read with ``weights_only=True``.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_model, save_model
from torch import nn

from subo.errors import InputError, in_words
from subo.files import read_json, replacing, write_json, write_text
from subo.locks import FolderLock
from subo.named_sets import NAMES
from subo.older_runs import completed
from subo.records import CONFIG, EPOCH, EVALUATION, check_record
from subo.run_files import FOLDERS, foreign_files, is_left_by_a_crash, own_files, remove

__all__ = ["SPLITS", "Run", "run_of"]

SPLITS = ("test", "validation", "train")

_REPLACING = "replacing"  # in a config: files of an older run may lie beside it still
_BUSY = (
    "another process trains in {path} at this moment, and a run folder has one writer. Wait until it is done or stop "
    "it, or give another --out."
)
_SECTIONS = ("options", "data", "training", "device")


@dataclass(frozen=True)
class Run:
    """A run directory.

    Args:
        path: The directory. :meth:`create` makes one, :meth:`open` checks that it is one.
    """

    path: Path

    @property
    def config(self) -> Path:
        """``config.json``."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def gradients(self) -> Path:
        """``gradients.csv``."""
        return self.path / "gradients.csv"

    @property
    def checkpoint(self) -> Path:
        """``checkpoint.pt``."""
        return self.path / "checkpoint.pt"

    @property
    def model(self) -> Path:
        """``model.safetensors``."""
        return self.path / "model.safetensors"

    @property
    def evaluation(self) -> Path:
        """``evaluation.json``."""
        return self.evaluation_of("test")

    def evaluation_of(self, split: str) -> Path:
        """``evaluation.json`` of the test data, ``evaluation-SPLIT.json`` of others."""
        return self.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")

    def pieces(self, split: str) -> Path:
        """``evaluation-pieces/SPLIT/``: what a full evaluation has done so far."""
        return self.path / "evaluation-pieces" / split

    def per_datum(self, split: str) -> Path:
        """``evaluation.csv`` of the test data, ``evaluation-SPLIT.csv`` of others."""
        return self.evaluation_of(split).with_suffix(".csv")

    @property
    def snapshots(self) -> Path:
        """``snapshots/``."""
        return self.path / "snapshots"

    @property
    def figures(self) -> Path:
        """``figures/``."""
        return self.path / "figures"

    @cached_property
    def lock(self) -> FolderLock:
        """The folder's lock, which a process that trains there holds."""
        return FolderLock(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, this object is the folder's one writer; readers need not wait, since files change whole.

        Raises:
            InputError: Another process trains there.
        """
        if self.lock.is_held():
            yield
            return
        try:
            self.lock.take()
        except BlockingIOError:
            raise InputError(_BUSY.format(path=self.path)) from None
        except OSError as error:
            raise InputError(f"cannot go on with the run in {self.path}: {error.strerror}.") from error
        try:
            yield
        finally:
            self.lock.release()

    def check_links(self) -> None:
        """Refuses a run of which a part lies elsewhere: what is written and deleted is inside of its folder alone."""
        for folder in map(self.path.joinpath, FOLDERS):
            if folder.is_symlink():
                raise InputError(
                    f"{folder} is a symbolic link, and a run writes and deletes in folders of its own alone. Put a "
                    f"folder in its place, with a copy of what {os.path.realpath(folder)} holds."
                )

    @classmethod
    def place(cls, path: str | Path, *, overwrite: bool = False) -> "Run":
        """The run that could be made at a path; nothing is made or removed yet.

        Args:
            path: Where. A folder in which a run was begun, and no more, is as good as none.
            overwrite: Whether a run may be there already.

        Raises:
            InputError: Something is there, or a process that trains.
        """
        run = cls(Path(path))
        if run.path.is_file():
            raise InputError(f"{path} is a file, and a run needs a folder of its own. Give another --out.")
        if run.path.is_dir():
            if not run.lock.is_free():
                raise InputError(_BUSY.format(path=path))
            run._check_free(overwrite=overwrite)
        return run

    def _check_free(self, *, overwrite: bool) -> None:
        """Refuses to make a run where there is one, unless it is to be replaced, and among files that are no run's."""
        if self.config.exists():
            if not overwrite and not self._is_half_replaced():
                raise InputError(
                    f"{self.path} holds a run already. Add --resume to go on with it, --overwrite to replace it, or "
                    "give another --out."
                )
        elif foreign_files(self.path):
            raise InputError(f"{self.path} is not empty, and what it holds is no run of subo. Give another --out.")
        elif not overwrite and not all(map(is_left_by_a_crash, own_files(self.path))):
            raise InputError(
                f"{self.path} holds files of a run, and no config.json that would make it one. Add --overwrite to "
                "replace them, or give another --out."
            )

    @classmethod
    def create(cls, path: str | Path, config: dict[str, Any] | None = None, *, overwrite: bool = False) -> "Run":
        """Makes a run directory with a config alone.

        What was there is whole until the new config takes the old one's place, in one step; from then on the old run's
        other files count nothing, whether they are removed yet or a crash came before.

        Args:
            path: Where.
            config: What is asked for; none for an empty directory.
            overwrite: Whether a run that is there already is removed; only files of a run ever are.

        Raises:
            InputError: Something is there, or the place cannot be written to.
        """
        run = cls.place(path, overwrite=overwrite)
        run.make_folder()
        with run.writing():
            run.begin(config, overwrite=overwrite)
        return run

    def make_folder(self) -> None:
        """Makes the run's folder, where there is none."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}. Give another --out.") from error

    def begin(self, config: dict[str, Any] | None = None, *, overwrite: bool = False) -> None:
        """Makes this run in its folder, which is there, as :meth:`create` does; for its one writer."""
        self._check_free(overwrite=overwrite)
        try:
            old = [file for file in own_files(self.path) if file != self.config]
            if old or self.config.exists():
                self.write_config({**(config or {}), _REPLACING: True})
            for file in old:
                remove(file)
            if config is not None:
                self.write_config(config)
            else:
                remove(self.config)
            self.figures.mkdir(exist_ok=True)
            self.snapshots.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}. Give another --out.") from error

    def _is_half_replaced(self) -> bool:
        """Whether a crash came while this run took another one's place."""
        try:
            config = read_json(self.config)
        except InputError:
            return False
        return isinstance(config, dict) and bool(config.get(_REPLACING))

    @classmethod
    def open(cls, path: str | Path, *, finished: bool = True) -> "Run":
        """Opens a run directory.

        Args:
            path: Where it is.
            finished: Whether its weights must be there.

        Raises:
            InputError: There is no run, or it is not finished.
        """
        run = cls(Path(path))
        if run.path.is_file() or (str(path) in NAMES and not run.config.exists()):
            what = "a file" if run.path.is_file() else "a data set"
            raise InputError(
                f"{path} is {what}, and the folder of a run is expected, as given to fit --out. Where a command takes "
                "both, the run comes first, then the data."
            )
        if not run.path.is_dir():
            raise InputError(f"there is no run folder {path}. 'subo fit DATA --out {path}' would make one.")
        if not run.config.exists():
            raise InputError(
                f"{path} is not a run folder: it has no config.json. Name the folder given to --out; where a command "
                "takes a run and data, the run comes first."
            )
        if run._is_half_replaced():
            raise InputError(
                f"the run in {path} was stopped while it took the place of an older one, and holds nothing yet. "
                f"Start it again: subo fit DATA --out {path}"
            )
        if finished and not run.model.exists():
            raise InputError(
                f"the run in {path} is not finished: it has no model.safetensors yet. Go on with it by "
                f"'subo fit --resume --out {path}'."
            )
        return run

    def clear_evaluations(self) -> None:
        """Removes all that was measured: of weights that are replaced."""
        for split in SPLITS:
            suffix = "" if split == "test" else f"-{split}"
            figures = ("gaps", "gaps-per-datum", "calibration", "gap-over-training")
            pictures = [self.figures / f"{figure}{suffix}.png" for figure in figures]
            for file in (self.evaluation_of(split), self.per_datum(split), self.pieces(split), *pictures):
                remove(file)

    def read_config(self) -> dict[str, Any]:
        """What was asked for.

        Raises:
            InputError: The file is no run's config.
        """
        config = read_json(self.config)
        remedy = "It is not the config of a run of subo, or was damaged: restore it from a copy, or fit again."
        check_record(config, dict.fromkeys(_SECTIONS, "a group of settings"), where=str(self.config), remedy=remedy)
        config = completed(config)
        check_record(config, CONFIG, where=str(self.config), remedy=remedy)
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes what was asked for."""
        write_json(self.config, config)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The epochs' records.

        Raises:
            InputError: The file is damaged.
        """
        if not self.metrics.exists():
            return []
        remedy = (
            "The file may be cut off or damaged: 'subo fit --resume' writes it again from the checkpoint; without one, "
            "remove the line."
        )
        records = []
        try:
            for number, line in enumerate(self.metrics.read_bytes().splitlines(), start=1):
                where = f"{self.metrics}, line {number}, is no record of an epoch"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{where} ({error}). {remedy}") from error
                check_record(record, EPOCH, where=where, remedy=remedy)
                records.append(record)
        except OSError as error:
            raise InputError(f"cannot read {in_words(error, self.metrics)}") from error
        return records

    def read_evaluation(self, split: str) -> dict[str, Any]:
        """What was measured on a split.

        Raises:
            InputError: The file is damaged.
        """
        path = self.evaluation_of(split)
        remedy = f"It is damaged: 'subo evaluate {self.path} --split {split}' writes it again."
        try:
            record = read_json(path)
        except InputError as error:
            raise InputError(f"{error} {remedy}") from error
        check_record(record, EVALUATION, where=str(path), remedy=remedy)
        return record

    def write_metrics(self, records: list[dict[str, Any]]) -> None:
        """Replaces the epochs' records."""
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds an epoch's record, whole or not at all."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        with self.metrics.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    def save_means(self, epoch: int, means: np.ndarray) -> None:
        """Writes posterior means of some held-out data after an epoch, for the moving picture."""
        with replacing(self.snapshots / f"means-{epoch:06d}.npy") as temporary:
            np.save(temporary, means)

    def weights_after(self, epoch: int) -> Path:
        """``snapshots/weights-EPOCH.safetensors``."""
        return self.snapshots / f"weights-{epoch:06d}.safetensors"

    def kept_epochs(self) -> list[int]:
        """Epochs after which weights were kept, in order."""
        files = self.snapshots.glob(f"weights-{'[0-9]' * 6}.safetensors")
        return sorted(int(file.stem.removeprefix("weights-")) for file in files)

    def save_weights(self, module: nn.Module, *, epoch: int | None = None) -> None:
        """Writes the fitted weights, or those after an epoch."""
        if epoch is not None:
            self.snapshots.mkdir(exist_ok=True)
        with replacing(self.model if epoch is None else self.weights_after(epoch)) as temporary:
            save_model(module, str(temporary))

    def load_weights(self, module: nn.Module, *, epoch: int | None = None) -> None:
        """Reads the fitted weights, or those after an epoch, into a module built from this run's config.

        Raises:
            InputError: The file is truncated, foreign, or of another model; or none was kept after that epoch.
        """
        file = self.model if epoch is None else self.weights_after(epoch)
        if epoch is not None and not file.exists():
            raise InputError(
                f"{self.path} holds no weights after epoch {epoch}; there are some after "
                f"{', '.join(map(str, self.kept_epochs())) or 'none'}. Training keeps them with keep_weights, and by "
                "itself where a model is small."
            )
        try:
            load_model(module, str(file))
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(
                f"{file} is not a readable safetensors file ({error}). It may be truncated or not one of "
                "subo's: restore it from a copy, or fit again."
            ) from error
        except RuntimeError as error:
            problem = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{file} holds the weights of another model than {self.config} describes ({problem}). "
                "Restore the two files that belong together, or fit again."
            ) from error

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes all that training needs to go on."""
        with replacing(self.checkpoint) as temporary, temporary.open("wb") as file:  # whose errors say what went wrong
            torch.save(state, file)

    def load_checkpoint(self) -> dict[str, Any]:
        """Reads what :meth:`save_checkpoint` wrote.

        Raises:
            InputError: There is none, or it cannot be read.
        """
        if not self.checkpoint.exists():
            raise InputError(
                f"{self.path} has no checkpoint to go on from. Start again with --overwrite; checkpoints are written "
                "every --checkpoint-minutes and when training is stopped."
            )
        try:
            saved = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            if not isinstance(saved, dict):
                raise TypeError(type(saved).__name__)
            return saved
        except Exception as error:  # what torch raises for a foreign file depends on its bytes
            raise InputError(
                f"{self.checkpoint} is not a readable checkpoint ({type(error).__name__}). Restore it from a "
                "copy, or start again with --overwrite."
            ) from error

    def source(self) -> Path | None:
        """The file or folder that the run was fitted to, as far as it can be told."""
        try:
            source = self.read_config()["data"]["source"] if self.config.exists() else None
        except (InputError, LookupError, TypeError):
            return None
        return Path(source) if isinstance(source, str) and source not in NAMES else None

    def _owns(self, path: Path) -> bool:
        """Whether something below it, given from its folder on, is its own and no guest."""
        files = {self.config, self.metrics, self.gradients, self.checkpoint, self.model}
        files |= {named for split in SPLITS for named in (self.evaluation_of(split), self.per_datum(split))}
        files |= {self.snapshots, self.figures, self.pieces("test").parent}
        return path.parts[0] in {file.name for file in files}


def run_of(path: Path) -> Run | None:
    """The run of which a file, there or not, is a part; links are seen through. None of a guest in its folder."""
    for place in {path.resolve(), path.parent.resolve() / path.name}:
        for run in map(Run, place.parents):
            if run.config.exists() and run._owns(place.relative_to(run.path)):
                return run
    return None
