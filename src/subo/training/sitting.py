"""A sitting: training from its current state to the end, or until it is stopped."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from subo.core.objective import Objective
from subo.core.offers import Tempered
from subo.data.splits import Split
from subo.errors import DivergedError, InputError, Interrupted
from subo.evaluation.latents.information import mutual_information
from subo.runs.config import TrainingConfig
from subo.training.checkpoints import TrainingState, check_finite, content, restore
from subo.training.divergence import default_clip, keep_best, level, noise_of_change, unwritten, watched
from subo.training.epochs import agreed
from subo.training.folder import Reader
from subo.training.history import Epoch, History, epoch_of
from subo.training.loop import train
from subo.training.metrics import Metrics, means, measure
from subo.training.plan import optimizer_of, reason_to_end, schedule_of
from subo.training.sources import Loader, Rows
from subo.training.step import Step
from subo.training.updates import at_rest, make_updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from subo.training.bar import TrainingBar

__all__ = ["Sitting"]


class Sitting:
    """Training from its current state to the end, or until it is stopped.

    Args:
        objective: Objective to train; it is moved to its device.
        source: Source of the training batches.
        validation: Data that determine the best epoch, if any.
        plan: Training settings.
        fabric: Lightning Fabric to train with.
        writer: Writer of the run folder.
        on_begin: Called in the first process after the first step of a new run, and before anything is written.
        on_epoch: Called with each epoch's record.
        overwrite: Whether to replace an existing run in the folder.

    Raises:
        InputError: A setting makes no sense for this model.
    """

    def __init__(
        self,
        objective: Objective,
        source: Rows | Loader,
        validation: Split | None,
        plan: TrainingConfig,
        fabric: "Fabric",
        writer: Reader,
        *,
        on_begin: Callable[[], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        overwrite: bool = False,
    ):
        self.objective, self.source, self.validation = objective, source, validation
        self.plan, self.fabric, self.writer = plan, fabric, writer
        self._on_begin, self._on_epoch, self._overwrite = on_begin, on_epoch, overwrite
        self.steps_per_epoch = source.steps_per_epoch
        self.clip = default_clip(source.split) if plan.clip is None and source.split is not None else plan.clip
        self.updates = make_updates(plan.updates, posterior_steps=plan.posterior_steps)
        at_rest(objective, self.updates)  # refuses a model that does not separate theta and phi
        objective.to(fabric.device)
        fabric.strategy.precision.convert_module(objective)
        if plan.elbo_epochs and isinstance(objective.bound, Tempered):
            raise InputError("elbo_epochs come before another bound, and this one is an ELBO already: leave them out")
        if plan.kl_warmup_epochs > plan.elbo_epochs:
            objective.followed(0.5)  # refuses a bound without a KL to warm up
        self.optimizer = optimizer_of(plan, objective, fabric, clip=self.clip)
        self.state, self.last = TrainingState(), None
        self.stopped_by: Literal["epochs", "minutes", "patience"] | None = None
        self._begun = False
        self._started = self._saved = 0.0

    def bar(self, *, show: bool) -> "TrainingBar":
        """A progress bar over all steps."""
        from subo.training.bar import TrainingBar

        return TrainingBar(self.plan.limit, self.steps_per_epoch, self.plan.minutes, show=show)

    def prepare(self, *, resume: bool) -> None:
        """Restores the checkpoint, if asked to; measures the objective that training is to improve."""
        torch.manual_seed(self.plan.seed)  # in all processes, see subo.training.noise
        if resume:
            saved = self.writer.load()
            self.state = restore(saved, self.objective, self.optimizer, self.updates, self._settings(), self.fabric)
            self.writer.resume(self.state)
            self._begun = True
        if self.state.step == 0:
            self.state.before = self._level()
        self.stopped_by = reason_to_end(self.plan, self.state)

    def train(self, signal: Callable[[], int], bar: "TrainingBar") -> None:
        """Makes the remaining steps.

        Args:
            signal: Returns the number of the signal received, or 0.
            bar: Progress bar that shows the steps.

        Raises:
            DivergedError: A number is not finite; the best weights so far are kept.
            InputError: A file of the run could not be written, or a batch is invalid.
            Interrupted: A signal was received; the checkpoint is written.
        """
        self._started, self._saved = time.monotonic() - self.state.seconds, time.monotonic()
        steps = self._steps()
        try:
            while self.stopped_by is None:
                self._take(next(steps), signal, bar)
        except DivergedError as error:
            if self.last is not None and not self._begun:  # recorded steps were made before the first look
                self._begin()
            left = self._keep_best()
            raise DivergedError(f"{error} {left}") from error
        except (InputError, OSError) as error:  # such as a full disk, or a folder that was moved
            run, last = self.writer.run, self.last
            if run is None or last is None or not self._begun or self.fabric.world_size > 1:
                raise
            raise unwritten(error, self.state, last, run, save=self._save) from error
        self.writer.close(self.state)
        if asked := signal():  # since the last step
            raise Interrupted(self.writer.farewell(self.state), signal=asked)

    def finish(self) -> History:
        """Loads the best weights into the objective, and compares it with its initial state."""
        state = self.state
        if state.best_weights is not None:
            self.objective.load_state_dict(state.best_weights)
        change = {}
        if state.before is not None and (after := self._level()) is not None:
            noise = noise_of_change(state.before, after)
            change = {"before": state.before.mean().item(), "after": after.mean().item(), "noise": noise}
        assert self.stopped_by is not None
        history = History(tuple(map(epoch_of, state.records)), state.best_epoch, self.stopped_by, **change)
        self.writer.finish(self.objective.model, caution=history.worse)
        return history

    def _steps(self) -> Iterator[Step]:
        plan, state = self.plan, self.state
        return train(
            self.objective,
            self.source.batches(plan.seed, state, self.fabric),
            fabric=self.fabric,
            optimizer=self.optimizer,
            schedule=schedule_of(plan, self.steps_per_epoch, epoch_began=state.step - state.batch),
            updates=self.updates,
            window=plan.window,
            progress=lambda step: plan.share_done(step, state.seconds, steps_per_epoch=self.steps_per_epoch),
            clip=self.clip,
            compile=plan.compile,
            first=state.step,
        )

    def _take(self, step: Step, signal: Callable[[], int], bar: "TrainingBar") -> None:
        """Records a step, and does what is due after it."""
        self.last, state = step, self.state
        state.count(step)
        if not self._begun and step.settled:  # data, settings and step size have proved to work together
            self._begin()
        bar.step(step, state.epoch, len(step.loss.bound) * self.fabric.world_size)
        if not step.settled:
            return
        now = time.monotonic()
        due = now - self._saved >= 60 * self.plan.checkpoint_minutes
        state.seconds, asked, due = agreed(self.fabric, now - self._started, signal(), due)
        ends = state.batch >= self.steps_per_epoch or self.plan.out_of_time(state.seconds)
        if ends or due or asked:
            state.sum_up(step)
        if ends:
            self._close_epoch(step, bar)
        if due or asked or self.stopped_by is not None:
            self._save()
            self._saved = time.monotonic()
        if asked:
            raise Interrupted(self.writer.farewell(state), signal=asked)

    def _begin(self) -> None:
        check_finite(self.objective, self.state.step)
        if self._on_begin is not None and self.fabric.is_global_zero:
            self._on_begin()
        self.writer.begin(overwrite=self._overwrite)
        self._begun = True

    def _close_epoch(self, step: Step, bar: "TrainingBar") -> None:
        """Ends an epoch: validation, best weights, mutual information and record; shows and stores them."""
        state = self.state
        validation = self._validated()
        state.close_epoch(self.objective, None if validation is None else validation.objective)
        updates, information = self.updates.now, self._informed()
        assert state.totals is not None
        epoch = Epoch(
            epoch=state.epoch,
            step=state.step,
            seconds=state.seconds,
            learning_rate=step.learning_rate,
            kl_weight=step.kl_weight,
            train=means(state.totals, self.fabric),
            validation=validation,
            updates=updates,
            mutual_information=information,
        )
        state.totals = None
        state.records.append(asdict(epoch))
        self.stopped_by = reason_to_end(self.plan, self.state)
        self.writer.close_epoch(self.state)
        bar.epoch(epoch)
        if self._on_epoch is not None:
            self._on_epoch(epoch)

    def _validated(self) -> Metrics | None:
        """The numbers of the validation data."""
        if self.validation is None:
            return None
        size, seed = self.plan.batch_size, self.plan.seed
        try:
            return measure(self.objective, self.validation, batch_size=size, seed=seed, fabric=self.fabric)
        except DivergedError as error:
            raise DivergedError(f"step {self.state.step}, {error}") from error

    def _informed(self) -> float | None:
        """The mutual information, which decides whether aggressive updates continue; None for other updates."""
        split = self.validation or self.source.split
        if self.updates.now != "aggressive" or split is None:
            return None
        information = mutual_information(self.objective.model, split, num_samples=1, seed=self.plan.seed).value
        information = self.fabric.broadcast(information)  # the same in all processes, up to rounding
        self.updates.inform(information)
        return information

    def _save(self) -> None:
        check_finite(self.objective, self.state.step)
        self.writer.save(
            content(self.state, self.objective, self.optimizer, self.updates, self._settings(), self.fabric)
        )
        self.fabric.barrier()  # a process that ends now would take down the one that writes

    def _keep_best(self) -> str:
        """Saves what is usable after training diverged; returns a sentence that says what."""
        save = self._save if self.state.batch < self.steps_per_epoch else None
        left = keep_best(self.state, self.last, self.objective, self.writer.written, save=save)
        self.fabric.barrier()
        return left

    def _level(self) -> Float64[Tensor, " N"] | None:
        """The objective of each example that the model is judged by; None if no data are in memory."""
        held = watched(self.source.split, self.validation)
        if held is None:
            return None
        return level(self.objective, held, batch_size=self.plan.batch_size, seed=self.plan.seed)

    def _settings(self) -> dict[str, Any]:
        """The settings without which a checkpoint cannot be resumed."""
        return {
            "seed": self.plan.seed,
            "batch_size": self.plan.batch_size,
            "num_data": self.source.num_data,
            "steps_per_epoch": self.steps_per_epoch,
            "updates": self.plan.updates,
            "posterior_steps": self.plan.posterior_steps,
            "window": self.plan.window,
        }
