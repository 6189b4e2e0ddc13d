"""What training writes into its run folder, and when; nothing if there is none."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import nn

from subo.runs.config import RunConfig
from subo.runs.run import Run
from subo.training.checkpoints import KeptWeights, TrainingState
from subo.training.python_runs import resume_in_python

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Reader", "Writer", "make_writer"]

Config = Callable[[], RunConfig]


class Reader:
    """Writes nothing: for training without a run folder, or in a process other than the first.

    Args:
        run: The run folder, or None.
        config: Makes the run's config; None if the caller makes the run.
    """

    def __init__(self, run: Run | None, config: Config | None):
        self.run, self.config = run, config

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    @property
    def written(self) -> Run | None:
        """The run that this process writes to, if any."""
        return None

    def place(self, *, overwrite: bool) -> None:
        """Refuses a location where no run can be made; makes nothing yet."""

    def load(self) -> dict[str, Any]:
        """The checkpoint."""
        assert self.run is not None
        return self.run.load_checkpoint()

    def resume(self, state: TrainingState) -> None:
        """Restores the folder to its state when the checkpoint was made."""

    def begin(self, *, overwrite: bool) -> None:
        """Makes the run."""

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Writes a checkpoint."""

    def close_epoch(self, state: TrainingState) -> None:
        """Writes an epoch's record, and its weights if they are to be kept."""

    def close(self, state: TrainingState) -> None:
        """Keeps the weights after the last epoch."""

    def finish(self, model: nn.Module, *, caution: str | None) -> None:
        """Writes the fitted weights."""

    def farewell(self, state: TrainingState) -> str:
        """Where training was stopped, and how to continue."""
        where = f"stopped in epoch {state.epoch + 1} after {state.step} steps"
        if self.run is None:
            return f"{where}; the model has the weights it had then."
        if self.config is not None:
            return f"{where}; the checkpoint is written. Continue with the same call of subo.fit and `resume=True`."
        return f"{where}; the checkpoint is written. Continue with `resume` and `run_dir={self.run.path}`."


class Writer(Reader):
    """Writes a run folder, as its only writer until the context ends.

    Args:
        run: The run folder.
        config: Makes the run's config; None if the caller makes the run.
        kept: Decides which weights are kept.
    """

    def __init__(self, run: Run, config: Config | None, kept: KeptWeights):
        super().__init__(run, config)
        self.run: Run = run
        self._kept, self._owned = kept, ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()

    @property
    def written(self) -> Run | None:
        return self.run

    def place(self, *, overwrite: bool) -> None:
        if self.config is not None:
            Run.place(self.run.path, overwrite=overwrite)

    def load(self) -> dict[str, Any]:
        self._owned.enter_context(self.run.writing())
        self.run.check_links()
        return super().load()

    def resume(self, state: TrainingState) -> None:
        if self.config is not None:
            resume_in_python(self.run, self.config())
        self._restart(state)

    def begin(self, *, overwrite: bool) -> None:
        self.run.make_folder()
        self._owned.enter_context(self.run.writing())
        if self.config is not None:
            self.run.begin(self.config().as_json(), overwrite=overwrite)
        self.run.checkpoint.unlink(missing_ok=True)  # another run's, which must never be mistaken for this one's
        self._restart(TrainingState())

    def _restart(self, state: TrainingState) -> None:
        self.run.write_metrics(state.records)
        self._kept.begin(state.epoch)

    def save(self, checkpoint: dict[str, Any]) -> None:
        self.run.save_checkpoint(checkpoint)

    def close_epoch(self, state: TrainingState) -> None:
        self.run.append_metrics(state.records[-1])
        self._kept.keep(state.epoch)

    def close(self, state: TrainingState) -> None:
        self._kept.keep(state.epoch, last=True)

    def finish(self, model: nn.Module, *, caution: str | None) -> None:
        with self.run.writing():
            self.run.save_weights(model, caution=caution)


def make_writer(
    run_dir: str | Path | Run | None,
    model: nn.Module,
    fabric: "Fabric",
    *,
    config: Config | None,
    keep_weights: bool | None,
) -> Reader:
    """Makes the writer of the run folder, which writes only in the first process.

    Args:
        run_dir: Run folder, or None.
        model: Model whose weights are kept.
        fabric: Knows whether this is the first process.
        config: Makes the run's config; None if the caller makes the run.
        keep_weights: Whether to keep the weights after some epochs; by default for small models.
    """
    run = Run(Path(run_dir)) if isinstance(run_dir, str | Path) else run_dir
    if run is None or not fabric.is_global_zero:
        return Reader(run, config)
    return Writer(run, config, KeptWeights(run, model, keep_weights))
