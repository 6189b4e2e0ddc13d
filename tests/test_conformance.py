"""One contract for everything in the catalog: what the core asks of each part, whatever its mathematics."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Size, Tensor
from torch.distributions import Distribution

import catalog
from subo.core.draw import LatentVariableModel
from subo.core.objective import Objective
from subo.errors import InputError
from subo.gradients import GumbelSoftmax, ScoreFunction, StraightThrough
from subo.parts.families import Family
from subo.typing import leaves

N = 4
FLOATS = [torch.float32, torch.float64]


def over(entries, name="make"):
    return pytest.mark.parametrize(name, entries.values(), ids=entries.keys())


def data_of(model: LatentVariableModel) -> tuple[Tensor, dict[str, Tensor]]:
    """Data in the model's support, drawn from the model itself, and their context."""
    context = catalog.context_of(catalog.NUM_DATA)
    with torch.no_grad():
        return model.sample(catalog.NUM_DATA, context)[1].sample().float(), context


def per_element(family: Family) -> int:
    return family.num_params // family.event_shape.numel()


# Families


@pytest.mark.parametrize("event", [(1,), (6,), (2, 3, 5)], ids=str)
@over(catalog.ELEMENTWISE)
def test_a_family_reads_parameters_alike_in_every_layout(make, event):
    family = make(event)
    p, params = per_element(family), torch.randn(N, family.num_params)
    layouts = [(family.num_params,), (p, *event), (p * event[0], *event[1:])]
    x = family(params).sample()
    densities = [family(params.reshape(N, *layout)).log_prob(x) for layout in layouts]
    for density in densities:
        assert torch.equal(density, densities[0])


