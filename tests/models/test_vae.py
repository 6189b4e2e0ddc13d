"""A model of three parts: what each is given, which shapes it must return, and paths through z."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Normal
from torch.testing import assert_close

import catalog
from shapes import unchecked_shapes
from small_vae import B, D, d, data, normal
from subo.core import context as contexts
from subo.core.bounds import ELBO, IWAE
from subo.core.objective import Objective
from subo.errors import InputError
from subo.gradients import Pathwise
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.families import Bernoulli
from subo.parts.location_scale import Gaussian
from subo.parts.networks import conv_decoder, conv_encoder, mlp, residual_mlp
from subo.parts.priors import StandardNormal
from subo.training.fitting import fit

# Context


def test_a_module_receives_the_names_that_it_declares():
    context = {"label": torch.ones(2), "index": torch.arange(2), "length": torch.zeros(2)}
    call = contexts.call
    assert call(lambda z: z, 1, context=context) == 1
    assert call(lambda z, label: label, 1, context=context) is context["label"]
    assert call(lambda z, *, label: label, 1, context=context) is context["label"]
    assert call(lambda z, length, index: (index, length), 1, context=context)[1] is context["length"]
    assert call(lambda label=None: label, context=context) is context["label"]
    assert call(lambda z, mask=5: mask, 1, context=context) == 5
    assert call(lambda z, **names: names, 1, context=context) == context
    assert call(lambda z, label, **names: set(names), 1, context=context) == {"index", "length"}


def test_modules_functions_and_methods_declare_alike():
    class Module(nn.Module):
        def forward(self, z, label):
            return label

        def method(self, z, label):
            return label

    context = {"label": torch.ones(2)}
    module = Module()
    for callable_ in (module, module.method, lambda z, label: label):
        assert contexts.call(callable_, 1, context=context) is context["label"]


def test_a_missing_name_is_named_with_what_there_is():
    with pytest.raises(InputError, match=r"needs the context 'label'.*\(it has: index\)"):
        contexts.call(lambda z, label: z, 1, context={"index": torch.arange(2)})
    with pytest.raises(InputError, match=r"needs the context 'label'.*\(it has: none\)"):
        contexts.call(lambda z, label: z, 1)


def test_a_context_is_repeated_sample_by_sample():
    repeated = contexts.repeat({"label": torch.tensor([1, 2]), "image": torch.arange(4).reshape(2, 2)}, 3)
    assert repeated["label"].tolist() == [1, 2, 1, 2, 1, 2]
    assert repeated["image"].tolist() == [[0, 1], [2, 3]] * 3
    assert contexts.repeat(None, 3) == {}


@pytest.mark.parametrize("part", ["prior", "likelihood", "posterior"])
def test_every_part_of_a_model_asks_for_its_context_by_name(part):
    plain, labelled = catalog.vae(), catalog.conditional_vae()
    setattr(plain, part, getattr(labelled, part))
    x, label = data(), torch.tensor([0, 1, 2])
    with pytest.raises(InputError, match="'label'"):
        plain.draw(x).log_joint  # noqa: B018
    one = plain.draw(x, {"label": label}, num_samples=2)
    other = plain.draw(x, {"label": label, "more": label}, num_samples=2)
    assert one.log_joint.shape == other.log_joint.shape == (2, B)


class Shift(nn.Module):
    """``p(x | z, label)``, in which z and label count differently for every element of the batch."""

    def forward(self, z: Tensor, label: Tensor) -> Distribution:
        assert z.ndim == 2
        assert len(z) == len(label)
        return normal(torch.cat([z * label[:, None], z.cumsum(1)], 1))


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Distribution:
        return normal(x[:, :d], 2.0)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_each_sample_of_a_datum_meets_its_datum_and_its_context(num_samples):
    model = VAE(StandardNormal(d), Shift(), Fixed())
    x, label = torch.randn(B, 2 * d), torch.tensor([1.0, 10, 100])
    draw = model.draw(x, {"label": label}, num_samples=num_samples)
    assert isinstance(draw.z, Tensor)
    for k in range(num_samples):
        for b in range(B):
            z = draw.z[k, b]
            q, prior = normal(x[b, :d], 2.0), normal(torch.zeros(d))
            p = normal(torch.cat([z * label[b], z.cumsum(0)]))
            assert_close(draw.log_posterior[k, b], q.log_prob(z))
            assert_close(draw.log_prior[k, b], prior.log_prob(z))
            assert_close(draw.log_likelihood[k, b], p.log_prob(x[b]))
            assert_close(draw.log_weight[k, b], p.log_prob(x[b]) + prior.log_prob(z) - q.log_prob(z))


def test_a_prior_that_depends_on_the_context_pairs_with_its_data():
    model = catalog.conditional_vae()
    x, label = data(), torch.tensor([2, 0, 1])
    draw = model.draw(x, {"label": label}, num_samples=2)
    assert isinstance(draw.z, Tensor)
    for b in range(B):
        alone = model.prior(label[b : b + 1])
        assert_close(draw.log_prior[:, b], alone.log_prob(draw.z[:, b : b + 1]).squeeze(1))
    z, p = model.sample(B, {"label": label})
    assert isinstance(z, Tensor)
    assert z.shape == (B, d)
    assert p.batch_shape == (B,)


# Wrong shapes


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, input: Tensor) -> Any:
        return self.make(len(input))


class ReturnsAlone(nn.Module):
    def __init__(self, returned: Any):
        super().__init__()
        self.returned = returned

    def forward(self) -> Any:
        return self.returned


def bits(*shape: int) -> TorchBernoulli:
    return TorchBernoulli(logits=torch.zeros(shape))


LIKELIHOODS = [
    (
        lambda n: bits(n, D),
        (D,),
        "likelihood returned batch_shape (3, 6), event_shape (); expected (3,), (6,): wrap it in Independent(..., 1)",
    ),
    (
        lambda n: bits(n, 2, 3),
        (2, 3),
        "likelihood returned batch_shape (3, 2, 3), event_shape (); expected (3,), (2, 3): "
        "wrap it in Independent(..., 2)",
    ),
    (
        lambda n: Independent(bits(n, 2, 3), 1),
        (2, 3),
        "likelihood returned batch_shape (3, 2), event_shape (3,); expected (3,), (2, 3): "
        "wrap it in Independent(..., 1)",
    ),
    (
        lambda n: Independent(bits(n, D - 1), 1),
        (D,),
        "likelihood returned batch_shape (3,), event_shape (5,); expected (3,), (6,). The batch shape",
    ),
    (
        lambda n: Independent(bits(n - 1, D), 1),
        (D,),
        "likelihood returned batch_shape (2,), event_shape (6,); expected (3,), (6,). The batch shape",
    ),
]


@pytest.mark.parametrize("make, event, message", LIKELIHOODS)
def test_a_likelihood_of_another_shape_is_told_how_to_mend_it(make, event, message):
    model = VAE(StandardNormal(d), Returns(make), Conditional(Gaussian((d,)), mlp(D, 2 * d)))
    draw = model.draw(data(B, *event))
    with pytest.raises(InputError) as error:
        draw.log_likelihood  # noqa: B018
    assert str(error.value).startswith(message)


def test_a_posterior_of_another_shape_is_told_how_to_mend_it():
    posterior = Returns(lambda n: Normal(torch.zeros(n, d), torch.ones(n, d)))
    with pytest.raises(InputError) as error:
        VAE(StandardNormal(d), nn.Identity(), posterior).draw(data())
    assert str(error.value) == (
        "posterior returned batch_shape (3, 2), event_shape (); expected (3,), (2,): wrap it in Independent(..., 1)"
    )


def test_a_prior_of_another_shape_is_refused():
    model = catalog.vae()
    model.prior = ReturnsAlone(Normal(torch.zeros(d), torch.ones(d)))
    with pytest.raises(InputError, match=r"prior returned batch_shape \(2,\), event_shape \(\)"):
        model.draw(data())


@pytest.mark.parametrize("name", ["prior", "likelihood", "posterior"])
def test_a_part_that_returns_no_distribution_is_told_what_is_expected(name):
    model = catalog.vae()
    setattr(model, name, Returns(lambda n: torch.zeros(n, d)) if name != "prior" else ReturnsAlone(torch.zeros(d)))
    with pytest.raises(InputError, match=f"^{name} returned Tensor; expected a torch.distributions.Distribution"):
        model.draw(data()).log_weight  # noqa: B018


@unchecked_shapes()  # a user's run has none to refuse it
def test_a_distribution_in_place_of_a_module_is_refused():
    normal: Any = Independent(Normal(torch.zeros(d), torch.ones(d)), 1)
    parts: dict = {"prior": StandardNormal(d), "likelihood": nn.Identity(), "posterior": nn.Identity()}
    for name in parts:
        with pytest.raises(InputError, match=f"^the {name} is an Independent; expected a module whose call returns"):
            VAE(**parts | {name: normal})


def test_a_wrong_part_is_told_before_training():
    """As fit meets it: the model is sampled before a batch is drawn."""
    q = Conditional(Gaussian((d,)), mlp(D, 2 * d))
    likelihood = Returns(lambda n: bits(n, D))
    with pytest.raises(InputError, match=r"returned batch_shape \(1, 6\), event_shape \(\); .*, 1\)$"):
        fit(Objective(VAE(StandardNormal(d), likelihood, q)), data(), epochs=1)
    prior = ReturnsAlone(Normal(torch.zeros(d), torch.ones(d)))
    with pytest.raises(InputError, match=r"prior returned batch_shape \(2,\).*wrap it in Independent\(\.\.\., 1\)"):
        fit(Objective(VAE(prior, likelihood, q)), data(), epochs=1)


@pytest.mark.parametrize("num_samples", [0, -1])
def test_no_samples_are_refused(num_samples):
    with pytest.raises(InputError, match=f"at least 1, not {num_samples}"):
        catalog.vae().draw(data(), num_samples=num_samples)
    with pytest.raises(InputError, match=f"at least 1, not {num_samples}"):
        Objective(catalog.vae(), num_samples=num_samples)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 30])
def test_without_a_gradient_samples_are_decoded_in_parts_to_the_same_values(num_samples, monkeypatch):
    rows: list[int] = []

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(0.3))

        def forward(self, z: Tensor, scale: Tensor) -> Distribution:
            rows.append(len(z))
            return Independent(Normal(z @ weight + self.shift, scale[:, None]), 1)

    weight, x, context = torch.randn(d, D), data(4, D), {"scale": torch.rand(4) + 0.5}
    model = VAE(StandardNormal(d), Decoder(), Conditional(Gaussian((d,)), nn.Linear(D, 2 * d)))
    monkeypatch.setattr("subo.models.folding._NUMBERS", 8 * D)  # two samples of four data
    z = torch.randn(num_samples, 4, d)
    whole = model.log_joint(x, z, context)
    assert rows == [4 * num_samples]
    with torch.no_grad():
        parts = model.log_joint(x, z, context)
    assert max(rows[1:]) <= 8
    assert sum(rows[1:]) == 4 * num_samples
    assert parts.shape == whole.shape
    assert_close(parts, whole.detach())


# Paths


def discrete() -> VAE:
    class Prior(nn.Module):
        def forward(self) -> Distribution:
            return Independent(bits(d), 1)

    return VAE(
        Prior(), Conditional(Bernoulli((D,)), mlp(d, D, hidden=())), Conditional(Bernoulli((d,)), mlp(D, d, hidden=()))
    )


def test_a_posterior_without_rsample_has_no_path_but_has_samples():
    model, x = discrete(), data()
    with pytest.raises(InputError, match=r"posterior's Bernoulli has no rsample.*Gaussian"):
        model.draw(x, path=True)
    with pytest.raises(InputError, match="no rsample"):
        Objective(model)(x)
    draw = model.draw(x, num_samples=4, path=False)
    assert IWAE()(draw).isfinite().all()
    with pytest.raises(InputError, match="the posterior's Bernoulli has no rsample"):
        Pathwise().check(draw.q, ELBO(), num_samples=1)


@pytest.mark.parametrize("posterior", ["gaussian", "full-rank gaussian", "neural spline flow"])
def test_samples_have_a_gradient_with_a_path_and_none_without(posterior):
    model = catalog.vae(posterior=posterior)
    for path in (True, False):
        z = model.draw(data(), num_samples=2, path=path).z
        assert isinstance(z, Tensor)
        assert z.requires_grad == path


def test_a_flow_posterior_is_not_inverted_at_its_own_samples(monkeypatch):
    model = catalog.vae(posterior="inverse autoregressive flow")
    q = model.posterior(data())
    monkeypatch.setattr(type(q), "log_prob", None)
    assert IWAE()(model.draw(data(), num_samples=2)).isfinite().all()


# Networks


def test_residual_blocks_add_to_their_input():
    network = residual_mlp(4, 3, hidden=(8, 8)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".branch.3." in name:
                parameter.zero_()
    first, norm, last = network[1], network[-2], network[-1]
    assert_close(network(x), last(norm(first(x))))


@pytest.mark.parametrize("hidden", [(), (8, 4)])
def test_residual_blocks_of_several_widths_are_refused(hidden):
    with pytest.raises(InputError, match="one width"):
        residual_mlp(4, 3, hidden=hidden)


@pytest.mark.parametrize("make", [lambda: conv_encoder((784,), 4), lambda: conv_decoder(2, (28, 28))])
def test_convolutions_of_what_is_no_image_are_refused(make):
    with pytest.raises(InputError, match=r"\(C, H, W\).*mlp"):
        make()
