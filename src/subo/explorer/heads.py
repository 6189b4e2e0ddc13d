"""What the numbers of a decoder mean in the page: the family of p(x|z) as a record."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, nn

from subo.explorer.numbers import Store
from subo.explorer.operations import NotExportedError
from subo.parts.columns import Columns
from subo.parts.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from subo.parts.families import Bernoulli, Categorical, ContinuousBernoulli, Poisson
from subo.parts.location_scale import FullRankGaussian, Gaussian, Laplace, LocationScale, Scale, StudentT

__all__ = ["HEADS", "head"]

Head = dict[str, Any]


def head(family: nn.Module, store: Store) -> Head:
    """A family as a record.

    Args:
        family: One of HEADS.
        store: Receives its numbers.

    Raises:
        NotExportedError: The page does not know this family.

    Example:
        >>> head(Bernoulli((3,)), Store())
        {'family': 'bernoulli', 'size': 3, 'count': 1}
    """
    write = HEADS.get(type(family))
    if write is None:
        raise NotExportedError(f"{type(family).__name__} has no counterpart in the page")
    return write(family, store)


def _plain(name: str) -> Callable[[Any, Store], Head]:
    def write(family: Any, store: Store) -> Head:
        size = family.event_shape.numel()
        return {"family": name, "size": size, "count": family.num_params // size}

    return write


def _location_scale(name: str) -> Callable[[LocationScale, Store], Head]:
    def write(family: LocationScale, store: Store) -> Head:
        units, shape = family.location_scale, family.event_shape
        record = {
            **_plain(name)(family, store),
            "scale": _scale(units.scale, shape, store),
            "center": None if units.center is None else _wide(units.center, shape, store),
            "unit": None if units.unit is None else _wide(units.unit, shape, store),
        }
        if isinstance(family, StudentT):
            record["degrees"] = _wide(family.degrees_of_freedom.value(), shape, store)
        return record

    return write


def _scale(scale: Scale, shape: Size, store: Store) -> Head:
    """The floor and the sharpness of the softplus of what the network gives, or the scales themselves."""
    if scale.from_network:
        return {"floor": scale.floor, "beta": scale.beta}
    return {"values": _wide(scale.of(), shape, store)}


def _wide(values: Tensor, shape: Size, store: Store) -> list[Any]:
    return store.add(values.expand(shape), exact=True)


def _continuous_bernoulli(family: ContinuousBernoulli, store: Store) -> Head:
    return {**_plain("continuous-bernoulli")(family, store), "min_scale": family.min_scale}


def _dispersed(name: str) -> Callable[[Any, Store], Head]:
    def write(family: Any, store: Store) -> Head:
        return {**_plain(name)(family, store), "dispersion": _scale(family.dispersion, family.event_shape, store)}

    return write


def _categorical(family: Categorical, store: Store) -> Head:
    impossible = None if family.impossible is None else family.impossible.long().flatten().tolist()
    return {**_plain("categorical")(family, store), "impossible": impossible}


def _full_rank(family: FullRankGaussian, store: Store) -> Head:
    return {"family": "full-rank", "size": family.dim, "floor": family.scale.floor, "beta": family.scale.beta}


def _columns(family: Columns, store: Store) -> Head:
    """The columns by kind, each group with its share of the parameters."""
    if len(family.masks):
        raise NotExportedError("the likelihood also describes which cells are missing")
    groups, first = [], 0
    for kind in family.kinds:
        shape = Size([kind.size])
        record: Head = {"index": kind.index.tolist(), "first": first, "name": _KINDS[type(kind).__name__]}
        first += kind.num_params
        if (scale := getattr(kind, "scale", None)) is not None:
            record["scale"] = _scale(scale, shape, store)
        if (degrees := getattr(kind, "degrees_of_freedom", None)) is not None:
            record["degrees"] = _wide(degrees.value(), shape, store)
        if (dispersion := getattr(kind, "dispersion", None)) is not None:
            record["dispersion"] = _scale(dispersion, shape, store)
        if record["name"] in ("category", "ordinal"):
            record |= {"levels": list(kind.levels), "unseen": family.unseen[kind.index].tolist()}
        if record["name"] == "category":
            record["most"] = kind.most
        if record["name"] == "ordinal":
            steps = torch.cat([kind.first, kind.first + kind.log_steps.exp().cumsum(-1)], -1)
            own = [row[keep].tolist() for row, keep in zip(steps.detach(), kind.own, strict=True)]
            record["thresholds"] = own
        groups.append(record)
    jacobian: Head = {"shift": family.shift.tolist(), "slope": family.slope.tolist()}
    if "knots" in family._buffers:
        jacobian |= {"knots": family.knots.tolist(), "scores": family.scores.tolist()}
    return {"family": "columns", "size": family.event_shape.numel(), "groups": groups, **jacobian}


_KINDS = {
    "_Real": "number", "_Normal": "number", "_Spike": "spike", "_Count": "count",
    "_Category": "category", "_Ordinal": "ordinal",
}  # fmt: skip

HEADS: dict[type[nn.Module], Callable[[Any, Store], Head]] = {
    Bernoulli: _plain("bernoulli"),
    Poisson: _plain("poisson"),
    ContinuousBernoulli: _continuous_bernoulli,
    NegativeBinomial: _dispersed("negative-binomial"),
    ZeroInflatedNegativeBinomial: _dispersed("zero-inflated-negative-binomial"),
    Categorical: _categorical,
    Gaussian: _location_scale("gaussian"),
    Laplace: _location_scale("laplace"),
    StudentT: _location_scale("student-t"),
    FullRankGaussian: _full_rank,
    Columns: _columns,
}
"""The families that the page knows."""
