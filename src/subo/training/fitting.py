"""Fitting: epochs, validation, early stopping, checkpoints, and exact resumption."""

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor
from torch.optim import Optimizer

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.errors import InputError
from subo.runs.config import CompileName, DeviceConfig, TrainingConfig
from subo.runs.run import Run
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import DeviceName, PrecisionName, as_fabric
from subo.runtime.interrupts import stop_signals
from subo.runtime.randomness import forked
from subo.training.checks import check_fit
from subo.training.folder import make_writer
from subo.training.history import Epoch, History, WorseWarning
from subo.training.python_runs import config_in_python
from subo.training.sitting import Sitting
from subo.training.sources import data_of, held_out_of, source_of
from subo.training.updates import UpdatesName

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["fit"]


@checked_arguments
def fit(
    objective: Objective,
    data: Data | Split | Tensor | Iterable[object],
    *,
    validation: Split | Tensor | tuple[Tensor, object] | None = None,
    steps_per_epoch: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int = 100,
    optimizer: str | Optimizer = "Adam",
    learning_rate: float = 1e-3,
    rows_learning_rate: float = 0.05,
    warmup_epochs: float = 0.0,
    decay: Literal["constant", "cosine"] = "constant",
    kl_warmup_epochs: float = 0.0,
    elbo_epochs: float = 0.0,
    clip: float | None = None,
    updates: UpdatesName = "joint",
    posterior_steps: int = 1,
    compile: CompileName = "none",
    window: int | None = None,
    patience: int | None = None,
    seed: int = 0,
    run_dir: str | Path | Run | None = None,
    checkpoint_minutes: float = 10.0,
    keep_weights: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: DeviceName | None = None,
    precision: PrecisionName | None = None,
    fabric: "Fabric | None" = None,
    on_start: Callable[[], None] | None = None,
    on_begin: Callable[[], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: bool = False,
) -> History:
    """Fits an objective to data, in place.

    All randomness comes from `seed`, in separate streams; the caller's generators are not touched. With validation
    data, the weights of the epoch with the best validation objective are kept: the bound, as shaped by beta and free
    bits. A warning is issued if the model is worse after training than before. On the CPU, a run that was stopped, even
    by ``kill -9``, and resumed ends with the same weights, bit for bit, as one that never stopped.

    Args:
        objective: Objective to train.
        data: Data in splits; or training data only: a tensor, a Split, or a re-iterable source of batches, such as a
            ``DataLoader``. A batch is ``x``, ``(x, label)`` with the numbers of the classes, ``(x, context)`` with
            tensors by name, or a :class:`~subo.data.Batch`. Such batches are used as they come: `batch_size` then
            applies to validation only, only the first batch is checked before it is trained on, and the source decides
            their order. A resumed run begins a new pass over them, and so ends with different weights than one that
            never stopped. Local inference, which keeps parameters for each example, needs a tensor or a Split.
        validation: Validation data, if `data` is only training data: a Split, a tensor, ``(x, label)`` or
            ``(x, context)``.
        steps_per_epoch: Number of batches of a ``DataLoader`` per epoch; by default its length. Required if it has
            none.
        epochs: Number of passes over the data; 100 if neither epochs nor minutes are given.
        minutes: Maximum training time; learning-rate decay then follows the clock.
        batch_size: Number of examples in a batch, over all processes.
        optimizer: Any class of ``torch.optim`` by name (or, in Python, an optimizer over the objective's parameters).
        learning_rate: The optimizer's step size.
        rows_learning_rate: Learning rate for the parameters that local inference keeps for each example.
        warmup_epochs: Epochs over which the learning rate rises from 0.
        decay: ``constant`` or ``cosine``, down to 0 at the end.
        kl_warmup_epochs: Epochs over which the KL's weight rises from 0 to 1; where minutes alone end training, it is 1
            after half of them at the latest.
        elbo_epochs: Epochs at the start that follow the ELBO with one sample, which takes less time than many; the
            others follow the bound.
        clip: Largest norm of the gradient. By default gradients are clipped only if a value lies more than 1,000
            standard deviations from the others: then at 100, so that it does not drown out all other gradients.
        updates: What a batch updates: posterior and model together (joint); the posterior for some steps, then the
            model for one (alternating); or the posterior alone until that no longer helps, then the model once, as long
            as the mutual information of data and latents rises, and both jointly afterwards (aggressive). The last
            counters posterior collapse, but is slow, since few batches update the model.
        posterior_steps: Posterior steps before each model step, in alternating updates.
        compile: How a step is carried out: as Python does it (none); by torch.compile (torch), which takes up to a
            minute before the first step and needs a C++ compiler on a CPU; or, on CUDA, as one graph that is recorded
            once and replayed (graph). With auto, steps are recorded where every part allows it, and made as Python does
            it elsewhere. Numbers are the same up to rounding.
        window: Largest number of time steps in an update of sequences. Longer ones are taken window by window, each
            from the state at which the last one ended, for a gradient that is truncated at their borders. Validation
            and all reported numbers are of whole sequences; a window as long as the longest is training without.
        patience: Stop after this many epochs without a better validation bound (as shaped by beta and free bits).
        seed: Seed for order and samples, and for bits and noise that are redrawn at every visit.
        run_dir: Run folder in which settings, metrics, checkpoints and finally the weights are kept; none by default.
            :func:`subo.load_weights` reads the weights into a model built the same way.
        checkpoint_minutes: Minutes between checkpoints.
        keep_weights: Whether to keep the weights after epochs 1, 2, 3, 5, 8, 13, ... and the last in the run folder, to
            study training later; by default if they take at most 20 MB each.
        resume: Whether to continue from the checkpoint in `run_dir`: with the same call, possibly with more epochs or
            minutes.
        overwrite: Whether to replace an existing run in `run_dir`, once the first step is made.
        device: Device for training: ``cpu``, ``cuda`` (or ``gpu``), ``mps``, or ``auto``, the default: whatever is
            available.
        precision: Floating-point precision: ``32-true``, the default, ``64-true``, ``16-mixed`` (on a GPU) or
            ``bf16-mixed``.
        fabric: A Lightning Fabric in place of `device` and `precision`; already launched if it has several processes.
        on_start: Called once, after data and settings have been accepted and before the first step.
        on_begin: Called once, after the first step of a new run and before anything is written to `run_dir`: only then
            is it certain that what was there is replaced by a run that trains. It makes the run; by default `fit` does.
        on_epoch: Called with each epoch's record.
        progress: Whether to show progress in the terminal.

    Returns:
        The epochs' records.

    Raises:
        InputError: The data do not match the model, or an option makes no sense.
        DivergedError: A number is not finite. The model has the weights of the best epoch so far, if there was one.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; with a `run_dir`, the checkpoint is written first.

    Example:
        >>> from subo import probabilistic_pca
        >>> history = fit(Objective(probabilistic_pca(5, 2)), torch.randn(100, 5), epochs=2)
        >>> len(history.epochs), history.stopped_by
        (2, 'epochs')
    """
    plan = TrainingConfig.of(locals())
    known = data_of(data, validation)
    held_out = held_out_of(known)
    if resume and run_dir is None:
        raise InputError("resume continues from the checkpoint in run_dir, but none was given")
    fabric = as_fabric(fabric, device=device, precision=precision)
    training = data.train if isinstance(data, Data) else data
    source = source_of(
        training, objective, batch_size=batch_size, steps_per_epoch=steps_per_epoch, processes=fabric.world_size
    )
    check_fit(objective, source.split, held_out, plan)

    place = DeviceConfig(fabric.device.type, fabric.strategy.precision.precision)
    config = None if on_begin else partial(config_in_python, objective, known, plan, place)
    writer = make_writer(run_dir, objective.model, fabric, config=config, keep_weights=keep_weights)
    if not resume:
        writer.place(overwrite=overwrite)
    calls = {"on_begin": on_begin, "on_epoch": on_epoch}
    sitting = Sitting(objective, source, held_out.get("validation"), plan, fabric, writer, overwrite=overwrite, **calls)
    if fabric.is_global_zero and on_start is not None:
        on_start()
    fabric.barrier()

    with forked(seed), stop_signals() as signal, sitting.bar(show=progress) as bar, writer:
        sitting.prepare(resume=resume)
        sitting.train(signal, bar)
    history = sitting.finish()
    if history.worse:
        warnings.warn(str(history.worse), WorseWarning, stacklevel=2)
    return history
