"""Fitting: epochs, validation, early stopping, checkpoints, and going on as if nothing had happened."""

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
from subo.runs.config import DeviceConfig, TrainingConfig
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
    device: DeviceName | None = None,
    precision: PrecisionName | None = None,
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
        data: Data in splits; or training data alone: a tensor, a Split, or what gives batches again and again, such as
            a ``DataLoader``. A batch is ``x``, ``(x, label)`` with the classes' numbers, ``(x, context)`` with tensors
            by name, or a :class:`~subo.data.Batch`. Such batches come as they are: `batch_size` is then that of
            validation alone, only the first is checked before it is trained on, and their order is their own. A
            resumed run begins a new pass over them, and so ends with other weights than one that never stopped. Local
            inference, which keeps parameters for each example, needs a tensor or a Split.
        validation: Validation data, beside training data alone: a Split, a tensor, ``(x, label)`` or ``(x, context)``.
        steps_per_epoch: How many batches of a ``DataLoader`` make an epoch; by default its length. Needed where it has
            none.
        epochs: How often the data are gone through; 100 where neither epochs nor minutes are given.
        minutes: How long to train at the most; learning-rate decay then follows the clock.
        batch_size: Data in a batch, over all processes.
        optimizer: Any class of ``torch.optim`` by name (or, in Python, an optimizer over the objective's parameters).
        learning_rate: The optimizer's step size.
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
        seed: Of order and samples, and of the bits and noise that are drawn again at every visit.
        run_dir: The folder of a run, in which settings, metrics, checkpoints and at the end the weights are kept;
            nowhere by default. :func:`subo.load_weights` reads the weights into a model made as this one was.
        checkpoint_minutes: How often a checkpoint is written.
        keep_weights: Whether the weights after epochs 1, 2, 3, 5, 8, 13, ... and the last are kept in the run folder,
            to see later how training went; by default if they take at most 20 MB each.
        resume: Whether to go on from the checkpoint in `run_dir`: by the same call, with more epochs or minutes maybe.
        overwrite: Whether a run that is in `run_dir` already is replaced, once the first step is made.
        device: Where to train: ``cpu``, ``cuda`` (or ``gpu``), ``mps``, or ``auto``, the default: whatever is there.
        precision: Of the numbers: ``32-true``, the default, ``64-true``, ``16-mixed`` (on a GPU) or ``bf16-mixed``.
        fabric: In place of `device` and `precision`, a Lightning Fabric, launched already where it has several
            processes.
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
    plan = TrainingConfig.of(locals())
    known = data_of(data, validation)
    held_out = held_out_of(known)
    if resume and run_dir is None:
        raise InputError("resume goes on from the checkpoint in run_dir, and none was given")
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
