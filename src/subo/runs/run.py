"""The run directory, and its one reader and writer.

===================== ==================================================================================
``config.json``       the :class:`~subo.runs.config.RunConfig`: enough to build the model again
``metrics.jsonl``     one line an epoch
``checkpoint.pt``     all that training needs to go on
``model.safetensors`` the fitted weights; there when the run is finished
``evaluation.json``   what was measured on the test data; ``evaluation-train.json`` and
                      ``evaluation-validation.json``: on those, where they were asked for
``evaluation.csv``    what a full evaluation measured of each example, ``evaluation-pieces/`` what it has done so far
``gradients.csv``     what ``subo gradients`` measured
``snapshots/``        posterior means of some held-out data during training, and the weights after some epochs
``figures/``          pictures
===================== ==================================================================================

No file holds code: weights are safetensors, settings JSON, and the checkpoint is read with ``weights_only=True``.

Weights and checkpoint hold the settings that they belong to and a SHA-256 digest of both, by which they are checked
when they are read; the weights' digest stands in every result that is of them.
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
    "another process trains in {path} at this moment, and a run folder has one writer. Wait until it is done or stop "
    "it, or give another `run_dir`."
)


@dataclass(frozen=True)
class Run(RunPaths):
    """A run directory.

    Args:
        path: The directory. :meth:`create` makes one, :meth:`open` checks that it is one.
    """

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

    def _check_there(self) -> None:
        """Refuses to write where another folder is by now: what lies there is not this run's."""
        if self.lock.is_lost():
            raise InputError(
                f"the folder {self.path} is not the one any more in which training began: it was moved, removed or "
                "replaced. What was written of the run is where its folder is now; from the last checkpoint there it "
                "goes on by `resume` and `run_dir=FOLDER`."
            )

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
            raise InputError(f"{path} is a file, and a run needs a folder of its own. Give another `run_dir`.")
        if run.path.is_dir():
            if not run.lock.is_free():
                raise InputError(_BUSY.format(path=path))
            check_free(run, overwrite=overwrite)
        return run

    @classmethod
    def create(cls, path: str | Path, config: dict[str, Any] | None = None, *, overwrite: bool = False) -> "Run":
        """Makes a run directory with a config alone.

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
        make_folder(self.path)

    def begin(self, config: dict[str, Any] | None = None, *, overwrite: bool = False) -> None:
        """Makes this run in its folder, which is there, as :meth:`create` does; for its one writer."""
        make_run(self, config, overwrite=overwrite)
        self.__dict__["settings"] = counting_settings(config or {})

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
        check_run(run, finished=finished)
        return run

    def clear_evaluations(self) -> None:
        """Removes all that was measured and drawn of the weights, which are about to be replaced."""
        for file in results(self.path):
            remove(file)

    def read_config(self) -> RunConfig:
        """What the run is.

        Raises:
            InputError: The file is no run's config, or one of a later version.
        """
        stored = self._stored()
        config = RunConfig.from_json(stored, where=str(self.config))
        self.__dict__["settings"] = counting_settings(stored)
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes what the run is, as :meth:`RunConfig.as_json` says it."""
        write_json(self.config, config)
        self.__dict__["settings"] = counting_settings(config)

    def change_training(self, changes: Mapping[str, Any]) -> None:
        """Writes other settings of training into the config, and leaves the rest as it stands there."""
        config = self._stored()
        self.write_config({**config, "training": {**config["training"], **changes}})

    def _stored(self) -> Any:
        return read_json(self.config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings on which numbers depend, as this object last read or wrote them; empty without a config."""
        config = self._stored() if self.config.exists() else {}
        return counting_settings(config if isinstance(config, dict) else {})

    @property
    def digest(self) -> str | None:
        """The digest that the weights note, of themselves and their settings; None where none is noted."""
        return noted_in(self.model, "sha256")

    @property
    def caution(self) -> str | None:
        """What should be known of the training that the weights come from, such as that it diverged."""
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
        """Adds an epoch's record, whole or not at all."""
        self._check_there()
        append_line(self.metrics, record)

    def read_evaluation(self, split: str) -> dict[str, Any]:
        """What was measured on a split.

        Raises:
            InputError: The file is damaged.
        """
        path = self.evaluation_of(split)
        remedy = f"It is damaged: evaluate the run again with `split={split}`, which writes it anew."
        try:
            record = read_json(path)
        except InputError as error:
            raise InputError(f"{error} {remedy}") from error
        check_record(record, EVALUATION, where=str(path), remedy=remedy)
        return record

    def save_means(self, epoch: int, means: np.ndarray) -> None:
        """Writes posterior means of some held-out data after an epoch, for the moving picture."""
        self._check_there()
        with replacing(self.snapshots / f"means-{epoch:06d}.npy") as temporary:
            np.save(temporary, means)

    def save_weights(self, module: nn.Module, *, epoch: int | None = None, caution: str | None = None) -> None:
        """Writes the fitted weights, or those after an epoch; what was measured of other ones goes first.

        Args:
            module: Whose.
            epoch: After which; None for the fitted ones.
            caution: What should be known of the training that the fitted ones come from.
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
            InputError: The file is truncated, changed, foreign, or of another model or other settings; or none was kept
                after that epoch.
        """
        file = self.model if epoch is None else self.weights_after(epoch)
        if epoch is not None and not file.exists():
            raise InputError(
                f"{self.path} holds no weights after epoch {epoch}; there are some after "
                f"{', '.join(map(str, self.kept_epochs())) or 'none'}. Training keeps them with keep_weights, and by "
                "itself where a model is small."
            )
        found = WeightsFile.read(file)
        digest = found.checked(self.settings, module)
        try:
            module.load_state_dict(found.tensors)
        except RuntimeError as error:
            problem = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{file} holds the weights of another model than {self.config} describes ({problem}). "
                "Restore the two files that belong together, or fit again."
            ) from error
        return digest

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes all that training needs to go on."""
        self._check_there()
        save_checkpoint(state, self.checkpoint, self.settings)

    def load_checkpoint(self) -> dict[str, Any]:
        """Reads what :meth:`save_checkpoint` wrote.

        Raises:
            InputError: There is none, or it cannot be read, or was changed, or belongs to other settings.
        """
        return load_checkpoint(self.checkpoint, self.settings)

    def accept_changes(self) -> None:
        """Takes weights, checkpoint and settings as they stand for what is meant, and notes their digests.

        Raises:
            InputError: Another process trains there, or a file cannot be read.
        """
        with self.writing():
            self.read_config()
            for file in (self.model, *map(self.weights_after, self.kept_epochs())):
                if file.exists():
                    WeightsFile.read(file).accept(self.settings)
            if self.checkpoint.exists():
                accept_checkpoint(self.checkpoint, self.settings)

    def source(self) -> Path | None:
        """The file or folder that the run was fitted to, as far as it can be told."""
        try:  # of a damaged config, too
            source = self._stored()["data"]["source"] if self.config.exists() else None
        except (InputError, LookupError, TypeError):
            return None
        return Path(source) if isinstance(source, str) and source not in NAMES else None


def run_of(path: Path) -> Run | None:
    """The run of which a file, there or not, is a part; links are seen through. None of a guest in its folder."""
    for place in {path.resolve(), path.parent.resolve() / path.name}:
        for run in map(Run, place.parents):
            if run.config.exists() and is_own(place.relative_to(run.path)):
                return run
    return None
