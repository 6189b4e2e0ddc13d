"""Every name in the tables makes a model, and its options reach it."""

from typing import Any

import pytest
import torch

from subo.core.bounds import BOUNDS
from subo.data.spread import center_and_units
from subo.errors import InputError
from subo.parts.registry import LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS
from subo.recipes import deep_markov, hierarchical, ladder, vae
from subo.recipes.recipe import check_effects, settled

ENTRIES = [
    *(("likelihood", name) for name in LIKELIHOODS),
    *(("posterior", name) for name in POSTERIORS),
    *(("prior", name) for name in PRIORS),
    *(("network", name) for name in NETWORKS),
    *(("bound", name) for name in BOUNDS),
]


@pytest.mark.parametrize("choice, name", ENTRIES)
def test_every_name_makes_a_model_whose_bound_is_finite_and_trains(choice: str, name: str):
    known: dict[str, Any] = {"likelihood": "bernoulli", "num_samples": 4, "num_classes": 3, "hidden": (8,)}
    if choice == "prior" and name in ("bernoulli", "categorical"):
        known["posterior"] = name
    if name == "by-label":
        known |= {"condition": "labels", "num_labels": 3}
    x = torch.randint(2, (20, 16)).float() if name == "columns" else torch.randint(2, (20, 1, 4, 4)).float()
    if name == "columns":
        known["columns"] = ("boolean 2", "count") * 8
    objective = vae(x.shape[1:], examples=x, **{**known, choice: name})
    loss = objective(x, {"label": torch.arange(20) % 3} if name == "by-label" else None)
    assert loss.bound.isfinite().all()
    loss.loss.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


@pytest.mark.parametrize("choice, name", ENTRIES)
def test_a_choice_is_never_without_effect(choice: str, name: str):
    settings = {"likelihood": "gaussian", "prior": "auto", "posterior": "gaussian", "network": "mlp", "bound": "elbo"}
    check_effects(vae, {choice}, settings | {choice: name, "inference": "amortized", "gradient": "auto"})


def test_an_option_of_another_choice_is_refused_and_that_choice_named():
    settings = {"likelihood": "gaussian", "bound": "elbo", "prior": "auto", "posterior": "gaussian", "network": "mlp"}
    with pytest.raises(InputError, match="`alpha` has no effect with `bound=elbo`: it is an option of `bound=renyi`"):
        check_effects(vae, {"alpha"}, settings)


def test_the_order_reaches_the_renyi_bound():
    assert vae((5,), likelihood="bernoulli", bound="renyi", alpha=0.3, num_samples=3).bound.alpha == 0.3


@pytest.mark.parametrize(
    "given, prior, gradient, baseline",
    [
        ({}, "normal", "pathwise", "none"),
        ({"posterior": "spline", "condition": "labels"}, "by-label", "pathwise", "none"),
        ({"posterior": "bernoulli"}, "bernoulli", "score-function", "mean"),
        ({"posterior": "categorical", "num_samples": 4}, "categorical", "score-function", "leave-one-out"),
        ({"posterior": "categorical", "num_samples": 4, "bound": "renyi"}, "categorical", "score-function", "mean"),
        ({"posterior": "bernoulli", "num_samples": 4, "bound": "iwae"}, "bernoulli", "vimco", "none"),
        (
            {"posterior": "bernoulli", "condition": "labels", "baseline": "network"},
            "by-label",
            "score-function",
            "network",
        ),
        (
            {"prior": "mixture", "gradient": "score-function", "num_samples": 2},
            "mixture",
            "score-function",
            "leave-one-out",
        ),
    ],
)
def test_auto_is_settled_by_the_other_options(given: dict[str, Any], prior: str, gradient: str, baseline: str):
    options = settled(vae, given)
    assert (options["prior"], options["gradient"], options["baseline"]) == (prior, gradient, baseline)
    assert settled(vae, options) == options


def test_a_prior_for_each_class_needs_classes():
    with pytest.raises(InputError, match="the prior by-label has parameters for each class: it needs condition labels"):
        vae((5,), likelihood="bernoulli", prior="by-label")


def test_an_option_of_another_network_or_transition_has_no_effect():
    settings = {"network": "conv", "likelihood": "gaussian", "bound": "elbo", "gradient": "auto"}
    with pytest.raises(
        InputError, match="`hidden` has no effect with `network=conv`: it is an option of `network=mlp`"
    ):
        check_effects(ladder, {"hidden"}, settings)
    check_effects(ladder, {"channels", "depth", "activation"}, settings)
    with pytest.raises(InputError, match="with `transition=linear`: it is an option of `transition=gated` or"):
        check_effects(deep_markov, {"transition_hidden"}, settings | {"transition": "linear"})
    check_effects(deep_markov, {"transition_hidden", "reader_hidden"}, settings | {"transition": "mlp"})


@pytest.mark.parametrize("recipe", [vae, hierarchical, ladder])
def test_rows_of_numbers_are_read_as_far_as_one_deviation_beyond_those_of_the_examples(recipe):
    torch.manual_seed(0)
    x = torch.randn(500, 3) * torch.tensor([1.0, 10.0, 1e-3])
    model = recipe((3,), examples=x, likelihood="gaussian", hidden=(8,)).model
    unit = center_and_units(x, torch.Size([3]))[1]
    ends = torch.stack([x.amax(0) + unit, x.amin(0) - unit])
    far = torch.tensor([[1e6], [-1e6]]).expand(2, 3)
    (at_ends, at_far, inside, linear) = (sample_of(model, rows) for rows in (ends, far, x[:2], x[:2] + 1e-2 * unit))
    torch.testing.assert_close(at_far, at_ends)
    assert (inside != linear).any()
    unlimited = {name: weight for name, weight in model.state_dict().items() if not name.endswith((".low", ".high"))}
    older = recipe((3,), likelihood="gaussian", hidden=(8,)).model  # as a run of before there were limits
    older.load_state_dict(unlimited)
    torch.testing.assert_close(sample_of(older, x[:2]), inside)
    assert (sample_of(older, far / 1e3) != sample_of(older, ends)).any()


def sample_of(model: Any, x: torch.Tensor) -> torch.Tensor:
    """The parameters of q, by what a network makes of x."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model.draw(x, {}, num_samples=1).log_posterior


def test_images_and_steps_have_no_limits():
    x = torch.randn(50, 1, 4, 4)
    assert not any("low" in name for name in vae((1, 4, 4), examples=x, likelihood="gaussian").model.state_dict())
    steps = deep_markov((3,), examples=torch.randn(20, 3), likelihood="gaussian").model
    assert not any(name.endswith(".low") for name in steps.state_dict())
