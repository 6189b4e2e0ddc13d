"""Fitting: epochs, validation, early stopping, checkpoints, and going on as if nothing had happened."""

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from subo.core.objective import Objective
from subo.data.batches import num_batches
from subo.data.dataset import Data
from subo.data.splits import Split, as_split
from subo.data.support import check_support
from subo.errors import DivergedError, InputError, Interrupted
from subo.runs.run import Run
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import as_fabric
from subo.runtime.interrupts import stop_signals
from subo.runtime.randomness import forked
from subo.training.checkpoints import KeptWeights, TrainingState, check_finite, content, restore
from subo.training.checks import check_draws, check_step
from subo.training.divergence import default_clip, keep_best, level, noise_of_change, unwritten, watched
from subo.training.epochs import agreed, close_epoch, reason_to_end, stream_of
from subo.training.history import Epoch, History, WorseWarning, epoch_of
from subo.training.loop import Schedule, Step, train
from subo.training.optimizers import check_over, make_optimizer
from subo.training.python_runs import config_in_python, resume_in_python
from subo.training.updates import UpdatesName, at_rest, make_updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["fit"]

_NO_SETTINGS = {"objective", "data", "run_dir", "resume", "overwrite", "fabric"}
_NO_SETTINGS |= {"on_start", "on_begin", "on_epoch", "progress"}


