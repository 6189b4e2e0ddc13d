"""Gradients as a training step draws them, one after the other: for any estimator, on one batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from subo.core.bounds import Bound
from subo.errors import InputError
from subo.gradients import (
    VIMCO,
    DReG,
    GradientEstimator,
    GumbelSoftmax,
    Pathwise,
    ReinMax,
    ScoreFunction,
    StickingTheLanding,
    StraightThrough,
    WakePhi,
    check_path,
)
from subo.models.vae import VAE
from subo.parts.networks import Standardize, mlp
from subo.typing import Context

__all__ = ["STANDARD", "GradientDraws", "standard_estimators"]

_WARM_UP, _RATE = 200, 0.01  # steps of a baseline on the batch, and their Adam step size

STANDARD: dict[str, Callable[[Tensor], GradientEstimator]] = {
    "pathwise": lambda x: Pathwise(),
    "sticking-the-landing": lambda x: StickingTheLanding(),
    "dreg": lambda x: DReG(),
    "score-leave-one-out": lambda x: ScoreFunction("leave-one-out"),
    "vimco": lambda x: VIMCO(),
    "score-network": lambda x: ScoreFunction(_network(x)),
    "score-mean": lambda x: ScoreFunction("mean"),
    "score-none": lambda x: ScoreFunction("none"),
    "wake-phi": lambda x: WakePhi(),
    "straight-through": lambda x: StraightThrough(),
    "reinmax": lambda x: ReinMax(),
    "gumbel-softmax": lambda x: GumbelSoftmax(),
}
"""Every estimator by name, made for a batch x; unbiased ones first, the less noisy ones before the others."""


def standard_estimators(x: Float[Tensor, "B ..."], names: Sequence[str] | None = None) -> dict[str, GradientEstimator]:
    """The library's estimators by name; ``score-network`` has a small perceptron of x as its baseline.

    Args:
        x: A batch, which determines shape and units of that network.
        names: Names of the estimators; all by default.

    Raises:
        InputError: There is no estimator of that name.
    """
    chosen = STANDARD if names is None else names
    for name in chosen:
        if name not in STANDARD:
            raise InputError(f"there is no gradient estimator '{name}'. Estimators: {', '.join(STANDARD)}.")
    return {name: make(x) for name, make in STANDARD.items() if name in chosen}


@dataclass
class GradientDraws:
    """Gradients of a batch's mean bound, by one estimator with K samples; phi and theta separately.

    Args:
        model: The model, already in the desired mode.
        x: The batch.
        context: Named context tensors, one row per example.
        bound: Bound whose gradient is estimated.
        estimator: A separate copy: its baseline is fitted to the batch.
        num_samples: K.

    Attributes:
        parameters: Parameters of each part that has any: ``phi``, the posterior's, and ``theta``, all others.
    """

    model: VAE
    x: Tensor
    context: Context | None
    bound: Bound
    estimator: GradientEstimator
    num_samples: int
    parameters: dict[str, list[nn.Parameter]] = field(init=False)

    def __post_init__(self):
        phi = {id(parameter) for parameter in self.model.posterior.parameters()}
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        parts = {
            "phi": [parameter for parameter in trained if id(parameter) in phi],
            "theta": [parameter for parameter in trained if id(parameter) not in phi],
        }
        self.parameters = {part: members for part, members in parts.items() if members}
        if not self.parameters:
            raise InputError("the model has no trainable parameters, so there are no gradients to measure")

    def refusal(self) -> str:
        """Why there are no gradients; empty if there are."""
        try:
            q = self.model.draw(self.x, self.context, path=False).q
            self.estimator.check(q, self.bound, num_samples=self.num_samples)
            check_path(
                self.model.draw(self.x, self.context, num_samples=max(2, self.num_samples), path=self.estimator.path)
            )
            self.surrogate()
        except InputError as error:
            return str(error)
        return ""

    def surrogate(self) -> Float[Tensor, ""]:
        """The surrogate, as in a training step."""
        draw = self.model.draw(self.x, self.context, num_samples=self.num_samples, path=self.estimator.path)
        return self.estimator.surrogate(draw, self.bound, self.x, self.context).mean()

    def warm_up(self) -> None:
        """Fits the estimator's baseline to the batch, if it has one, and freezes it."""
        parameters = list(self.estimator.parameters())
        optimizer = torch.optim.Adam(parameters, lr=_RATE) if parameters else None
        self.estimator.train()
        for _ in range(_WARM_UP if self.estimator.state_dict() else 0):
            surrogate = self.surrogate()
            if optimizer is not None:
                slopes = torch.autograd.grad(-surrogate, parameters)
                for parameter, slope in zip(parameters, slopes, strict=True):
                    parameter.grad = slope
                optimizer.step()
        self.estimator.eval()

    def draw(self) -> tuple[dict[str, Tensor], float]:
        """One gradient, a vector in float64 for each part, and how long it took."""
        start = _now(self.x)
        members = [parameter for part in self.parameters.values() for parameter in part]
        gradients = torch.autograd.grad(self.surrogate(), members, allow_unused=True)
        seconds = _now(self.x) - start
        by_parameter = dict(zip(map(id, members), gradients, strict=True))
        return {
            part: torch.cat([_flat(by_parameter[id(parameter)], parameter) for parameter in of_part])
            for part, of_part in self.parameters.items()
        }, seconds


class _Observed(nn.Module):
    """The finite numbers; 0 for a cell that is missing or at a spike."""

    def forward(self, x: Tensor) -> Tensor:
        return x.where(x.isfinite(), 0)


def _network(x: Tensor) -> nn.Module:
    """A baseline: a small perceptron of x, in units of the batch."""
    deviation, mean = torch.std_mean(_Observed()(x), dim=0, correction=0)
    unit = torch.where(deviation > 0, deviation, 1.0)
    return nn.Sequential(_Observed(), Standardize(mean, unit), mlp(x[0].numel(), 1, hidden=(50,))).to(x)


def _flat(gradient: Tensor | None, parameter: nn.Parameter) -> Float[Tensor, " P"]:
    """A gradient as a vector on the CPU: only the present rows if it is sparse, zeros if there is none."""
    if gradient is None:
        return torch.zeros(parameter.numel(), dtype=torch.float64)
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return values.detach().flatten().cpu().double()


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()
