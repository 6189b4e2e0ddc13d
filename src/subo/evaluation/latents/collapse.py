"""Has the posterior collapsed? Which dimensions carry nothing, in words, and what to try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from subo.errors import InputError
from subo.evaluation.latents.usage import ACTIVE_VARIANCE, COLLAPSED_KL, LatentUsage

__all__ = ["Verdict", "remedies", "verdict"]

Layers = Sequence[tuple[str, int]]

_SLIGHT = 0.1  # nats of rate below which little information is carried, regardless of the dimensions
_DELTA = 0.01  # fraction of the data for which a collapsed dimension may still carry something


@dataclass(frozen=True)
class Verdict:
    """Whether the posterior has collapsed to the prior.

    Attributes:
        kind: ``none``: no dimension is known to carry nothing; ``partial``: some dimensions carry nothing, which is how
            a model prunes what it does not need; ``full``: all carry nothing, which is posterior collapse.
        collapsed: The dimensions that carry nothing, counted from 0.
        text: The verdict in words, with dimensions counted from 1 as in the figures, and what to try.
    """

    kind: Literal["none", "partial", "full"]
    collapsed: tuple[int, ...]
    text: str


def verdict(usage: LatentUsage, rate: float | None = None, *, settings: Mapping[str, Any] | None = None) -> Verdict:
    r"""Judges from the usage of each dimension whether the posterior has collapsed.

    Dimension d has collapsed if its posterior is the prior for nearly all data,

    .. math:: \Pr\nolimits_x \left[ \mathrm{KL}(q(z_d|x) \,\|\, p(z_d)) < \varepsilon \right] \ge 1 - \delta,
              \qquad \varepsilon = 0.01 \text{ nats}, \quad \delta = 0.01

    (Lucas et al., 2019, definition 1). If the KL of a dimension is not known, with a flow or a prior that does not
    factorize, inactivity is used instead: the variance of its posterior means is at most 0.01 (Burda et al., 2016,
    section 5). The collapse is full if all dimensions have collapsed or the rate is below epsilon; but there is none if
    all are only known to be inactive and the rate is not slight (0.1 nats): then z does carry information.

    Args:
        usage: Result of :func:`~subo.evaluation.latent_usage`.
        rate: ``KL(q || p)`` of all of z, in nats per example, if known.
        settings: Training settings, as for :func:`remedies`.

    Raises:
        InputError: There are no data.

    Example:
        >>> from subo import probabilistic_pca
        >>> from subo.data.splits import Split
        >>> from subo.evaluation import latent_usage
        >>> verdict(latent_usage(probabilistic_pca(5, 2), Split(torch.randn(100, 5)))).kind
        'none'
    """
    num_data = len(usage.means)
    if num_data == 0:
        raise InputError("whether a posterior has collapsed is judged from data, but there are none")
    by_kl = usage.share_collapsed is not None
    gone = usage.share_collapsed >= 1 - _DELTA if usage.share_collapsed is not None else ~usage.active
    collapsed, size = tuple(gone.nonzero()[:, 0].tolist()), len(gone)
    empty = rate is not None and rate < COLLAPSED_KL
    everything = len(collapsed) == size
    known = [] if rate is None else [f"The rate is {rate:.3g} nats per example."]
    kind: Literal["none", "partial", "full"]
    if everything and not by_kl and rate is not None and rate >= _SLIGHT:  # yet z carries information
        kind, collapsed, sentences = "none", (), [_quiet(size, rate)]
    elif everything or empty:
        kind, sentences = "full", [_full(size), *known, _to_try(settings)]
    elif collapsed:
        kind, sentences = "partial", [_partial(collapsed, size, usage.layers, settings, by_kl=by_kl)]
    else:
        kind, sentences = "none", [_none(size)]
    if kind != "full" and rate is not None and rate < _SLIGHT:
        sentences.append(
            f"But the rate is only {rate:.3g} nats per example: z carries almost no information about x. "
            f"{_to_try(settings)}"
        )
    idle = (~usage.active & ~gone).nonzero()[:, 0].tolist() if by_kl and kind != "full" else []
    if idle:
        sentences.append(_idle(idle, usage.layers, is_all=len(idle) + len(collapsed) == size))
    sentences.append(_how_sure(num_data, by_kl=by_kl))
    return Verdict(kind, tuple(range(size)) if kind == "full" else collapsed, " ".join(sentences))


def remedies(settings: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """What would put more information into z than training with these settings did, most important first.

    Args:
        settings: `bound`, `beta`, `free_bits`, `kl_warmup_epochs` and `updates` of the training, as far as known;
            defaults are assumed for missing ones.

    Returns:
        Clauses, one per remedy: a beta above 1 should be lowered first, and settings already in use are increased.

    Example:
        >>> remedies({"beta": 200.0})[0]
        'lower `beta` to 1 (at 200 the KL weighs 200 times what it does in the bound, which can empty z by itself)'
        >>> remedies({"kl_warmup_epochs": 50})[0]
        'let the KL come in more slowly (`kl_warmup_epochs=100`)'
    """
    known = {"bound": "elbo", "beta": 1.0, "free_bits": 0.0, "kl_warmup_epochs": 0.0, "updates": "joint"}
    known |= {name: value for name, value in (settings or {}).items() if name in known and value is not None}
    beta, free, warm = known["beta"], known["free_bits"], known["kl_warmup_epochs"]
    aggressive = (
        () if known["updates"] == "aggressive" else ("train the encoder ahead of the decoder (`updates=aggressive`)",)
    )
    if known["bound"] != "elbo":  # other bounds have no weight on the KL
        return ("weigh the KL, which `bound=elbo` can: `kl_warmup_epochs=50`, or `free_bits=1`", *aggressive)
    lower = (
        f"lower `beta` to 1 (at {beta:g} the KL weighs {beta:g} times what it does in the bound, which can empty z by "
        "itself)"
    )
    slowly = f"more slowly (`kl_warmup_epochs={2 * warm:g}`)" if warm else "slowly (`kl_warmup_epochs=50`)"
    leave = (
        f"leave more nats of it free (`free_bits={2 * free:g}`)"
        if free
        else "leave some nats of it free (`free_bits=1`)"
    )
    less = () if beta > 1 or beta == 0 else (f"weigh it less (`beta={beta / 2:g}`)",)
    return (*((lower,) if beta > 1 else ()), f"let the KL come in {slowly}", leave, *less, *aggressive)


def _to_try(settings: Mapping[str, Any] | None) -> str:
    return (
        f"What to try: {', '.join(remedies(settings))}, or use a weaker decoder, which can do less without z (smaller "
        "`hidden`). If nothing helps, the data's elements may have nothing in common for z to explain."
    )


def _none(size: int) -> str:
    where = "the only latent dimension" if size == 1 else f"all {size} latent dimensions"
    return f"The posterior has not collapsed: in {where} it differs from the prior."


def _quiet(size: int, rate: float) -> str:
    where = "of the only latent dimension" if size == 1 else f"in all {size} latent dimensions"
    return (
        f"The posterior has not collapsed: the rate is {rate:.3g} nats per example. Yet the posterior means barely "
        f"vary across the data {where}: the information in z is spread thinly or encoded in the posterior's width."
    )


def _partial(
    collapsed: Sequence[int], size: int, layers: Layers, settings: Mapping[str, Any] | None, *, by_kl: bool
) -> str:
    one, left = len(collapsed) == 1, size - len(collapsed)
    why = "posterior is the prior for nearly every example" if by_kl else "posterior means barely vary across the data"
    return (
        f"{_named(collapsed, layers)} ({len(collapsed)} of {size}) {'carries' if one else 'carry'} nothing: "
        f"{'its' if one else 'their'} {why}. The other {left} {'does' if left == 1 else 'do'} carry something, so this "
        "is not posterior collapse: a model prunes dimensions that it does not need, which costs nothing (of 50 "
        "latents for MNIST, Burda et al. found 19 active). To see whether more would be useful, compare log p(x) with "
        f"that of another run: {' or '.join(remedies(settings)[:2])}."
    )


def _full(size: int) -> str:
    which = "The only latent dimension carries" if size == 1 else f"All {size} latent dimensions carry"
    return (
        f"{which} nothing: the posterior has collapsed to the prior. z carries no information about x, and the "
        "decoder's output is the same for every example."
    )


def _idle(dimensions: Sequence[int], layers: Layers, *, is_all: bool) -> str:
    which = "is a borderline case" if len(dimensions) == 1 else "are borderline cases"
    last = " No other dimension carries more: see whether the mutual information of x and z is 0." if is_all else ""
    return (
        f"{_named(dimensions, layers)} {which}: the KL is not 0, yet the posterior means barely vary across the data "
        f"(variance at most {ACTIVE_VARIANCE}), so little information is carried, or it is encoded in the posterior's "
        f"width alone.{last}"
    )


def _how_sure(num_data: int, *, by_kl: bool) -> str:
    if not by_kl:
        return (
            f"Judged on {num_data:,} examples by the variance of the posterior means (carrying nothing: at most "
            f"{ACTIVE_VARIANCE}), since the KL of each dimension is not known here; information encoded only in the "
            "posterior's width is overlooked."
        )
    # For a fraction with no case in N examples, 3/N is the upper end of a 95% interval.
    unseen = (
        f"; {num_data:,} examples bound that share to {min(1.0, 3 / num_data):.0%} only"
        if num_data * _DELTA < 3
        else ""
    )
    return (
        f"A dimension carries nothing if its KL is below {COLLAPSED_KL} nats on {1 - _DELTA:.0%} of the data{unseen}."
    )


def _named(dimensions: Sequence[int], layers: Layers) -> str:
    """``Dimensions 3-7, 12``, counted from 1; for several layers ``Dimensions 1-3 of z1, 2 of z2``."""
    parts, first = [], 0
    for name, size in layers if len(layers) > 1 else [("", 1 + max(dimensions, default=0))]:
        inside = [d - first + 1 for d in dimensions if first <= d < first + size]
        if inside:
            parts.append(_runs(inside) + (f" of {name}" if name else ""))
        first += size
    return f"Dimension{'s' if len(dimensions) > 1 else ''} {', '.join(parts)}"


def _runs(numbers: Sequence[int]) -> str:
    """``3-7, 12``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