@checked_arguments
def fit(
    objective: Objective,
    data: Data | Split | Tensor,
    *,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int = 100,
    optimizer: str | Optimizer = "Adam",
    learning_rate: float = 1e-3,
    rows_learning_rate: float = 0.05,
    warmup_epochs: float = 0.0,
    decay: Literal["constant", "cosine"] = "constant",
    kl_warmup_epochs: float = 0.0,
    clip: float | None = None,
    updates: UpdatesName = "joint",
    posterior_steps: int = 1,
    patience: int | None = None,
    seed: int = 0,
    run_dir: str | Path | Run | None = None,
    checkpoint_minutes: float = 10.0,
    keep_weights: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    fabric: "Fabric | None" = None,
    on_start: Callable[[], None] | None = None,
    on_begin: Callable[[], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: bool = False,
) -> History:
    """Fits an objective to data, in place.

    All randomness comes from `seed`, in streams of its own; the caller's generators are left as they were. With
    validation data the weights of the epoch with the best objective on them are kept: the bound, or what beta and free
    bits make of it. A model that is worse after training than before is warned of. On the CPU, a run that was stopped
    and resumed, even by ``kill -9``, ends with the same weights, bit for bit, as one that never stopped.

    Args:
        objective: What is trained.
        data: Data in splits, or training data alone.
        epochs: How often the data are gone through; 100 where neither epochs nor minutes are given.
        minutes: How long to train at the most; learning-rate decay then follows the clock.
        batch_size: Data in a batch, over all processes.
        optimizer: Any class of ``torch.optim`` by name (or, in Python, an optimiser over the objective's parameters).
        learning_rate: The optimiser's step size.
        rows_learning_rate: Learning rate of the parameters that local inference keeps for each example.
        warmup_epochs: Epochs over which the learning rate rises from 0.
        decay: ``constant`` or ``cosine``, down to 0 at the end.
        kl_warmup_epochs: Epochs over which the KL's weight rises from 0 to 1.
        clip: Largest norm of the gradient. By default gradients are clipped only if a value lies more than 1,000
            standard deviations from the others, at 100, so that it does not drown out all other gradients.
        updates: What a batch moves: posterior and model together (joint); some steps of the posterior, then one of
            the model (alternating); or the posterior alone until that helps no more, then the model once, as long as
            the mutual information of data and latents rises (aggressive), and joint after: against posterior collapse,
            and slow, since few batches move the model.
        posterior_steps: Steps of the posterior before each of the model, in alternating updates.
        patience: Stop after this many epochs without a better validation bound (as shaped by beta and free bits).
        seed: Of order and samples, and of the bits and noise that are drawn afresh at every visit.
        run_dir: The folder of a run, in which settings, metrics, checkpoints and at the end the weights are kept;
            nowhere by default. :func:`subo.load_weights` reads the weights into a model made as this one was.
        checkpoint_minutes: How often a checkpoint is written.
        keep_weights: Whether the weights after epochs 1, 2, 3, 5, 8, 13, ... and the last are kept in the run folder,
            to see later how training went; by default if they take at most 20 MB each.
        resume: Whether to go on from the checkpoint in `run_dir`: by the same call, with more epochs or minutes maybe.
        overwrite: Whether a run that is in `run_dir` already is replaced, once the first step is made.
        fabric: Where to train, launched already where it has several processes.
        on_start: Called once, when data and settings have been accepted and before the first step.
        on_begin: Called once, after the first step of a new run and before anything is written to `run_dir`: what was
            there is only then known to give way to a run that trains. It makes the run; by default `fit` does.
        on_epoch: Called with each epoch's record.
        progress: Whether to show progress in the terminal.

    Returns:
        The epochs' records.

    Raises:
        InputError: The data are not what the model describes, or an option makes no sense.
        DivergedError: A number is not finite. The model has the weights of the best epoch before, where there was one.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the checkpoint is written first, where there is a `run_dir`.

    Example:
        >>> from subo import probabilistic_pca
        >>> history = fit(Objective(probabilistic_pca(5, 2)), torch.randn(100, 5), epochs=2)
        >>> len(history.epochs), history.stopped_by
        (2, 'epochs')
    """
    asked_for = {name: value for name, value in locals().items() if name not in _NO_SETTINGS}
    data = data if isinstance(data, Data) else as_split(data)
    training, validation = (data.train, data.validation) if isinstance(data, Data) else (data, None)
    if patience is not None and validation is None:
        raise InputError(
            "patience counts epochs without a better validation bound, and there are no validation data"
            " (local inference has none: its rows are those of the training data)"
        )
    if resume and run_dir is None:
        raise InputError("resume goes on from the checkpoint in run_dir, and none was given")
    limit = epochs if epochs or minutes else 100
    fabric = as_fabric(fabric)
    run = Run(Path(run_dir)) if isinstance(run_dir, str | Path) else run_dir
    check_support(objective.model, training, where="the training data")
    if isinstance(data, Data):  # test data, too: what is measured after training should not be refused then
        check_support(objective.model, data.validation, where="the validation data")
        check_support(objective.model, data.test, where="the test data")
    clip = default_clip(training) if clip is None else clip
    if not isinstance(optimizer, str):
        check_over(optimizer, objective)
    check_step(objective, training, batch_size)
    for split in (training,) if validation is None else (training, validation):
        check_draws(objective, split)

    per_epoch = num_batches(training, batch_size)
    moves = make_updates(updates, posterior_steps=posterior_steps)
    made_here = run is not None and on_begin is None  # else whoever calls makes it
    if run is not None and made_here and not resume and fabric.is_global_zero:
        Run.place(run.path, overwrite=overwrite)
    at_rest(objective, moves)  # refuses a model whose theta and phi cannot be told apart
    schedule = Schedule(round(warmup_epochs * per_epoch), decay, round(kl_warmup_epochs * per_epoch))
    objective.to(fabric.device)
    fabric.strategy.precision.convert_module(objective)
    if kl_warmup_epochs:
        objective.followed(0.5)  # refuses a bound that has no KL to warm up
    if isinstance(optimizer, str):
        scaled = fabric.strategy.precision.precision == "16-mixed"  # whose gradients Fabric cannot clip when fused
        options = {"fused": False} if scaled and clip else {}
        rates = {"learning_rate": learning_rate, "rows_learning_rate": rows_learning_rate}
        optimizer = make_optimizer(objective, optimizer, **rates, **options)
    if fabric.is_global_zero and on_start is not None:
        on_start()
    fabric.barrier()
    device = {"device": fabric.device.type, "precision": fabric.strategy.precision.precision}
    state, held = TrainingState(), watched(training, validation)
    settings = {
        "seed": seed,
        "batch_size": batch_size,
        "num_data": len(training),
        "processes": fabric.world_size,
        "updates": updates,
        "posterior_steps": posterior_steps,
    }

    from subo.training.bar import TrainingBar

    with (
        forked(seed),
        stop_signals() as signal,
        TrainingBar(limit, per_epoch, minutes, show=progress) as bar,
        ExitStack() as owned,
    ):
        torch.manual_seed(seed + 7919 * fabric.global_rank)
        kept = None if run is None or not fabric.is_global_zero else KeptWeights(run, objective.model, keep_weights)
        if resume and run is not None:
            if kept is not None:
                owned.enter_context(run.writing())
                run.check_links()
            state = restore(run.load_checkpoint(), objective, optimizer, moves, settings, fabric)
            if kept is not None:
                if made_here:
                    resume_in_python(run, config_in_python(objective, data, asked_for, device))
                run.write_metrics(state.records)
                kept.begin(state.epoch)
        begun = resume
        if state.step == 0:
            state.before = level(objective, held, batch_size=batch_size, seed=seed)

        def begin() -> None:
            if on_begin is not None and fabric.is_global_zero:
                on_begin()
            if run is not None and kept is not None:
                run.make_folder()
                owned.enter_context(run.writing())
                if made_here:
                    run.begin(config_in_python(objective, data, asked_for, device), overwrite=overwrite)
                run.checkpoint.unlink(missing_ok=True)  # of another run, which must never be taken for this one's
                run.write_metrics([])
                kept.begin(0)

        def share_done(step: int) -> float:
            by_epochs = step / (limit * per_epoch) if limit else 0.0
            return max(by_epochs, state.seconds / (60 * minutes) if minutes else 0.0)

        def save() -> None:
            check_finite(objective, state.step)
            state_now = content(state, objective, optimizer, moves, settings, fabric)
            if run is not None and fabric.is_global_zero:
                run.save_checkpoint(state_now)
            fabric.barrier()  # a process that ends now would take the one that writes with it

        stopped_by = reason_to_end(state, limit, minutes, patience)
        started, saved = time.monotonic() - state.seconds, time.monotonic()
        steps = train(
            objective,
            stream_of(training, batch_size, seed, state, fabric),
            fabric=fabric,
            optimizer=optimizer,
            schedule=schedule,
            updates=moves,
            progress=share_done,
            clip=clip,
            first=state.step,
        )
        step: Step | None = None
        try:
            while stopped_by is None:
                step = next(steps)
                state.count(step)
                if state.step == 1:  # data, settings and step size have proved to go together
                    check_finite(objective, state.step)
                    begin()
                    begun = True
                state.seconds, asked, due = agreed(
                    fabric, time.monotonic() - started, signal(), time.monotonic() - saved >= 60 * checkpoint_minutes
                )
                bar.step(step, state.epoch, len(step.loss.bound) * fabric.world_size)
                out_of_time = minutes is not None and state.seconds >= 60 * minutes
                if state.batch == per_epoch or out_of_time or due or asked:
                    state.sum_up(step)
                if state.batch == per_epoch or out_of_time:
                    epoch = close_epoch(state, step, objective, moves, training, validation, batch_size, seed, fabric)
                    stopped_by = reason_to_end(state, limit, minutes, patience)
                    if run is not None and kept is not None:
                        run.append_metrics(state.records[-1])
                        kept.keep(state.epoch)
                    bar.epoch(epoch)
                    if on_epoch is not None:
                        on_epoch(epoch)
                if due or asked or stopped_by is not None:
                    save()
                    saved = time.monotonic()
                if asked:
                    raise Interrupted(_farewell(state, run, in_python=made_here), signal=asked)
        except DivergedError as error:
            writes = run if fabric.is_global_zero else None
            left = keep_best(state, step, objective, writes, save=save if state.batch < per_epoch else None)
            fabric.barrier()
            raise DivergedError(f"{error} {left}") from error
        except (InputError, OSError) as error:  # such as a full disk, or a folder that was moved
            if run is None or step is None or not begun or fabric.world_size > 1:
                raise
            raise unwritten(error, state, step, run, save=save) from error
        if kept is not None:
            kept.keep(state.epoch, last=True)
        if asked := signal():  # since the last step
            raise Interrupted(_farewell(state, run, in_python=made_here), signal=asked)
    if state.best_weights is not None:
        objective.load_state_dict(state.best_weights)
    change = {}
    if state.before is not None:
        after = level(objective, held, batch_size=batch_size, seed=seed)
        noise = noise_of_change(state.before, after)
        change = {"before": state.before.mean().item(), "after": after.mean().item(), "noise": noise}
    records = tuple(epoch_of(record) for record in state.records)
    history = History(records, state.best_epoch, stopped_by, **change)
    if run is not None and fabric.is_global_zero:
        with run.writing():
            run.save_weights(objective.model, caution=history.worse)
    if history.worse:
        warnings.warn(str(history.worse), WorseWarning, stacklevel=2)
    return history


def _farewell(state: TrainingState, run: Run | None, *, in_python: bool) -> str:
    where = f"stopped in epoch {state.epoch + 1} after {state.step} steps"
    if run is None:
        return f"{where}; the model has the weights that it had then."
    again = "the same call and " if in_python else ""
    return f"{where}; the checkpoint is written. Go on with {again}`resume` and `run_dir={run.path}`."
