"""The run directory, and the only code that reads and writes it.

===================== ==================================================================================
``config.json``       the :class:`~subo.runs.config.RunConfig`: enough to build the model again
``metrics.jsonl``     one line per epoch
``checkpoint.pt``     everything that training needs to resume
``model.safetensors`` the fitted weights, once the run is finished
``evaluation.json``   what was measured on the test data; ``evaluation-train.json`` and
                      ``evaluation-validation.json``: on those splits, if asked for
``evaluation.csv``    what a full evaluation measured for each example; ``evaluation-pieces/``: what it has done so far
``gradients.csv``     what ``subo gradients`` measured
``snapshots/``        posterior means of some held-out data during training, and the weights after some epochs
``figures/``          pictures
===================== ==================================================================================

No file contains code: weights are safetensors, settings JSON, and the checkpoint is read with ``weights_only=True``.

Weights and checkpoint contain the settings that they belong to and a SHA-256 digest of both, which is checked on
reading. Every result contains the digest of the weights it was measured with.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from subo.data.named_sets import NAMES
from subo.errors import InputError
from subo.files.digests import counting_settings
from subo.files.locks import FolderLock
from subo.files.records import EVALUATION, check_record
from subo.files.weights import WeightsFile, digest_of_weights, noted_in, save_weights
from subo.files.whole import read_json, remove, replacing, write_json
from subo.runs.checkpoint_files import accept_checkpoint, load_checkpoint, save_checkpoint
from subo.runs.config import RunConfig
from subo.runs.epoch_lines import append_line, read_lines, write_lines
from subo.runs.folders import check_free, check_run, make_folder, make_run
from subo.runs.own_files import FOLDERS, is_own, results
from subo.runs.paths import RunPaths

__all__ = ["Run", "run_of"]

_BUSY = (
    "another process is training in {path}, and a run folder has only one writer. Wait until it is done, stop it, or "
    "give another `run_dir`."
)


@dataclass(frozen=True)
class Run(RunPaths):
    """A run directory.

    Args:
        path: The directory. :meth:`create` makes one, :meth:`open` checks that it contains a run.
    """

    @cached_property
    def lock(self) -> FolderLock:
        """The folder's lock, held by the process that trains there."""
        return FolderLock(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Makes this object the folder's only writer in the context; readers need not wait: files change atomically.

        Raises:
            InputError: Another process is training there.
        """
        if self.lock.is_held():
            yield
            return
        try:
            self.lock.take()
        except BlockingIOError:
            raise InputError(_BUSY.format(path=self.path)) from None
        except OSError as error:
            raise InputError(f"cannot continue the run in {self.path}: {error.strerror}.") from error
        try:
            yield
        finally:
            self.lock.release()

    def _check_there(self) -> None:
        """Refuses to write if another folder has taken this one's place: its contents do not belong to this run."""
        if self.lock.is_lost():
            raise InputError(
                f"{self.path} is no longer the folder in which training began: it was moved, removed or replaced. What "
                "was written so far is wherever that folder is now; continue from the last checkpoint there with "
                "`resume` and `run_dir=FOLDER`."
            )

    def check_links(self) -> None:
        """Refuses a run with parts outside its folder: nothing is written or deleted elsewhere."""
        for folder in map(self.path.joinpath, FOLDERS):
            if folder.is_symlink():
                raise InputError(
                    f"{folder} is a symbolic link, but a run writes and deletes only in its own folders. Replace the "
                    f"link with a folder that contains a copy of {os.path.realpath(folder)}."
                )

    @classmethod
    def place(cls, path: str | Path, *, overwrite: bool = False) -> "Run":
        """The run that could be made at a path; does not make or remove anything yet.

        Args:
            path: Path of the run folder. A folder in which a run was started but has no config yet counts as free.
            overwrite: Whether a run may already exist there.

        Raises:
            InputError: Something is there, or a process is training there.
        """
        run = cls(Path(path))
        if run.path.is_file():
            raise InputError(f"{path} is a file, but a run needs its own folder. Give another `run_dir`.")
        if run.path.is_dir():
            if not run.lock.is_free():
                raise InputError(_BUSY.format(path=path))
            check_free(run, overwrite=overwrite)
        return run

    @classmethod
    def create(cls, path: str | Path, config: dict[str, Any] | None = None, *, overwrite: bool = False) -> "Run":
        """Makes a run directory that contains only a config.

        Args:
            path: Path of the run folder.
            config: The requested config; None for an empty directory.
            overwrite: Whether to remove an existing run; only files of a run are ever removed.

        Raises:
            InputError: Something is there, or the location is not writable.
        """
        run = cls.place(path, overwrite=overwrite)
        run.make_folder()
        with run.writing():
            run.begin(config, overwrite=overwrite)
        return run

    def make_folder(self) -> None:
        """Makes the run's folder if there is none."""
        make_folder(self.path)

    def begin(self, config: dict[str, Any] | None = None, *, overwrite: bool = False) -> None:
        """Makes this run in its existing folder, as :meth:`create` does; only for the folder's writer."""
        make_run(self, config, overwrite=overwrite)
        self.__dict__["settings"] = counting_settings(config or {})

    @classmethod
    def open(cls, path: str | Path, *, finished: bool = True) -> "Run":
        """Opens a run directory.

        Args:
            path: Path of the run folder.
            finished: Whether the fitted weights must exist.

        Raises:
            InputError: There is no run, or it is not finished.
        """
        run = cls(Path(path))
        check_run(run, finished=finished)
        return run

    def clear_evaluations(self) -> None:
        """Removes all results and pictures of the weights, which are about to be replaced."""
        for file in results(self.path):
            remove(file)

    def read_config(self) -> RunConfig:
        """What the run is.

        Raises:
            InputError: The file is not the config of a run, or was written by a later version.
        """
        stored = self._stored()
        config = RunConfig.from_json(stored, where=str(self.config))
        self.__dict__["settings"] = counting_settings(stored)
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes what the run is, as returned by :meth:`RunConfig.as_json`."""
        write_json(self.config, config)
        self.__dict__["settings"] = counting_settings(config)

    def change_training(self, changes: Mapping[str, Any]) -> None:
        """Changes training settings in the config and leaves the rest unchanged."""
        config = self._stored()
        self.write_config({**config, "training": {**config["training"], **changes}})

    def _stored(self) -> Any:
        return read_json(self.config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that affect results, as this object last read or wrote them; empty without a config."""
        config = self._stored() if self.config.exists() else {}
        return counting_settings(config if isinstance(config, dict) else {})

    @property
    def digest(self) -> str | None:
        """The digest of weights and settings that is stored with the weights; None if there is none."""
        return noted_in(self.model, "sha256")

    @property
    def caution(self) -> str | None:
        """A caution about the training that produced the weights, such as that it diverged."""
        return noted_in(self.model, "caution")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The epochs' records.

        Raises:
            InputError: The file is damaged.
        """
        return read_lines(self.metrics)

    def write_metrics(self, records: list[dict[str, Any]]) -> None:
        """Replaces the epochs' records."""
        write_lines(self.metrics, records)

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Appends an epoch's record, whole or not at all."""
        self._check_there()
        append_line(self.metrics, record)

    def read_evaluation(self, split: str) -> dict[str, Any]:
        """What was measured on a split.

        Raises:
            InputError: The file is damaged.
        """
        path = self.evaluation_of(split)
        remedy = f"It is damaged: evaluate the run again with `split={split}`, which rewrites it."
        try:
            record = read_json(path)
        except InputError as error:
            raise InputError(f"{error} {remedy}") from error
        check_record(record, EVALUATION, where=str(path), remedy=remedy)
        return record

    def save_means(self, epoch: int, means: np.ndarray) -> None:
        """Writes posterior means of some held-out data after an epoch, for the animation."""
        self._check_there()
        with replacing(self.snapshots / f"means-{epoch:06d}.npy") as temporary:
            np.save(temporary, means)

    def save_weights(self, module: nn.Module, *, epoch: int | None = None, caution: str | None = None) -> None:
        """Writes the fitted weights, or those after an epoch; removes results of other fitted weights first.

        Args:
            module: Module whose weights are written.
            epoch: Epoch after which these are the weights; None for the fitted ones.
            caution: Caution about the training that produced the fitted weights.
        """
        self._check_there()
        digest = digest_of_weights(module.state_dict(), self.settings)
        if epoch is not None:
            self.snapshots.mkdir(exist_ok=True)
            save_weights(module, self.weights_after(epoch), self.settings, digest)
            return
        if self.digest != digest:
            self.clear_evaluations()
        save_weights(module, self.model, self.settings, digest, caution=caution)

    def load_weights(self, module: nn.Module, *, epoch: int | None = None) -> str:
        """Reads the fitted weights, or those after an epoch, into a module built from this run's config.

        Returns:
            Their digest.

        Raises:
            InputError: The file is truncated, was changed, is foreign, or belongs to another model or other settings;
                or no weights were kept after that epoch.
        """
        file = self.model if epoch is None else self.weights_after(epoch)
        if epoch is not None and not file.exists():
            raise InputError(
                f"{self.path} has no weights after epoch {epoch}; available: "
                f"{', '.join(map(str, self.kept_epochs())) or 'none'}. Training keeps them with `keep_weights`, and by "
                "default if the model is small."
            )
        found = WeightsFile.read(file)
        digest = found.checked(self.settings, module)
        try:
            module.load_state_dict(found.tensors)
        except RuntimeError as error:
            problem = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{file} contains the weights of a different model than {self.config} describes ({problem}). Restore "
                "the two files that belong together, or fit again."
            ) from error
        return digest

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes everything that training needs to resume."""
        self._check_there()
        save_checkpoint(state, self.checkpoint, self.settings)

    def load_checkpoint(self) -> dict[str, Any]:
        """Reads what :meth:`save_checkpoint` wrote.

        Raises:
            InputError: The checkpoint is missing or unreadable, was changed, or belongs to other settings.
        """
        return load_checkpoint(self.checkpoint, self.settings)

    def accept_changes(self) -> None:
        """Accepts weights, checkpoint and settings as they are now, and stores their digests.

        Raises:
            InputError: Another process is training there, or a file cannot be read.
        """
        with self.writing():
            self.read_config()
            for file in (self.model, *map(self.weights_after, self.kept_epochs())):
                if file.exists():
                    WeightsFile.read(file).accept(self.settings)
            if self.checkpoint.exists():
                accept_checkpoint(self.checkpoint, self.settings)

    def source(self) -> Path | None:
        """The file or folder that the run was fitted to, if known."""
        try:  # also for a damaged config
            source = self._stored()["data"]["source"] if self.config.exists() else None
        except (InputError, LookupError, TypeError):
            return None
        return Path(source) if isinstance(source, str) and source not in NAMES else None


def run_of(path: Path) -> Run | None:
    """The run that a file, existing or not, belongs to, links resolved; None for a foreign file in a run's folder."""
    for place in {path.resolve(), path.parent.resolve() / path.name}:
        for run in map(Run, place.parents):
            if run.config.exists() and is_own(place.relative_to(run.path)):
                return run
    return None
