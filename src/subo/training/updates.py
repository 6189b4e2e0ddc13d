"""Which parameters a training step updates: phi of the posterior, theta of the model, or both.

Phi comprises the parameters of the objective's ``model.posterior`` and those that its gradient estimator learns; theta
comprises all others, of prior and likelihood. Shared parameters, as when a VampPrior uses the posterior, belong to phi.
"""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import nn

from subo.core.objective import Loss, Objective
from subo.errors import InputError
from subo.runs.config import UpdatesName
from subo.runtime.arguments import checked_arguments

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Aggressive", "Alternating", "Joint", "Part", "Updates", "UpdatesName", "at_rest", "make_updates"]

Part = Literal["both", "posterior", "model"]


class Updates(ABC):
    """A schedule of updates of theta and phi. It may have a state, which is stored in checkpoints."""

    name: ClassVar[UpdatesName]

    @property
    def now(self) -> UpdatesName:
        """The kind of updates it currently makes."""
        return self.name

    @abstractmethod
    def turns(self) -> tuple[Part, ...]:
        """The parts that the next batch updates, one after the other, each with its own noise; at least one."""

    def watch(self, loss: Loss, weight: float, fabric: "Fabric") -> None:
        """Receives the loss of a batch's last turn, and the weight of this process's share."""
        return

    def inform(self, mutual_information: float) -> None:
        """Receives the mutual information of x and z at an epoch's end; called while :attr:`now` is ``aggressive``."""
        return

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        vars(self).update(state)


class Joint(Updates):
    """Every step updates all parameters."""

    name = "joint"

    def turns(self) -> tuple[Part, ...]:
        return ("both",)


class Alternating(Updates):
    """On every batch, some steps update phi at a fixed theta, then one updates theta at a fixed phi.

    Coordinate ascent on the bound: with more and more posterior steps it approaches variational EM with the encoder as
    E-step (Neal and Hinton, 1998, section 2).

    Args:
        posterior_steps: Steps on phi before each on theta.
    """

    name = "alternating"

    @checked_arguments
    def __init__(self, posterior_steps: int = 1):
        if posterior_steps < 1:
            raise InputError(f"alternating updates need at least one posterior step, not {posterior_steps}")
        self.posterior_steps = posterior_steps

    def turns(self) -> tuple[Part, ...]:
        return ("posterior",) * self.posterior_steps + ("model",)


class Aggressive(Updates):
    """Updates phi until that no longer helps, then theta once; in the end, every batch updates both.

    Early in training the posterior lags behind p(z|x), which moves with theta, and theta learns to do without z. Here
    phi catches up before every step of theta (He et al., 2019, algorithm 1): the mean loss over each `window` of
    posterior steps is compared with the last window's, and if it is not lower, or after `max_steps`, the next batch
    updates theta. Once the mutual information of x and z under q stops rising, training is joint for good.

    In the paper every step of theta uses an epoch's next batch, phi uses random ones, and the information is compared
    once per epoch. Here all batches come from one stream, and an epoch is one pass over the data, so that a small data
    set may have less than one step of theta per epoch: the information is compared at the end of the first epoch by
    which theta has made `model_steps` steps since the last comparison. The loss is minus the objective, at the KL's
    full weight.

    Args:
        window: Number of posterior steps over which losses are averaged.
        max_steps: Number of posterior steps after which theta is updated in any case.
        model_steps: Minimum number of steps of theta between comparisons of the information.
    """

    name = "aggressive"

    @checked_arguments
    def __init__(self, *, window: int = 10, max_steps: int = 100, model_steps: int = 10):
        if min(window, max_steps, model_steps) < 1:
            raise InputError(
                "window, max_steps and model_steps count steps and must be at least 1: got "
                f"{window}, {max_steps} and {model_steps}"
            )
        self.window, self.max_steps, self.model_steps = window, max_steps, model_steps
        self._ended = False
        self._moves: Part = "posterior"
        self._posterior_steps = 0  # since theta was updated
        self._total, self._num_data = 0.0, 0.0  # of the current window
        self._last_mean = math.inf  # of the window before
        self._model_steps = 0  # since the information was compared
        self._information = -math.inf  # as it was then

    @property
    def now(self) -> UpdatesName:
        return "joint" if self._ended else "aggressive"

    def turns(self) -> tuple[Part, ...]:
        return ("both",) if self._ended else (self._moves,)

    def watch(self, loss: Loss, weight: float, fabric: "Fabric") -> None:
        if self._ended:
            return
        if self._moves == "model":
            self._model_steps += 1
            self._moves, self._posterior_steps, self._last_mean = "posterior", 0, math.inf
            return
        total, num_data = _sums(loss, weight, fabric)
        self._posterior_steps += 1
        self._total, self._num_data = self._total + total, self._num_data + num_data
        if self._posterior_steps % self.window == 0:
            mean = self._total / self._num_data
            if mean >= self._last_mean:
                self._moves = "model"
            self._total, self._num_data, self._last_mean = 0.0, 0.0, mean
        if self._posterior_steps >= self.max_steps:
            self._moves, self._total, self._num_data = "model", 0.0, 0.0

    def inform(self, mutual_information: float) -> None:
        if self._model_steps >= self.model_steps:
            self._ended = mutual_information <= self._information
            self._information, self._model_steps = mutual_information, 0


