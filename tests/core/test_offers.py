"""Who offers what: a family that stops offering it would lose a number without an error."""

from typing import Any

import pytest
import torch

import catalog
from subo.core import offers
from subo.core.bounds import ELBO, IWAE
from subo.parts.registry import LIKELIHOODS, is_over_reals

LIMITED = {"bernoulli", "continuous-bernoulli"}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_only_events_of_a_bounded_interval_have_limits(name: str):
    entry = LIKELIHOODS[name]
    own: dict[str, Any] = {"categorical": {"num_classes": 3}, "columns": {"columns": ("real", "real")}}
    family = entry((2,), **own.get(name, {}))
    assert isinstance(family, offers.Limited) == (name in LIMITED)
    x = family(5 * torch.randn(1000, family.num_params)).sample()
    if name in LIMITED:
        assert x.min() >= family.limits[0]
        assert x.max() <= family.limits[1]
    assert is_over_reals(name) == (bool((x < 0).any()) and not bool((x == x.round()).all()))


@pytest.mark.parametrize("label", catalog.FAMILIES)
def test_a_family_with_a_smallest_scale_tells_how_much_lies_there(label: str):
    family: Any = catalog.FAMILIES[label]((2,))
    scaled = any(kind in label for kind in ("gaussian", "laplace", "student", "continuous", "columns"))
    assert isinstance(family, offers.Floored) == scaled


def test_an_elbo_is_tempered_and_says_what_it_shapes():
    assert isinstance(ELBO(beta=2.0), offers.Tempered)
    assert isinstance(ELBO(beta=2.0), offers.Shaping)
    assert not isinstance(IWAE(), offers.Tempered | offers.Shaping)


def test_mixtures_say_how_many_components_they_have():
    q, u = catalog.POSTERIORS["gaussian"](catalog.DATA_SHAPE), torch.rand(5, *catalog.DATA_SHAPE)
    for label, make in catalog.PRIORS.items():
        prior = make(q, u)
        count = prior.num_components if isinstance(prior, offers.Mixture) else None
        assert count == (3 if "mixture" in label else 5 if "vamp" in label else None), label
