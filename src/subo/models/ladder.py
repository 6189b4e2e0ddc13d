"""Ladder autoencoders: any number of layers of latents in one top-down pass, shared by prior and posterior.

A deterministic bottom-up pass computes features of x at every level. The top-down pass carries a state h: at each
block the prior is ``p(z_l | h)``, the posterior ``q(z_l | h, features_l)``, and h is updated with z_l.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.core.draw import Draw, Factor, sum_layers
from subo.errors import InputError
from subo.models.blocks import Block
from subo.models.folding import Unfolded, log_prob_of_samples, sampled
from subo.models.ladder_posterior import Choice, LadderPosterior
from subo.runtime.arguments import checked_arguments, checked_on_failure
from subo.typing import Context, Latent, Path

__all__ = ["Ladder"]


class Ladder(nn.Module):
    r"""A top-down autoencoder, ``p(x, z) = p(z_L) prod_l p(z_l | z_{>l}) p(x | z)``, with q in the same order.

    .. math:: q(z | x) = q(z_L | x) \prod_{l < L} q(z_l | z_{>l}, x)

    (Sonderby et al., 2016; with residual blocks, Child, 2021). The layers above z_l reach it, in p as in q, through the
    shared state h. The rate is then a sum of divergences in closed form, layer by layer,

    .. math:: E_q \Big[ \log \frac{q(z|x)}{p(z)} \Big]
        = \sum_l E_{q(z_{>l} | x)} \, KL( q(z_l | z_{>l}, x) \,||\, p(z_l | z_{>l})),

    since z_l is drawn after its parents, and both of its densities depend on them alone: given z_{>l}, the mean over
    z_l of ``log q - log p`` is their divergence.

    Latents are a dict: ``z3``, ``z2``, ``z1``, top first, so that z1 is nearest to x. The K samples of an example are
    folded into the batch below the top layer, and modules handle ordinary rows. The context reaches the bottom-up pass
    and the likelihood, whose calls declare the names that they need.

    Args:
        blocks: The layers, top first.
        bottom_up: ``x -> features``, one tensor per block, top first, such as :class:`BottomUp`.
        likelihood: ``(N, *state) -> p(x | z)``, from the state below the last block.
        start: State above the first block, without a batch axis; it is learned.

    Example:
        >>> from subo import Bernoulli, Block, BottomUp, Conditional, Correction, Gaussian, Update, mlp
        >>> def block(dim, width):
        ...     prior = Conditional(Gaussian((dim,)), nn.Linear(width, 2 * dim))
        ...     proposal = Conditional(Gaussian((dim,)), nn.Linear(2 * width, 2 * dim))
        ...     return Block(prior, Correction(proposal), Update(nn.Linear(dim, width), mlp(width, width)))
        >>> model = Ladder(
        ...     [block(2, 16), block(4, 16)],
        ...     BottomUp(mlp(64, 16), mlp(16, 16)),
        ...     Conditional(Bernoulli((64,)), mlp(16, 64)),
        ...     start=torch.zeros(16),
        ... )
        >>> draw = model.draw(torch.zeros(5, 64), num_samples=3)
        >>> draw.log_weight.shape, {name: tuple(leaf.shape) for name, leaf in draw.z.items()}
        (torch.Size([3, 5]), {'z2': (3, 5, 2), 'z1': (3, 5, 4)})
    """

    bottom_up: Any  # as a VAE's parts
    likelihood: Any

    @checked_arguments
    def __init__(
        self, blocks: Sequence[Block], bottom_up: nn.Module, likelihood: nn.Module, *, start: Float[Tensor, "..."]
    ):
        super().__init__()
        if not blocks:
            raise InputError("a ladder needs at least one block: Ladder([Block(prior, posterior, update)], ...)")
        self.blocks = nn.ModuleList(blocks)
        self.bottom_up = bottom_up
        self.likelihood = likelihood
        self.start = nn.Parameter(start.detach().clone())

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, top first."""
        return tuple(f"z{number}" for number in range(len(self.blocks), 0, -1))

    @property
    def posterior(self) -> nn.ModuleList:
        """The modules whose parameters are phi: the bottom-up pass and each block's posterior."""
        blocks: Any = self.blocks
        return nn.ModuleList([self.bottom_up, *(block.posterior for block in blocks)])

    @checked_on_failure
    def draw(
        self, x: Float[Tensor, "B ..."], context: Context | None = None, *, num_samples: int = 1, path: Path = True
    ) -> Draw:
        """K samples of q(z|x) per example, with one factor per layer, top first.

        Args:
            x: Data.
            context: Named context tensors, leading axis B.
            num_samples: Number of samples K.
            path: Whether the samples are differentiable in the parameters of q (``rsample``), or a function that draws
                them so, layer by layer.

        Raises:
            InputError: A module returned the wrong shape, or `path` is requested from a layer that has none.
        """
        if num_samples < 1:
            raise InputError(f"num_samples must be at least 1, not {num_samples}")
        lead, features, factors, leaves = (num_samples, len(x)), self.features(x, context), [], {}

        def choose(name: str, p: Distribution, q: Any) -> Tensor:
            # Below the top, q has K in its batch even where K is 1: its divergence depends on the samples above.
            shape = Size() if factors else Size([num_samples])
            z, log_posterior = sampled(q, shape, path=path)
            if factors:
                (p, q), z = _unfolded(lead, p, q), z.unflatten(0, lead)
                log_posterior = None if log_posterior is None else log_posterior.unflatten(0, lead)
            factors.append(Factor(q, p, z, log_posterior=log_posterior))
            leaves[name] = z
            return z.flatten(0, 1)

        h = self.descend(choose, features)
        q = LadderPosterior(self.descend, features, has_rsample=all(factor.q.has_rsample for factor in factors))
        return Draw(leaves, q, tuple(factors), lambda: self._log_likelihood(x, h, num_samples, context))

    @checked_on_failure
    def log_prior(self, z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(z)`` at given latents, leaves ``(K, B, *event)``."""
        return self._densities(z)[0]

    @checked_on_failure
    def log_joint(self, x: Shaped[Tensor, "B ..."], z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(x, z)`` at given latents, leaves ``(K, B, *event)``, by one top-down pass."""
        log_prior, h = self._densities(z)
        return log_prior + self._log_likelihood(x, h, len(log_prior), context)

    @checked_arguments
    def sample(
        self, num_samples: int, context: Context | None = None, *, fixed: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], Distribution]:
        """Latents from the prior, or from the prior given some upper layers, and the data's distribution at each.

        Args:
            num_samples: Number of samples.
            context: One row per sample, if the model needs any.
            fixed: Upper layers to be held fixed, leaves ``(num_samples, *event)``; those below are drawn given them.

        Returns:
            z, leaves ``(num_samples, *event)``, and p(x|z), batch shape ``(num_samples,)``.

        Raises:
            InputError: The fixed layers are not the topmost ones, or do not have `num_samples` rows.
        """
        held = fixed or {}
        if set(held) != set(self.names[: len(held)]):
            raise InputError(
                f"the fixed layers are {', '.join(held)}; expected the first ones of {', '.join(self.names)}: a layer "
                "is drawn given those above it, so no layer above a fixed one can be free"
            )
        wrong = [name for name, leaf in held.items() if len(leaf) != num_samples]
        if wrong:
            raise InputError(f"{wrong[0]} has {len(held[wrong[0]])} rows, but {num_samples} samples are to be drawn")
        z: dict[str, Tensor] = {}

        def choose(name: str, p: Distribution, q: Distribution | None) -> Tensor:
            shape = Size() if z else Size([num_samples])  # the top has a batch of one row
            z[name] = held[name] if name in held else p.sample(shape).reshape(num_samples, *p.event_shape)
            return z[name]

        h = self.descend(choose)
        return z, _checked(self._decoded(h, context), "the likelihood", num_samples)

    @checked_arguments
    @torch.no_grad()
    def sample_below(self, rows: int, columns: int) -> Float[Tensor, "L rows columns ..."]:
        """What each layer decides: means of p(x|z), where a row shares all layers above one and redraws the others.

        Args:
            rows: Number of samples of the upper layers.
            columns: Number of samples below each of them.

        Returns:
            One grid per layer, top first, ``(L, rows, columns, *event)``; in the first nothing is shared. For
            :func:`subo.figures.layers`.
        """
        held, squares = {}, []
        for name in self.names:
            fixed = {above: leaf.repeat_interleave(columns, 0) for above, leaf in held.items()}
            z, p = self.sample(rows * columns, fixed=fixed)
            squares.append(p.mean.unflatten(0, (rows, columns)))
            held[name] = z[name][::columns]
        return torch.stack(squares)

    @checked_on_failure
    def decode(self, z: Latent, context: Context | None = None) -> Distribution:
        """p(x|z) at given latents, leaves ``(N, *event)``, and as many rows of context."""
        leaves = self._layers(z)
        h = self.descend(lambda name, p, q: leaves[name])
        return self._decoded(h, context)

    def features(self, x: Tensor, context: Context | None = None) -> list[Tensor]:
        """The features of x, one tensor of B rows per block, top first."""
        found = list(contexts.call_part("the pass up", self.bottom_up, {"x": x}, context))
        if len(found) != len(self.blocks) or any(len(f) != len(x) for f in found):
            raise InputError(
                f"the bottom-up pass returned features of shapes {[tuple(f.shape) for f in found]}; expected a tensor "
                f"of {len(x)} rows for each of {len(self.blocks)} blocks, top first"
            )
        return found

    def descend(self, choose: Choice, features: Sequence[Tensor] | None = None) -> Tensor:
        """One top-down pass.

        Args:
            choose: Returns each layer's rows, ``(K * B, *event)``. The top prior has batch shape ``(1,)`` and the top
                posterior ``(B,)``; below, both have one row for each row chosen above.
            features: Output of :meth:`features`; without it there is no posterior.

        Returns:
            The state below the last block.
        """
        h = self.start.unsqueeze(0)
        of_data = [None] * len(self.blocks) if features is None else features
        for name, module, of_x in zip(self.names, self.blocks, of_data, strict=True):
            block: Any = module
            part = f"the prior of {name}"
            p, q = _checked(contexts.call_part(part, block.prior, {"h": h}), part, len(h)), None
            if of_x is not None:
                above = h.expand(len(of_x), *h.shape[1:]) if name == self.names[0] else h
                rows = of_x.expand(len(above) // len(of_x), *of_x.shape).flatten(0, 1)
                part, given = f"the posterior of {name}", {"h": above, "features": rows, "p": p}
                q = _checked(contexts.call_part(part, block.posterior, given), part, len(above), p.event_shape)
            z = choose(name, p, q)
            wanted = (len(z) if name == self.names[0] else len(h), *p.event_shape)
            if z.shape != wanted:
                raise InputError(
                    f"rows of {name} have the shape {tuple(z.shape)}; expected {wanted}, with its prior's event shape. "
                    "Usually the latents belong to another model: give one row of every layer per sample."
                )
            h = contexts.call_part(
                f"the update below {name}", block.update, {"h": h.expand(len(z), *h.shape[1:]), name: z}
            )
        return h

    def _densities(self, z: Latent) -> tuple[Tensor, Tensor]:
        """``log p(z)``, ``(K, B)``, and the state below the last block."""
        z = self._layers(z)
        rows = {name: leaf.flatten(0, 1) for name, leaf in z.items()}
        priors: dict[str, Distribution] = {}

        def choose(name: str, p: Distribution, q: Distribution | None) -> Tensor:
            priors[name] = p
            return rows[name]

        h = self.descend(choose)
        terms = [p.log_prob(rows[name]) for name, p in priors.items()]
        return sum_layers(terms).unflatten(0, z[self.names[0]].shape[:2]), h

    def _layers(self, z: Latent) -> dict[str, Tensor]:
        if isinstance(z, Tensor) or set(z) != set(self.names):
            came = "one tensor" if isinstance(z, Tensor) else ", ".join(z) or "none"
            raise InputError(f"latents of a ladder are a dict of {', '.join(self.names)}; got {came}")
        return z

    def _decoded(self, h: Tensor, context: Context | None) -> Any:
        return contexts.call_part("the likelihood", self.likelihood, {"h": h}, context)

    def _log_likelihood(self, x: Tensor, h: Tensor, num_samples: int, context: Context | None) -> Tensor:
        """``log p(x | z)``, ``(K, B)``, from the state below the last block."""
        if num_samples > 1:
            contexts.check_same_rows("the likelihood", {"x": x}, context or {})  # before rows are those of samples
        p = self._decoded(h, contexts.repeat(context, num_samples))
        _checked(p, "the likelihood", num_samples * len(x), x.shape[1:])
        return log_prob_of_samples(p, x, num_samples)


def _unfolded(lead: tuple[int, int], *ps: Any) -> list[Any]:
    """Reshapes distributions over ``K * B`` rows to batch shape ``(K, B)``, all alike: divergences go by type pairs."""
    views = all(hasattr(p, "unflatten") for p in ps)
    return [p.unflatten(lead) if views else Unfolded(p, Size(lead)) for p in ps]


def _checked(p: Any, part: str, rows: int, event_shape: Size | None = None) -> Distribution:
    wanted = "any" if event_shape is None else tuple(event_shape)
    p = contexts.as_distribution(part, p)
    if p.batch_shape != Size([rows]) or event_shape not in (None, p.event_shape):
        raise InputError(
            f"{part} returned batch_shape {tuple(p.batch_shape)}, event_shape {tuple(p.event_shape)}; expected "
            f"({rows},), {wanted}. The batch shape is the number of rows it received, the event shape that of one "
            "latent or example: wrap elements in Independent(..., 1)."
        )
    return p