def make_updates(name: str, *, posterior_steps: int = 1) -> Updates:
    """Makes a schedule by name.

    Args:
        name: ``joint``, ``alternating`` or ``aggressive``.
        posterior_steps: Posterior steps of alternating updates.

    Raises:
        InputError: There is no such schedule, or it does not count posterior steps.
    """
    if name not in get_args(UpdatesName):
        raise InputError(f"updates must be one of {', '.join(get_args(UpdatesName))}, not '{name}'")
    if name == "alternating":
        return Alternating(posterior_steps)
    if posterior_steps != 1:
        raise InputError(
            f"posterior_steps counts the steps of alternating updates, so {posterior_steps} has no meaning with {name} "
            "updates: leave it out, or use updates alternating"
        )
    return Joint() if name == "joint" else Aggressive()


def at_rest(objective: Objective, updates: Updates) -> dict[Part, list[nn.Parameter]]:
    """The parameters that stay fixed while a part is updated.

    Raises:
        InputError: Theta and phi are to be updated in turns, but the model does not separate them, or has only one.
    """
    if isinstance(updates, Joint):
        return {"both": []}
    posterior = getattr(objective.model, "posterior", None)
    if not isinstance(posterior, nn.Module):
        raise InputError(
            f"{updates.name} updates alternate between the posterior and the rest of the model, but "
            f"{type(objective.model).__name__} has no module 'posterior' to separate their parameters. Use joint "
            "updates, or a VAE."
        )
    phi = [*posterior.parameters(), *objective.gradient.parameters()]
    known = {id(parameter) for parameter in phi}
    theta = [parameter for parameter in objective.parameters() if id(parameter) not in known]
    for part, parameters in (("posterior", phi), ("prior and likelihood", theta)):
        if not any(parameter.requires_grad for parameter in parameters):
            raise InputError(
                f"{updates.name} updates alternate between the posterior and the rest of the model, but the {part} of "
                "this model has no parameters of its own: use joint updates"
            )
    return {"both": [], "posterior": theta, "model": phi}


def _sums(loss: Loss, weight: float, fabric: "Fabric") -> tuple[float, float]:
    """Minus the sum of the objective over a batch, and its number of examples, over all processes."""
    total, num_data = (-loss.objective.sum().item(), float(len(loss.objective))) if weight else (0.0, 0.0)
    if fabric.world_size == 1:
        return total, num_data
    sums: Any = torch.tensor([total, num_data], dtype=torch.float64, device=fabric.device)
    sums = fabric.all_reduce(sums, reduce_op="sum")
    return float(sums[0]), float(sums[1])
