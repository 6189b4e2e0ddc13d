"""Which parameters a step of training moves: phi of the posterior, theta of the model, or both.

Phi are the parameters of the objective's ``model.posterior`` and what its gradient estimator learns; theta are all the
others, of prior and likelihood. What both share, as a VampPrior shares the posterior, is phi.
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
    """A schedule of theta and phi. It may have a state, which goes into checkpoints."""

    name: ClassVar[UpdatesName]

    @property
    def now(self) -> UpdatesName:
        """What it does at present."""
        return self.name

    @abstractmethod
    def turns(self) -> tuple[Part, ...]:
        """What the next batch moves, one after the other, each with noise of its own; at least one."""

    def watch(self, loss: Loss, weight: float, fabric: "Fabric") -> None:
        """Sees the loss of a batch's last turn, and the weight of this process's share."""
        return

    def inform(self, mutual_information: float) -> None:
        """Sees the mutual information of x and z at an epoch's end; asked for while :attr:`now` is ``aggressive``."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Plain values, with which it goes on where it was."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the other was."""
        vars(self).update(state)


class Joint(Updates):
    """Every step moves all parameters."""

    name = "joint"

    def turns(self) -> tuple[Part, ...]:
        return ("both",)


class Alternating(Updates):
    """On every batch some steps move phi at a fixed theta, then one moves theta at a fixed phi.

    Coordinate ascent on the bound: with ever more posterior steps it tends to variational EM, whose E-step the
    encoder makes (Neal and Hinton, 1998, section 2).

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
    """Batches move phi until that helps no more, then one moves theta; in the end, all move both.

    Early in training the posterior lags behind p(z|x), which theta moves, and theta learns to do without z. Here phi
    catches up before every step of theta (He et al., 2019, algorithm 1): the mean loss over each `window` of posterior
    steps is held against the last window's, and where it is not less, or after `max_steps`, the next batch moves theta.
    Once the mutual information of x and z under q does not rise any more, training is joint for good.

    In the paper every step of theta has an epoch's next batch, phi has random ones, and the information is compared
    once an epoch. Here all batches come from one stream, and an epoch is one pass over the data, so that a small set
    has not even one step of theta an epoch: the information is compared at the end of an epoch by which theta has made
    `model_steps` since the last comparison. The loss is minus what is maximized, at the KL's full weight.

    Args:
        window: Posterior steps whose losses are averaged.
        max_steps: Posterior steps after which theta is moved in any case.
        model_steps: Steps of theta between comparisons of the information, at least.
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
        self._posterior_steps = 0  # since theta was moved
        self._total, self._num_data = 0.0, 0.0  # of the running window
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
        posterior_steps: Of alternating updates.

    Raises:
        InputError: There is no such schedule, or it has no posterior steps to be counted.
    """
    if name not in get_args(UpdatesName):
        raise InputError(f"updates must be one of {', '.join(get_args(UpdatesName))}, not '{name}'")
    if name == "alternating":
        return Alternating(posterior_steps)
    if posterior_steps != 1:
        raise InputError(
            f"posterior_steps counts the steps of alternating updates, and with {name} ones {posterior_steps} means "
            "nothing: leave it out, or use updates alternating"
        )
    return Joint() if name == "joint" else Aggressive()


def at_rest(objective: Objective, updates: Updates) -> dict[Part, list[nn.Parameter]]:
    """The parameters that stay as they are when a part moves.

    Raises:
        InputError: Theta and phi are to be moved in turns, and the model does not tell them apart, or has only one.
    """
    if isinstance(updates, Joint):
        return {"both": []}
    posterior = getattr(objective.model, "posterior", None)
    if not isinstance(posterior, nn.Module):
        raise InputError(
            f"{updates.name} updates move the posterior and the rest of the model in turns, and "
            f"{type(objective.model).__name__} has no module 'posterior' that tells which parameters are which. Use "
            "joint updates, or a VAE."
        )
    phi = [*posterior.parameters(), *objective.gradient.parameters()]
    known = {id(parameter) for parameter in phi}
    theta = [parameter for parameter in objective.parameters() if id(parameter) not in known]
    for part, parameters in (("posterior", phi), ("prior and likelihood", theta)):
        if not any(parameter.requires_grad for parameter in parameters):
            raise InputError(
                f"{updates.name} updates move the posterior and the rest of the model in turns, and the {part} of this "
                "model has no parameters of its own to move: use joint updates"
            )
    return {"both": [], "posterior": theta, "model": phi}


def _sums(loss: Loss, weight: float, fabric: "Fabric") -> tuple[float, float]:
    """Minus the sum of what is maximized over a batch, and the number of its data, over all processes."""
    total, num_data = (-loss.objective.sum().item(), float(len(loss.objective))) if weight else (0.0, 0.0)
    if fabric.world_size == 1:
        return total, num_data
    sums: Any = torch.tensor([total, num_data], dtype=torch.float64, device=fabric.device)
    sums = fabric.all_reduce(sums, reduce_op="sum")
    return float(sums[0]), float(sums[1])
