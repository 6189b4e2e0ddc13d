"""Optimizers: any of torch's by name, Adam for rows that batches touch only in part, and both as one."""

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from subo.errors import InputError
from subo.inference.row_adam import RowAdam

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Combined", "check_over", "clip_gradients", "make_optimizer", "row_parameters", "set_rate"]


def make_optimizer(
    module: nn.Module,
    name: str = "Adam",
    *,
    learning_rate: float = 1e-3,
    rows_learning_rate: float = 0.05,
    **options: Any,
) -> Optimizer:
    """Makes any of torch's optimizers by name, fused where it can be; rows of local parameters get :class:`RowAdam`.

    Args:
        module: Module whose parameters are optimized.
        name: Name of a class of ``torch.optim``, case-insensitive.
        learning_rate: Step size.
        rows_learning_rate: Step size for parameters with gradients sparse over rows, such as a local posterior's. It is
            larger, since a row is updated only when its example is in the batch.
        **options: Other arguments of the named optimizer.

    Raises:
        InputError: There is no such optimizer, or it does not accept these arguments.
    """
    known = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    unfit = {"lbfgs": "it evaluates the loss several times per step", "sparseadam": "it needs sparse gradients"}
    if name.lower() in unfit:
        raise InputError(f"{name} cannot be used here, since {unfit[name.lower()]}: use Adam or AdamW")
    if name.lower() not in known:
        names = ", ".join(sorted(kind.__name__ for kind in known.values()))
        raise InputError(f"torch has no optimizer '{name}'; it has {names}")
    for rate in (learning_rate, rows_learning_rate):
        if not (rate > 0 and math.isfinite(rate)):
            raise InputError(f"the learning rate must be positive, not {rate}")
    kind: Any = known[name.lower()]
    if "fused" in inspect.signature(kind).parameters:
        options.setdefault("fused", True)
    rows = row_parameters(module)
    shared = [parameter for parameter in module.parameters() if not any(parameter is row for row in rows)]
    if rows and not shared:
        return RowAdam(rows, lr=rows_learning_rate)
    try:
        optimizer = kind(shared, lr=learning_rate, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{kind.__name__} cannot be made with {options or 'these parameters'}: {error}") from error
    return Combined(optimizer, RowAdam(rows, lr=rows_learning_rate)) if rows else optimizer


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Sets a parameter group's learning rate, in place where it is a number on a device that a recorded step reads."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def check_over(optimizer: Optimizer, module: nn.Module) -> None:
    """Refuses an optimizer over parameters other than a module's: training would change nothing.

    Raises:
        InputError: There are such parameters; the message says how many.
    """
    own = {id(parameter) for parameter in module.parameters()}
    given = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = sum(id(parameter) not in own for parameter in given)
    if foreign:
        raise InputError(
            f"{foreign} of the optimizer's {len(given)} tensors are not parameters of this objective. Usually it was "
            "made for another model, or before this one was built: make it from objective.parameters()"
        )


def row_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters whose gradient contains only a batch's rows: those of torch's Embedding if it is ``sparse``.

    Args:
        module: Module to search, at any depth.
    """
    sparse = [part for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) and part.sparse]
    return [parameter for part in sparse for parameter in part.parameters(recurse=False)]


class Combined(Optimizer):
    """Several optimizers, each over its own parameters, as one.

    It shares their parameter groups: a schedule that sets ``lr`` here sets it there.

    Args:
        *parts: The optimizers.
    """

    def __init__(self, *parts: Optimizer):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore
        """One step of each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts, in their order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of every part."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # loading replaces them


def clip_gradients(fabric: "Fabric", module: nn.Module, optimizer: Optimizer, max_norm: float) -> float:
    """Scales the gradient of all parameters down to a norm, if it is longer; parts may be sparse over rows.

    Args:
        fabric: Lightning Fabric, which knows whether the gradients are scaled.
        module: Module whose gradients are clipped.
        optimizer: Optimizer over its parameters.
        max_norm: Largest norm.

    Returns:
        The norm before clipping.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sparse = [parameter for parameter in parameters if parameter.grad is not None and parameter.grad.is_sparse]
    if not sparse:
        clipped: Any = fabric.clip_gradients(module, optimizer, max_norm=max_norm, error_if_nonfinite=False)
        return float(clipped)
    fabric.strategy.precision.unscale_gradients(getattr(optimizer, "optimizer", optimizer))
    for parameter in sparse:
        parameter.grad = parameter.grad.coalesce()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
    norm = torch.nn.utils.get_total_norm(values)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)
    for value in values:
        value.mul_(factor)
    return float(norm)
