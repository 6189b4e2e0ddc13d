"""The device, precision and mode in which modules run."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from subo.errors import InputError
from subo.runtime.arguments import checked_arguments
from subo.runtime.launchers import launched
from subo.runtime.processes import keep_together

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["DeviceName", "PrecisionName", "as_fabric", "evaluating", "make_fabric", "place"]

DeviceName = Literal["auto", "cpu", "cuda", "gpu", "mps"]
PrecisionName = Literal["32-true", "64-true", "16-mixed", "bf16-mixed"]
StrategyName = Literal["auto", "ddp", "ddp_find_unused_parameters_true"]


def place(module: Any, x: Tensor, context: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Moves a batch to a module's device and real numbers to its precision; unchanged for a model without parameters.

    Args:
        module: A module, or any model.
        x: Data.
        context: Named context tensors, one row per example.
    """
    parameters = getattr(module, "parameters", None)
    like = next(iter(parameters()), None) if parameters else None
    if like is None:
        return x, {name: tensor.to(x.device) for name, tensor in context.items()}
    placed = {name: tensor.to(like if tensor.is_floating_point() else like.device) for name, tensor in context.items()}
    return x.to(like), placed


@checked_arguments
def make_fabric(
    *,
    device: DeviceName = "auto",
    precision: PrecisionName = "32-true",
    processes: int | None = None,
    strategy: StrategyName = "auto",
    threads: int | None = None,
) -> "Fabric":
    """Creates the Fabric that moves, wraps and launches.

    Fabric is imported here and not with subo because its import adds a logging handler and an environment variable;
    both are removed again.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` (or ``gpu``), ``mps``.
        precision: Fabric's names: ``32-true``, ``64-true``, ``16-mixed`` (on a GPU), ``bf16-mixed``.
        processes: Number of processes that share each batch; by default as many as a launcher (torchrun, srun) has
            started, else one.
        strategy: How several processes work together, as Lightning Fabric names it; ``auto`` is data-parallel.
        threads: Threads of torch on the CPU in each process; by default one for the steps of a small model, and
            otherwise as many as torch takes.

    Raises:
        InputError: This machine has no such device, or too few of them, or a name is unknown; or a launcher has started
            another number of processes.
    """
    _check_there(device, precision)
    if threads is not None:
        torch.set_num_threads(threads)
    among = launched()
    processes = among.checked(processes) if among is not None else processes or 1
    options: dict[str, Any] = {"accelerator": device, "devices": processes, "precision": precision}
    if among is not None:
        options |= {"devices": among.per_node, "num_nodes": among.nodes}
        among.announce()
    elif processes > 1:
        keep_together()
    with _left_alone():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    # Fabric itself would take the variables of a batch job for a launcher, though the job has one process
    options["plugins"] = [LightningEnvironment() if among is None else TorchElasticEnvironment()]
    try:
        return Fabric(**options, strategy=strategy if processes == 1 or strategy != "auto" else "ddp")
    except (ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"cannot train with device '{device}', precision '{precision}', {processes} processes and strategy "
            f"'{strategy}': {str(error).splitlines()[0]}"
        ) from error


@contextmanager
def _left_alone() -> Iterator[None]:
    """Takes back what an import of Fabric does to its logger and the environment."""
    logger = logging.getLogger("lightning_fabric")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    environment = dict(os.environ)
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
    for name in set(os.environ) - set(environment):
        del os.environ[name]


def _check_there(device: str, precision: str) -> None:
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if precision == "16-mixed" and (device == "cpu" or not gpu):
        raise InputError(
            "precision 16-mixed is for GPUs, where it scales gradients, and this would run on the CPU: bf16-mixed runs "
            "on both and takes the same memory."
        )
    there = {
        "cuda": torch.cuda.is_available,
        "gpu": lambda: gpu,
        "mps": torch.backends.mps.is_available,
    }.get(device)
    if there is not None and not there():
        raise InputError(
            f"there is no device '{device}' here that torch {torch.__version__} can use. Usually this machine has no "
            "GPU, or torch was installed without support for it: use `device=cpu`, or auto for whatever is available."
        )


def as_fabric(fabric: Any, *, device: DeviceName | None = None, precision: PrecisionName | None = None) -> "Fabric":
    """Returns the Fabric given, or creates one for this process.

    Args:
        fabric: A Fabric, or None.
        device: Device to use instead of a Fabric, as in :func:`make_fabric`, with the same default.
        precision: Precision to use instead of a Fabric, as in :func:`make_fabric`, with the same default.

    Raises:
        InputError: `fabric` is something else, divides models among processes, was given with a device or a precision,
            or there is no such device here.
    """
    asked: dict[str, Any] = {
        name: value for name, value in (("device", device), ("precision", precision)) if value is not None
    }
    if fabric is not None and asked:
        raise InputError(
            f"`fabric` and {' and '.join(f'`{name}`' for name in asked)} were given, and a Fabric has its own device "
            "and precision: give one or the other"
        )
    made = fabric if fabric is not None else make_fabric(**asked)
    if not all(hasattr(made, name) for name in ("strategy", "device", "world_size")):
        raise InputError(
            f"fabric must be a lightning_fabric.Fabric, already launched, not {fabric!r}: leave it out to train here"
        )
    if (divided := type(made.strategy).__name__) in _DIVIDING:
        raise InputError(
            f"`fabric` has a {divided}, which divides a model's parameters among processes, but validation, "
            "checkpoints and the best weights need them whole in each: use `strategy=ddp`, which divides the batches"
        )
    return made


_DIVIDING = {"DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy", "XLAFSDPStrategy"}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Puts a module into evaluation mode inside the context and restores its mode afterwards.

    Inside, submodules that offer ``may_overwrite`` may overwrite their input where no gradient is needed, because only
    the library calls them.
    """
    module = model if isinstance(model, nn.Module) else nn.Identity()
    mode = module.training
    sparing: list[Any] = [part for part in module.modules() if getattr(part, "may_overwrite", False)]
    before = [part.overwrites for part in sparing]
    module.eval()
    for part in sparing:
        part.overwrites = True
    try:
        yield
    finally:
        module.train(mode)
        for part, overwrites in zip(sparing, before, strict=True):
            part.overwrites = overwrites
