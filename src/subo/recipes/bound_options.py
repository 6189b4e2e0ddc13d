"""Option groups of what training follows: the bound on log p(x), and the estimator of its gradient."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from torch import nn

from subo.core.bounds import BOUNDS, Bound
from subo.errors import InputError
from subo.gradients import ESTIMATORS, GradientEstimator
from subo.parts.networks import mlp
from subo.parts.registry import PRIORS, made, options_of
from subo.recipes.data_size import DataSize
from subo.recipes.ends import Ends
from subo.recipes.options import Rule

if TYPE_CHECKING:  # for type checkers, names from tables are any text
    BoundName: TypeAlias = str
    GradientName: TypeAlias = str
else:
    BoundName = Literal[*BOUNDS]
    GradientName = Literal["auto", *ESTIMATORS]

__all__ = ["BoundOptions", "GradientOptions"]


@dataclass(frozen=True)
class BoundOptions:
    """The bound on log p(x) that training follows.

    Args:
        bound: Bound to be maximized.
        num_samples: Number of samples K of z per example in training.
        beta: Weight of the KL in elbo's gradient; what is reported has weight 1.
        free_bits: Nats per example and layer below which elbo's gradient ignores the layer's KL.
        closed_form_kl: Whether elbo's KL is computed in closed form where possible.
        alpha: Order of the renyi bound.
        groups: Number of groups of samples in the miwae bound; one gives iwae, as many as samples give elbo.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"bound": BOUNDS}

    bound: BoundName = "elbo"
    num_samples: int = 1
    beta: float = 1.0
    free_bits: float = 0.0
    closed_form_kl: bool = True
    alpha: float = 0.5
    groups: int = 2

    def build(self) -> Bound:
        """The bound for this number of samples."""
        name = self.bound
        if name != "elbo" and (self.beta != 1 or self.free_bits != 0):
            raise InputError(f"beta and free_bits weight the KL of the bound elbo; {name} has none of its own")
        if name == "miwae" and self.num_samples % self.groups:
            raise InputError(
                f"miwae splits the samples into equal groups: num_samples {self.num_samples} is not a multiple of "
                f"{self.groups}"
            )
        if name in ("iwae", "renyi") and self.num_samples == 1:
            raise InputError(f"the bound {name} with one sample is the ELBO: increase num_samples, or use elbo")
        return made(BOUNDS[name], **asdict(self))


def _fitting_gradient(options: Mapping[str, Any], size: DataSize | None) -> str:
    """What ``gradient`` auto stands for."""
    if options.get("posterior") not in PRIORS:  # and so is not discrete
        return "pathwise"
    return "vimco" if options["bound"] == "iwae" else "score-function"


def _fitting_baseline(options: Mapping[str, Any], size: DataSize | None) -> str:
    """What ``baseline`` auto stands for; none for an estimator without one."""
    if "baseline" not in options_of(ESTIMATORS[options["gradient"]]):
        return "none"
    return "leave-one-out" if options["num_samples"] > 1 and options["bound"] == "elbo" else "mean"


@dataclass(frozen=True)
class GradientOptions:
    """How the bound's gradient is estimated.

    Args:
        gradient: Estimator of the bound's gradient; auto selects pathwise, and for discrete latents vimco with iwae,
            else score-function. straight-through, reinmax and gumbel-softmax are biased, wake-phi follows another
            objective.
        baseline: Baseline of score-function: a running mean, leave-one-out over the samples, or a network of x; auto
            selects leave-one-out if there are enough samples, else the mean.
        normalize_signal: Whether score-function divides its signal by a running standard deviation.
        temperature: Temperature of gumbel-softmax.
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"gradient": ESTIMATORS}
    AUTO: ClassVar[Mapping[str, Rule]] = {"gradient": _fitting_gradient, "baseline": _fitting_baseline}

    gradient: GradientName = "auto"
    baseline: Literal["auto", "none", "mean", "leave-one-out", "network"] = "auto"
    normalize_signal: bool = False
    temperature: float = 0.5

    def build(self, ends: Ends) -> GradientEstimator:
        """The estimator, for such data."""
        takes_baseline = "baseline" in options_of(ESTIMATORS[self.gradient])
        if not takes_baseline and (self.baseline != "none" or self.normalize_signal):
            raise InputError(
                f"baseline and normalize_signal are settings of the gradient score-function, not of {self.gradient}"
            )
        baseline: Any = self.baseline
        if baseline == "network":
            baseline = nn.Sequential(ends.entry(), mlp(ends.inputs.numel(), 1, hidden=(100,)))
        return made(ESTIMATORS[self.gradient], **{**asdict(self), "baseline": baseline})
