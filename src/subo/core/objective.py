"""The objective: a model, the bound to be maximized, and how the bound's gradient is estimated."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from subo.core.bounds import ELBO, Bound, reported
from subo.core.draw import LatentVariableModel
from subo.core.estimator import GradientEstimator, Pathwise
from subo.core.offers import Tempered
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments, checked_on_failure
from subo.typing import Context, map_latent

__all__ = ["Loss", "Objective"]


class Loss(NamedTuple):
    """One training step's numbers, in nats per example; all but `loss` are detached.

    A tuple, since precision and data-parallel wrappers look for tensors inside what ``forward`` returns.

    Attributes:
        loss: Loss to be minimized; its value is minus the mean bound, its gradient the estimator's.
        bound: Bound on log p(x); with ELBO, always at beta 1 and without free bits.
        objective: What is maximized, at the KL's full weight: the bound, as modified by beta and free bits.
        rate: ``KL(q || p)`` of each stochastic layer.
        distortion: ``-E_q[log p(x|z)]``.
        z: The samples of z, ``(K, B, ...)``, if they were asked for.
    """

    loss: Float[Tensor, ""]
    bound: Float[Tensor, " B"]
    objective: Float[Tensor, " B"]
    rate: Float[Tensor, "L B"]
    distortion: Float[Tensor, " B"]
    z: Any = None

    @property
    def elbo(self) -> Float[Tensor, " B"]:
        """``-(rate + distortion)``, whatever the bound, beta and free bits."""
        return -(self.rate.sum(0) + self.distortion)

    def nonfinite(self) -> str | None:
        """Which term is not finite, and for how many examples; None if all are."""
        terms = {"distortion (-log p(x|z))": self.distortion, "rate (KL)": self.rate.sum(0), "bound": self.bound}
        for name, values in terms.items():
            bad = ~values.isfinite()
            if bad.any():
                return f"the {name} is {values[bad][0].item()} for {int(bad.sum())} of {len(values)} examples"
        return None


class Objective(nn.Module):
    """What is trained: ``forward(x, context)`` is the training step.

    The bound's value and the estimator's surrogate are combined as
    ``loss = mean(stop_gradient(surrogate) - surrogate - bound)``: the value of the one, the gradient of the other.

    Args:
        model: The latent-variable model; a module.
        bound: Bound to be maximized, ``Draw -> (B,)``.
        gradient: Estimator of its gradient; :class:`~subo.Pathwise` by default.
        num_samples: Number of samples K.

    Example:
        >>> from subo import IWAE, probabilistic_pca
        >>> objective = Objective(probabilistic_pca(5, 2), IWAE(), num_samples=10)
        >>> objective(torch.zeros(3, 5)).bound.shape
        torch.Size([3])
    """

    @checked_arguments
    def __init__(
        self,
        model: LatentVariableModel,
        bound: Bound = ELBO(),
        *,
        gradient: GradientEstimator | None = None,
        num_samples: int = 1,
    ):
        super().__init__()
        path = getattr(gradient or Pathwise, "path", None)
        if not (isinstance(path, bool) or callable(path)):
            raise InputError(
                f"a gradient estimator's path must be True (rsample), False (sample) or a function of q and the sample "
                f"shape; {type(gradient).__name__} has {path!r}. An estimator is an instance: ScoreFunction()."
            )
        self.model: Any = model  # a LatentVariableModel and a module, which no single Python type expresses
        self.bound = bound
        self.gradient = gradient or Pathwise()
        self.num_samples = num_samples

    @checked_on_failure
    def forward(
        self,
        x: Tensor,
        context: Context | None = None,
        *,
        kl_weight: float = 1.0,
        as_elbo: bool = False,
        keep_z: bool = False,
    ) -> Loss:
        """The loss on a batch.

        Args:
            x: Data, ``(B, ...)``.
            context: Named context tensors, leading axis B.
            kl_weight: Factor on the KL's weight in what training follows (KL warm-up); never in what is reported. A
                recorded or compiled step gives a tensor of one number, which is read anew at every step.
            as_elbo: Whether training follows the ELBO with one sample in place of the bound, see :meth:`elbo`.
            keep_z: Whether the loss comes with the samples of z.
        """
        if as_elbo:
            try:
                return self.elbo()(x, context, kl_weight=kl_weight, keep_z=keep_z)
            except InputError as error:
                raise InputError(f"in the epochs that follow the ELBO: {error}") from error
        draw = self.model.draw(x, context, num_samples=self.num_samples, path=self.gradient.path)
        self.gradient.check(draw.q, self.bound, num_samples=self.num_samples)
        followed, honest = self.followed(kl_weight), reported(self.bound)
        surrogate = self.gradient.surrogate(draw, followed, x, context)
        if surrogate.shape != x.shape[:1]:
            raise InputError(
                f"{type(self.gradient).__name__}'s surrogate has shape {tuple(surrogate.shape)}; expected one number "
                f"per example, {tuple(x.shape[:1])}: the bound and the estimator reduce over K, but not over the data"
            )
        with torch.no_grad():
            rates = [factor.rate() for factor in draw.factors]
            rate = rates[0].unsqueeze(0) if len(rates) == 1 else torch.stack(rates)
            distortion = -draw.expected_log_likelihood
            known = not isinstance(kl_weight, Tensor)
            same = (
                type(self.gradient) is Pathwise and known and followed == honest
            )  # the surrogate's value is the bound's
            bound = surrogate.detach() if same else honest(draw)
            objective = bound if honest == self.bound else self.bound(draw)
        loss = -surrogate.mean() if same else (surrogate.detach() - surrogate - bound).mean()
        z = map_latent(Tensor.detach, draw.z) if keep_z else None
        return Loss(loss, bound, objective, rate.detach(), distortion, z)

    def elbo(self) -> "Objective":
        """The objective of the same model whose bound is the ELBO with one sample.

        Its estimator is the same, but pathwise for all that follow the path through z, such as DReG.

        One sample costs less than K, and with K the signal-to-noise ratio of IWAE's pathwise gradient for the encoder
        falls as K^(-1/2), while that for the decoder rises as K^(1/2) (Rainforth et al., 2018, theorem 1).
        """
        return Objective(self.model, gradient=Pathwise() if self.gradient.path is True else self.gradient)

    def followed(self, kl_weight: float) -> Bound:
        """The bound whose gradient training follows while the KL has this weight.

        Raises:
            InputError: The weight is not 1, and the bound has no KL of its own.
        """
        if not isinstance(kl_weight, Tensor) and kl_weight == 1:
            return self.bound
        if not isinstance(self.bound, Tempered):
            raise InputError(
                f"KL warm-up weights the KL of an ELBO, but {type(self.bound).__name__} has no KL of its own. "
                "Leave the warm-up out, or train with ELBO."
            )
        return self.bound.tempered(kl_weight)
