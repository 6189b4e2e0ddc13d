"""How far the aggregate posterior is from independent latents: the marginal KL, split in two."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent

from subo.core.draw import Draw, LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.distributions.gaussian import finite_density
from subo.evaluation.latents.information import MutualInformation, encode, log_densities, standard_error
from subo.evaluation.latents.usage import marginals
from subo.evaluation.numbers import ALONE, CARRIED, Beside, Number
from subo.runtime.devices import evaluating
from subo.runtime.randomness import forked

__all__ = ["Information", "TotalCorrelation", "total_correlation"]


@dataclass(frozen=True)
class TotalCorrelation:
    """The marginal KL, split in two: ``KL(q(z) || p(z)) = total correlation + dimension-wise KL``, in nats.

    All three are means over the same samples, so that the identity also holds for the estimates. Standard errors are
    those over samples, for these data; infinite with one sample per example, where they are unknown. If the prior
    receives a class c, q(z), q(z_d), p(z) and p(z_d) are given c, and all three are means over the classes.

    Attributes:
        value: ``KL(q(z) || prod_d q(z_d))``: 0 if the dimensions of the aggregate posterior are independent.
        standard_error: Standard error of `value`.
        dimension_kl: ``sum_d KL(q(z_d) || p(z_d))``; None if the prior does not factorize, or differs for nearly every
            example.
        dimension_kl_se: Standard error of `dimension_kl`.
        marginal_kl: ``KL(q(z) || p(z))``; None if the prior differs for nearly every example.
        marginal_kl_se: Standard error of `marginal_kl`.
        num_data: N.
        num_samples: K, for each example.
        given: Names of the context that the prior receives, which defines the classes for all terms; empty if it
            receives none.
    """

    value: float
    standard_error: float
    dimension_kl: float | None
    dimension_kl_se: float | None
    marginal_kl: float | None
    marginal_kl_se: float | None
    num_data: int
    num_samples: int
    given: tuple[str, ...] = ()

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The total correlation, and the KL of the dimensions if the prior factorizes."""
        within = " within classes" if self.given else ""
        how, counts = "the same samples", (self.num_samples, self.num_data)
        name = f"total correlation{within}"
        yield Number(CARRIED, name, self.value, self.standard_error, "nats", how, *counts)
        if self.dimension_kl is not None:
            name = f"KL of the dimensions{within}"
            yield Number(CARRIED, name, self.dimension_kl, self.dimension_kl_se, "nats", how, *counts)


@dataclass(frozen=True)
class Information:
    """The rate split in two, and its second part, the marginal KL, split again; all from the same samples.

    Attributes:
        mutual: The mutual information and the marginal KL.
        total: The total correlation; None if the marginals of q are not known.
    """

    mutual: MutualInformation
    total: TotalCorrelation | None

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The lines of both."""
        yield from self.mutual.numbers(beside)
        if self.total is not None:
            yield from self.total.numbers(beside)


@takes_data
@torch.no_grad()
def total_correlation(
    model: LatentVariableModel, split: Split, *, max_data: int = 1000, num_samples: int = 4, seed: int = 0
) -> TotalCorrelation | None:
    r"""Estimates the total correlation of the latents under the aggregate posterior.

    .. math:: \mathrm{TC} = \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)
              = E_{q(z)} \Big[ \log q(z) - \sum_d \log q(z_d) \Big],
              \qquad q(z_d) = \frac1N \sum_j q(z_d | x_j)

    (Chen et al., 2018, equation 2). Both mixtures are over all N examples, so that only the samples of z are random and
    the estimate is unbiased; the minibatch weights used to train beta-TCVAE are not. The samples are those of
    :func:`~subo.evaluation.mutual_information` with the same arguments. Each of the N K samples is compared with all N
    posteriors, once as a whole and once dimension by dimension: the time grows with N^2 K D, memory does not. With
    `max_data` as large as the split, q(z) is the aggregate posterior of all its data. If the prior receives a class,
    the mixtures are over the examples of that class, as there.

    Args:
        model: A model with a single tensor as latent and a posterior whose ``log_prob`` broadcasts.
        split: The data.
        max_data: Largest N; if there are more examples, N are chosen at random, the same at every call with the same
            seed.
        num_samples: K.
        seed: Seed for the choice of examples, their bits and the samples.

    Returns:
        The record, or None if q(z_d | x) is not known: it is for distributions that factorize over dimensions and for
        Gaussians, but not for flows. A one-hot category is one dimension, for any number of classes.

    Raises:
        InputError: There are no data, `max_data` or `num_samples` is below 1, or the latent is not a single tensor.

    Example:
        >>> from subo import probabilistic_pca
        >>> found = total_correlation(probabilistic_pca(5, 2), Split(torch.randn(100, 5)))
        >>> abs(found.marginal_kl - found.value - found.dimension_kl) < 1e-9
        True
    """
    with evaluating(model), forked(seed):
        encoded = encode(model, split, max_data=max_data, num_samples=num_samples, seed=seed)
        draws, z, classes = encoded.draws, encoded.z, encoded.classes
        of_dimensions = [marginals(draw.q) for draw in draws]
        known = [finite_density(q) for q in of_dimensions if q is not None]
        if len(known) < len(draws):
            return None
        _, log_aggregate = log_densities([draw.q for draw in draws], z, classes)
        log_dimensions = log_densities(known, z, classes)[1].flatten(2)
    log_product = log_dimensions.sum(2)
    correlation, marginal, by_dimension = (
        log_aggregate - log_product,
        log_aggregate - encoded.log_prior,
        log_product - encoded.log_prior,
    )
    factorizes = encoded.comparable and all(_factorizes(draw, log_dimensions) for draw in draws)
    return TotalCorrelation(
        value=correlation.mean().item(),
        standard_error=standard_error(correlation),
        dimension_kl=by_dimension.mean().item() if factorizes else None,
        dimension_kl_se=standard_error(by_dimension) if factorizes else None,
        marginal_kl=marginal.mean().item() if encoded.comparable else None,
        marginal_kl_se=standard_error(marginal) if encoded.comparable else None,
        num_data=z.shape[1],
        num_samples=num_samples,
        given=() if classes is None else classes.names,
    )


def _factorizes(draw: Draw, log_dimensions: Float[Tensor, "K N D"]) -> bool:
    """Whether the prior is a product over the same dimensions as q's marginals."""
    p = draw.factors[0].p
    return (
        isinstance(p, Independent) and p.base_dist.batch_shape[len(p.batch_shape) :].numel() == log_dimensions.shape[2]
    )