@pytest.mark.parametrize("event", [(1,), (6,), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@over(catalog.FAMILIES)
def test_a_family_makes_one_distribution_a_row(make, dtype, event):
    if len(event) > 1 and make in (catalog.OVER_VECTORS | catalog.OF_TABLES).values():
        with pytest.raises(InputError, match=r"\(2, 3, 5\)"):
            make(event)
        return
    family = make(event).to(dtype)
    assert isinstance(family, Family)
    assert family.event_shape == Size(event)
    q = family(torch.randn(N, family.num_params, dtype=dtype))
    assert isinstance(q, Distribution)
    assert q.batch_shape == Size([N])
    assert q.event_shape == Size(event)
    samples = q.sample((7,))
    assert samples.shape == (7, N, *event)
    support: Any = q.support
    assert support.check(samples).all()
    log_prob = q.log_prob(samples)
    assert log_prob.shape == (7, N)
    assert log_prob.dtype == dtype
    assert log_prob.isfinite().all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@over(catalog.FAMILIES)
def test_a_family_is_finite_at_zero_in_value_and_gradient(make, dtype):
    family = make((2,)).to(dtype)
    params = torch.zeros(N, family.num_params, dtype=dtype, requires_grad=True)
    q = family(params)
    (gradient,) = torch.autograd.grad(q.log_prob(q.sample()).sum(), params)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("start", [torch.zeros, torch.randn], ids=["zero", "random"])
@over(catalog.FAMILIES)
def test_samples_of_a_family_with_rsample_are_differentiable_in_every_parameter(make, start):
    family = make((2,))
    params = start(N, family.num_params).requires_grad_()
    q = family(params)
    assert q.has_rsample == (make in catalog.CONTINUOUS.values())
    if q.has_rsample:
        samples = q.rsample((5,))
        (gradient,) = torch.autograd.grad((samples * torch.randn_like(samples)).sum(), params)
        assert gradient.isfinite().all()
        assert (gradient != 0).all()


@pytest.mark.parametrize("excess", [-1, 1])
@over(catalog.FAMILIES)
def test_a_family_refuses_another_number_of_parameters_and_names_both(make, excess):
    family = make((2,))
    expected, given = family.num_params, family.num_params + excess
    with pytest.raises(InputError, match=rf"\(2,\).* {expected} .* {given} "):
        family(torch.zeros(N, given))


# Priors


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@over(catalog.PRIORS)
def test_a_prior_has_no_batch_and_gradients_reach_its_parameters(make, dtype):
    u = torch.rand(3, *catalog.DATA_SHAPE)
    prior = make(catalog.POSTERIORS["gaussian"](catalog.DATA_SHAPE), u).to(dtype)
    p = prior()
    assert p.batch_shape == Size()
    assert p.event_shape == Size([catalog.LATENT_DIM])
    z = p.sample((5, N))
    assert z.shape == (5, N, catalog.LATENT_DIM)
    assert z.dtype == dtype
    log_prob = p.log_prob(z)
    assert log_prob.shape == (5, N)
    assert log_prob.dtype == dtype
    for name, parameter in prior.named_parameters():
        (gradient,) = torch.autograd.grad(prior().log_prob(z).sum(), parameter)
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


# Posteriors


@pytest.mark.parametrize("num_data", [1, 3])
@over(catalog.POSTERIORS)
def test_a_posterior_has_one_distribution_a_datum(make, num_data):
    posterior = make(catalog.DATA_SHAPE)
    x = torch.rand(num_data, *catalog.DATA_SHAPE)
    local = {"index": torch.arange(num_data)} if hasattr(posterior, "params") else {}
    q = posterior(x, **local)
    assert q.batch_shape == Size([num_data])
    assert q.event_shape == Size([catalog.LATENT_DIM])


# Networks


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("entry", catalog.NETWORKS.values(), ids=catalog.NETWORKS.keys())
def test_a_network_has_the_shapes_that_it_promises(entry, dtype):
    make, shape_in, shape_out = entry
    network = make().to(dtype)
    output = network(torch.randn(N, *shape_in, dtype=dtype))
    assert output.shape == (N, *shape_out)
    assert output.dtype == dtype
    for parameter in network.parameters():
        (gradient,) = torch.autograd.grad(network(torch.randn(N, *shape_in, dtype=dtype)).square().sum(), parameter)
        assert gradient.any()


# Bounds and gradient estimators


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
@pytest.mark.parametrize("label", ["standard normal; gaussian", "mixture; neural spline flow", "labelled"])
def test_a_bound_is_one_differentiable_number_a_datum(bound, label):
    model = catalog.MODELS[label]()
    x, context = data_of(model)
    value = bound(model.draw(x, context, num_samples=4))
    assert value.shape == (catalog.NUM_DATA,)
    assert value.isfinite().all()
    value.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
@over(catalog.GRADIENTS)
def test_a_gradient_estimator_has_one_surrogate_a_datum(make, bound):
    assert_surrogate(catalog.MODELS["standard normal; gaussian"](), make(), bound)


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
@over(catalog.DISCRETE_GRADIENTS)
@over(catalog.DISCRETE_MODELS, "make_model")
def test_a_gradient_estimator_of_discrete_latents_has_one_surrogate_a_datum(make_model, make, bound):
    assert_surrogate(make_model(), make(), bound)


def assert_surrogate(model, estimator, bound):
    x, context = data_of(model)
    draw = model.draw(x, context, num_samples=4, path=estimator.path)
    try:
        estimator.check(draw.q, bound, num_samples=4)
        surrogate = estimator.surrogate(draw, bound, x, context)
    except InputError:  # a pair that makes no sense: tests/test_gradients.py says which those are
        return
    assert surrogate.shape == (catalog.NUM_DATA,)
    surrogate.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Models


@pytest.mark.parametrize("path", [True, False])
@pytest.mark.parametrize("num_samples", [1, 3])
@over(catalog.MODELS)
def test_a_draw_has_a_row_a_sample_and_a_column_a_datum(make, num_samples, path):
    assert_draw(make(), num_samples, path)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("path", [False, GumbelSoftmax().path, StraightThrough().path])
@over(catalog.DISCRETE_MODELS)
def test_a_draw_of_discrete_latents_has_a_row_a_sample_and_a_column_a_datum(make, num_samples, path):
    assert_draw(make(), num_samples, path)


def assert_draw(model, num_samples, path):
    assert isinstance(model, LatentVariableModel)
    x, context = data_of(model)
    draw = model.draw(x, context, num_samples=num_samples, path=path)
    shape = (num_samples, catalog.NUM_DATA)
    assert all(leaf.shape[:2] == shape for leaf in leaves(draw.z))
    for name in ("log_likelihood", "log_prior", "log_posterior", "log_joint", "log_weight"):
        assert getattr(draw, name).shape == shape, name
        assert getattr(draw, name).isfinite().all(), name
    torch.testing.assert_close(model.log_joint(x, draw.z, context), draw.log_joint)
    assert draw.factors[0].rate().shape == shape[1:]
    assert draw.factors[0].rate(closed_form=False).shape == shape[1:]


@over(catalog.MODELS | catalog.DISCRETE_MODELS)
def test_a_model_samples_latents_and_the_distribution_of_data_at_them(make):
    model = make()
    x, _ = data_of(model)
    z, p = model.sample(5, catalog.context_of(5))
    assert z.shape[0] == 5
    assert p.batch_shape == Size([5])
    assert p.event_shape == x.shape[1:]


def without_gradient(label: str) -> set[str]:
    """Parameters that an ELBO legitimately leaves alone."""
    return set()


@pytest.mark.parametrize("label", catalog.MODELS)
def test_a_training_step_gives_every_parameter_a_finite_gradient(label):
    model = catalog.MODELS[label]()
    x, context = data_of(model)
    loss = Objective(model, num_samples=3)(x, context)
    assert loss.loss.shape == ()
    assert loss.bound.shape == loss.distortion.shape == (catalog.NUM_DATA,)
    assert loss.rate.shape == (1, catalog.NUM_DATA)
    loss.loss.backward()
    for name, parameter in model.named_parameters():
        if name in without_gradient(label):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            gradient = parameter.grad.to_dense()  # that of a local posterior has the batch's rows alone
            assert gradient.isfinite().all(), name
            assert gradient.any(), name


@over(catalog.MODELS | catalog.DISCRETE_MODELS | catalog.LAYERED_MODELS)
def test_weights_saved_and_loaded_give_the_same_numbers(make, tmp_path: Path):
    model = make()
    x, context = data_of(model)
    with torch.no_grad():  # away from where everything starts
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, str(tmp_path / "model.safetensors"))
    other = make()
    load_model(other, tmp_path / "model.safetensors")
    weights = []
    for one in (model, other):
        torch.manual_seed(1)
        weights.append(one.draw(x, context, num_samples=3, path=False).log_weight)
    assert torch.equal(*weights)


# Models of several layers


@pytest.mark.parametrize("num_samples", [1, 3])
@over(catalog.LAYERED_MODELS)
def test_a_draw_of_layers_has_a_factor_each(make, num_samples):
    model, shape = make(), (num_samples, catalog.NUM_DATA)
    assert isinstance(model, LatentVariableModel)
    x, context = data_of(model)
    draw = model.draw(x, context, num_samples=num_samples)
    assert isinstance(draw.z, dict)
    assert len(draw.factors) == len(draw.z)
    assert all(leaf.shape[:2] == shape for leaf in draw.z.values())
    for name in ("log_likelihood", "log_prior", "log_posterior", "log_weight"):
        assert getattr(draw, name).shape == shape, name
        assert getattr(draw, name).isfinite().all(), name
    torch.testing.assert_close(model.log_joint(x, draw.z, context), draw.log_joint)
    whole: Any = model
    q: Any = draw.q  # over a dict
    torch.testing.assert_close(whole.log_prior(draw.z, context), draw.log_prior)
    torch.testing.assert_close(q.log_prob(draw.z), draw.log_posterior)
    for factor in draw.factors:
        assert factor.rate().shape == factor.rate(closed_form=False).shape == shape[1:]


@over(catalog.LAYERED_MODELS)
def test_a_layered_model_decodes_what_it_samples(make):
    model = make()
    x, _ = data_of(model)
    z, p = model.sample(5, catalog.context_of(5))
    assert p.batch_shape == Size([5])
    assert p.event_shape == x.shape[1:]
    torch.testing.assert_close(model.decode(z, catalog.context_of(5)).mean, p.mean)


@pytest.mark.parametrize("path", [True, False])
@over(catalog.LAYERED_MODELS)
def test_a_training_step_gives_every_layer_a_gradient(make, path):
    model = make()
    x, context = data_of(model)
    objective = Objective(model, gradient=None if path else ScoreFunction(), num_samples=3)
    loss = objective(x, context)
    assert loss.rate.shape == (len(model.draw(x, context).factors), catalog.NUM_DATA)
    loss.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
