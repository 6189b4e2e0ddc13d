"""Markov chains: sequences of states, each given the one before, as prior and as posterior.

Sampling goes step by step; the density of given states is one pass over all steps of all sequences at once.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Shaped
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from subo.core import context as contexts
from subo.core.draw import Factor, divergence
from subo.errors import InputError
from subo.models.emission import check_mask, masked
from subo.runtime.arguments import checked_arguments, checked_on_failure

__all__ = ["Markov", "MarkovDistribution"]


class MarkovDistribution(Distribution):
    r"""A Markov chain of T states as one event, ``p(z) = p(z_1) prod_{t=2}^T p(z_t | z_{t-1})``.

    States are vectors, integers, one-hot categories: whatever the steps support. Given inputs that depend on x it is a
    posterior ``q(z|x) = q(z_1|x) prod_t q(z_t | z_{t-1}, h_t)``; with h_t a summary of ``x_t ... x_T`` its form is that
    of the exact posterior of a state-space model, since z_t depends on earlier data through z_{t-1} alone.

    Args:
        first: Distribution of z_1, batch shape ``()`` or ``(B,)``.
        transition: ``(previous (N, *event)) -> Distribution`` of batch shape ``(N,)``; with `inputs`,
            ``(previous (N, *event), inputs (N, ...))``.
        length: Number of steps T.
        mask: ``(B, T)``, True at real steps, a prefix of every row, which may be empty; None if all are real. Padded
            states are 0.
        inputs: ``(B, T, ...)``: the step to ``z[..., t, :]`` receives ``inputs[:, t]``, from t = 1 on.

    Raises:
        InputError: A shape, the mask, or what `transition` returned is not as above.

    Example:
        >>> from subo import StandardNormal
        >>> from subo.distributions.gaussian import Gaussian
        >>> p = MarkovDistribution(StandardNormal(2)(), lambda previous: Gaussian(previous, torch.ones(()), 1), 5)
        >>> z = p.rsample((3,))
        >>> z.shape, p.log_prob(z).shape
        (torch.Size([3, 5, 2]), torch.Size([3]))
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch's protocol)

    @checked_on_failure
    def __init__(
        self,
        first: Distribution,
        transition: Callable[..., Distribution],
        length: int,
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        inputs: Shaped[Tensor, "B T ..."] | None = None,
    ):
        if length < 1:
            raise InputError(f"a chain has at least one step: length is {length}")
        if mask is not None:
            check_mask(mask, length=length, may_be_empty=True)
        self.first, self.transition, self.length = first, transition, length
        self.mask, self.inputs = mask, inputs
        batch_shape = _batch_shape(first, mask, inputs, length)
        super().__init__(batch_shape, Size([length, *first.event_shape]), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the first step has it; :meth:`rsample` raises for a later one that does not."""
        return self.first.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        """The support of the first step, at each step."""
        return constraints.independent(self.first.support, 1)  # pyright: ignore[reportArgumentType]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Ancestral samples ``(*sample, *batch, T, *event)``, differentiable in the parameters, 0 at padded steps."""
        return self._drawn(Size(sample_shape), path=True)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The same, without a gradient."""
        with torch.no_grad():
            return self._drawn(Size(sample_shape), path=False)

    def _drawn(self, sample_shape: Size, *, path: bool) -> Tensor:
        lead, event = sample_shape + self.batch_shape, self.first.event_shape
        # taken apart once: the gradient of a slice is as large as the whole, and there would be one at each step
        inputs, real = (
            [None] * self.length if of_steps is None else of_steps.unbind(1) for of_steps in (self.inputs, self.mask)
        )
        first = _sample(self.first, lead[: len(lead) - len(self.first.batch_shape)], path=path)
        z = [masked(first.reshape(-1, *event), _rows(real[0], lead), event_dims=len(event))]
        for t in range(1, self.length):
            new = _sample(self._step(z[-1], _rows(inputs[t], lead)), Size(), path=path)
            z.append(masked(new, _rows(real[t], lead), event_dims=len(event)))
        return torch.stack(z, dim=1).reshape(*lead, self.length, *event)

    def log_prob(self, value: Tensor) -> Tensor:
        """``sum_t mask_t log p(z_t | z_{t-1})``, in nats, ``(*sample, *batch)``."""
        return self.log_prob_by_step(value).sum(-1)

    def log_prob_by_step(self, value: Tensor) -> Tensor:
        """``log p(z_t | z_{t-1})`` of each step, ``(*sample, *batch, T)``, 0 at padded ones."""
        z = self._whole(value)
        lead = z.shape[: z.ndim - self._event_dims - 1]
        by_step = self.first.log_prob(z.select(len(lead), 0)).unsqueeze(-1)
        if self.length > 1:
            new = z.narrow(len(lead), 1, self.length - 1).reshape(-1, *self.first.event_shape)
            later = self._later(z).log_prob(new).reshape(*lead, self.length - 1)
            by_step = torch.cat([by_step, later], -1)
        return masked(by_step, self.mask)

    def kl_by_step(self, p: Distribution, z: Tensor) -> Tensor | None:
        """``KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))`` of each step, ``(*sample, *batch, T)``, in nats.

        Args:
            p: Another chain.
            z: States to condition on, ``(*sample, *batch, T, *event)``; samples of this chain.

        Returns:
            The divergences, 0 at padded steps. None if p is not a chain, or a step's divergence has no closed form.
        """
        if not isinstance(p, MarkovDistribution):
            return None
        z = self._whole(z)
        lead = z.shape[: z.ndim - self._event_dims - 1]
        by_step = divergence(self.first, p.first)
        if by_step is None:
            return None
        by_step = by_step.expand(lead).unsqueeze(-1)
        if self.length > 1:
            later = divergence(self._later(z), p._later(z))
            if later is None:
                return None
            by_step = torch.cat([by_step, later.reshape(*lead, self.length - 1)], -1)
        return masked(by_step, self.mask)

    def factors(self, p: Distribution, z: Tensor) -> tuple[Factor, ...]:
        r"""The single factor of a draw of this posterior, paired with the prior p.

        With two chains the divergence is a sum over steps (the chain rule), in which only the states before a step are
        left to sample:

        .. math:: KL(q || p) = E_q \sum_t \log \frac{q(z_t | z_{t-1})}{p(z_t | z_{t-1})}
                  = \sum_t E_{q(z_{t-1})} KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))

        since the inner expectation, over z_t given z_{t-1}, is each step's divergence. The factor's ``kl`` is the sum
        at given samples, ``(K, B)``: its mean is the divergence, with less noise than ``log q(z) - log p(z)``.

        Args:
            p: The prior.
            z: Samples of this chain, ``(K, B, T, *event)``.

        Raises:
            InputError: Only one of the two chains leaves out padded steps.
        """
        if isinstance(p, MarkovDistribution):
            masks = [chain.mask for chain in (self, p) if chain.mask is not None]
            if len(masks) == 1 and not masks[0].all():
                without = "prior" if p.mask is None else "posterior"
                raise InputError(
                    f"the batch has padded steps, which the {without} counts and the other chain leaves out: the "
                    f"result is not a bound. Let the {without}'s forward take the context's mask, (B, T), and pass it "
                    "to MarkovDistribution(..., mask=mask)."
                )

        def kl() -> Tensor | None:
            by_step = self.kl_by_step(p, z)
            return None if by_step is None else by_step.sum(-1)

        return (Factor(self, p, z, kl=kl),)

    @property
    def _event_dims(self) -> int:
        return len(self.first.event_shape)

    def _whole(self, z: Tensor) -> Tensor:
        """States ``(*sample, *batch, T, *event)``, with padding of any value replaced by 0."""
        split = z.ndim - len(self.event_shape)
        if split < 0 or z.shape[split:] != self.event_shape:
            raise InputError(
                f"a chain of {self.length} states of shape {tuple(self.first.event_shape)} received values of shape "
                f"{tuple(z.shape)}; expected (..., {', '.join(map(str, self.event_shape))})"
            )
        lead = torch.broadcast_shapes(z.shape[:split], self.batch_shape)
        return masked(z.expand(lead + self.event_shape), self.mask, event_dims=self._event_dims)

    def _later(self, z: Tensor) -> Distribution:
        """``p(z_t | z_{t-1})`` for t = 2 ... T, all states at once: batch shape ``(prod(lead) (T - 1),)``."""
        previous = z.narrow(z.ndim - self._event_dims - 1, 0, self.length - 1)
        lead = previous.shape[: previous.ndim - self._event_dims]
        inputs = None if self.inputs is None else self.inputs[:, 1:].flatten(0, 1)
        return self._step(previous.reshape(-1, *self.first.event_shape), _rows(inputs, Size([*lead[:-2], -1])))

    def _step(self, rows: Tensor, inputs: Tensor | None) -> Distribution:
        """The steps from N states, ``(N, *event)``, with inputs for each."""
        event, given = self.first.event_shape, {"z": rows}
        if inputs is not None:
            given["inputs"] = inputs
        step = contexts.as_distribution("the transition", contexts.call_part("the transition", self.transition, given))
        if step.batch_shape != Size([len(rows)]) or step.event_shape != event:
            raise InputError(
                f"the transition returned batch_shape {tuple(step.batch_shape)}, event_shape "
                f"{tuple(step.event_shape)}; expected {(len(rows),)}, {tuple(event)}: one row per state that it "
                "received, over events like the first. Dimensions of one state belong to its event: wrap it in "
                "Independent(..., 1)."
            )
        return step


def _rows(values: Tensor | None, lead: Size) -> Tensor | None:
    """The rows of ``(*lead)`` chains, given those of the last of its dimensions."""
    if values is None or len(lead) == 1:
        return values
    return values.expand(*lead[:-1], *values.shape).flatten(0, len(lead) - 1)


def _sample(step: Distribution, shape: Size, *, path: bool) -> Tensor:
    if path and not step.has_rsample:
        raise InputError(
            f"a step of the chain has no rsample ({type(step).__name__}): the gradient has no path from z to its "
            "parameters. Use ScoreFunction, or a family that has a path."
        )
    return step.rsample(shape) if path else step.sample(shape)


def _batch_shape(first: Distribution, mask: Tensor | None, inputs: Tensor | None, length: int) -> Size:
    """``()``, or the ``(B,)`` that all inputs agree on."""
    if inputs is not None and (inputs.ndim < 2 or inputs.shape[1] != length):
        raise InputError(
            f"inputs have the shape {tuple(inputs.shape)}; expected (B, {length}, ...), the input of each of the "
            f"chain's {length} steps in addition to the previous state"
        )
    known = {"first step": first.batch_shape} if len(first.batch_shape) else {}
    known |= {name: t.shape[:1] for name, t in (("mask", mask), ("inputs", inputs)) if t is not None}
    if len(set(known.values())) > 1 or any(len(shape) != 1 for shape in known.values()):
        sizes = ", ".join(f"{name} {tuple(shape)}" for name, shape in known.items())
        raise InputError(f"the parts of a chain have different batch shapes: {sizes}; expected one (B,) for all")
    return next(iter(known.values()), Size())


class Markov(nn.Module):
    """A Markov chain as prior, ``p(z) = p(z_1) prod_t p(z_t | z_{t-1})``, one transition for all steps.

    Its length is that of the batch's `mask`, ``(B, T)`` in the context, if there is one: sequences of different
    lengths, padded. With `previous`, ``(B, *event)``, the last states of an earlier window, it goes on from these: then
    ``p(z_1) = p(z_1 | previous)``.

    Args:
        initial: ``() -> p(z_1)``, batch shape ``()``.
        transition: ``(N, *event) -> p(z_t | z_{t-1})``, batch shape ``(N,)``.
        length: Number of steps T, if there is no mask.

    Example:
        >>> from subo import Conditional, Gaussian, StandardNormal, mlp
        >>> prior = Markov(StandardNormal(2), Conditional(Gaussian((2,)), mlp(2, 4)), length=5)
        >>> prior().sample((3,)).shape
        torch.Size([3, 5, 2])
        >>> prior(torch.tensor([[True, True, True], [True, False, False]])).sample().shape
        torch.Size([2, 3, 2])
    """

    @checked_arguments
    def __init__(self, initial: nn.Module, transition: nn.Module, *, length: int | None = None):
        super().__init__()
        self.initial = initial
        self.transition = transition
        self.length = length

    def forward(
        self, mask: Bool[Tensor, "B T"] | None = None, previous: Shaped[Tensor, "B ..."] | None = None
    ) -> MarkovDistribution:
        if mask is not None:
            check_mask(mask, may_be_empty=previous is not None)
        length = self.length if mask is None else mask.shape[-1]
        if length is None:
            raise InputError(
                "a Markov chain is as long as the batch's mask, but this batch has none. Pass context={'mask': ...}, "
                "(B, T) booleans, with the data, or give the chain a length: Markov(..., length=T)."
            )
        first = self.initial() if previous is None else self.transition(previous)
        return MarkovDistribution(first, self.transition, length, mask=mask)
