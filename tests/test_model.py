import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
import zuko
from torch import Size, Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

import catalog
from subo import context as contexts
from subo.bounds import ELBO, IWAE
from subo.conditionals import Conditional, Local
from subo.errors import InputError
from subo.families import Bernoulli
from subo.gradients import Pathwise
from subo.location_scale import Gaussian
from subo.model import VAE
from subo.networks import conv_decoder, conv_encoder, mlp, residual_mlp
from subo.objective import Objective
from subo.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior
from subo.randomness import forked

B, D, d = 3, 6, 2


def data(*shape: int) -> Tensor:
    return torch.randint(2, shape or (B, D)).float()


def normal(loc: Tensor, scale: float = 1.0) -> Independent:
    return Independent(Normal(loc, torch.full_like(loc, scale)), 1)


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

    def forward(self, input: Tensor) -> Distribution:
        return self.make(len(input))


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
    class Wrong(nn.Module):
        def forward(self) -> Distribution:
            return Normal(torch.zeros(d), torch.ones(d))

    model = catalog.vae()
    model.prior = Wrong()
    with pytest.raises(InputError, match=r"prior returned batch_shape \(2,\), event_shape \(\)"):
        model.draw(data())


@pytest.mark.parametrize("num_samples", [0, -1])
def test_no_samples_are_refused(num_samples):
    with pytest.raises(InputError, match=f"at least 1, not {num_samples}"):
        catalog.vae().draw(data(), num_samples=num_samples)
    with pytest.raises(InputError, match=f"at least 1, not {num_samples}"):
        Objective(catalog.vae(), num_samples=num_samples)


# Paths


def discrete() -> VAE:
    prior = Returns(lambda n: Independent(bits(d), 1))
    prior.forward = lambda: Independent(bits(d), 1)  # type: ignore[method-assign]
    return VAE(
        prior, Conditional(Bernoulli((D,)), mlp(d, D, hidden=())), Conditional(Bernoulli((d,)), mlp(D, d, hidden=()))
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


# What a user brings


class Dictionary(Distribution):
    """A latent of two parts that share nothing but their rows."""

    arg_constraints: dict = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, **parts: Distribution):
        self.parts = parts
        super().__init__(next(iter(parts.values())).batch_shape, validate_args=False)

    def rsample(self, sample_shape=()):  # type: ignore[override]
        return {name: part.rsample(sample_shape) for name, part in self.parts.items()}

    def sample(self, sample_shape=()):  # type: ignore[override]
        return {name: part.sample(sample_shape) for name, part in self.parts.items()}

    def log_prob(self, value: Any):
        return sum(part.log_prob(value[name]) for name, part in self.parts.items())


def test_a_latent_may_be_a_dictionary():
    class Prior(nn.Module):
        def forward(self) -> Distribution:
            return Dictionary(a=normal(torch.zeros(1)), b=normal(torch.zeros(4)))

    class Likelihood(nn.Module):
        def forward(self, z: dict[str, Tensor]) -> Distribution:
            return normal(torch.cat([z["a"] + 1, z["b"] * z["a"], z["a"]], 1))

    class Posterior(nn.Module):
        def forward(self, x: Tensor) -> Distribution:
            return Dictionary(a=normal(x[:, :1]), b=normal(x[:, 2:]))

    model, x = VAE(Prior(), Likelihood(), Posterior()), torch.randn(B, D)
    draw = model.draw(x, num_samples=4)
    assert isinstance(draw.z, dict)
    assert draw.z["a"].shape == (4, B, 1)
    z = {name: leaf[2, 1][None] for name, leaf in draw.z.items()}
    expected = Likelihood()(z).log_prob(x[1:2]) + Prior()().log_prob(z) - Posterior()(x[1:2]).log_prob(z)
    assert_close(draw.log_weight[2, 1], expected[0])
    assert_close(model.log_joint(x, draw.z), draw.log_joint)
    assert Objective(model, IWAE(), num_samples=4)(x).loss.isfinite()
    z, p = model.sample(5)
    assert isinstance(z, dict)
    assert p.batch_shape == (5,)


class OwnPrior(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.ones(d))

    def forward(self) -> Distribution:
        return normal(self.loc)


class OwnLikelihood(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(d, D)

    def forward(self, z: Tensor) -> Distribution:
        return Independent(TorchBernoulli(logits=self.linear(z)), 1)


class OwnPosterior(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, d)

    def forward(self, x: Tensor) -> Distribution:
        return normal(self.linear(x), 0.5)


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
def test_plain_modules_that_return_torchs_distributions_serve_in_all_positions(bound):
    model = VAE(OwnPrior(), OwnLikelihood(), OwnPosterior())
    loss = Objective(model, bound, num_samples=4)(data())
    loss.loss.backward()
    assert loss.bound.isfinite().all()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("flow", [zuko.flows.MAF, zuko.flows.NSF])
def test_a_flow_of_zuko_serves_as_prior(flow):
    model = catalog.vae()
    model.prior = flow(d, transforms=2, hidden_features=(8,))
    loss = Objective(model, num_samples=3)(data())
    loss.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    z, p = model.sample(5)
    assert isinstance(z, Tensor)
    assert z.shape == (5, d)
    assert p.batch_shape == (5,)


def test_a_flow_of_zuko_serves_as_posterior():
    model = catalog.vae()
    model.posterior = zuko.flows.MAF(d, D, transforms=2, hidden_features=(8,))
    draw = model.draw(data(), num_samples=3)
    assert isinstance(draw.z, Tensor)
    assert_close(draw.log_posterior, draw.q.log_prob(draw.z), rtol=1e-3, atol=1e-3)
    Objective(model)(data()).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.posterior.parameters())


# Posteriors without an encoder


def test_a_local_posterior_finds_its_rows_by_index():
    q = Local(Gaussian((d,)), 10).double()
    with torch.no_grad():
        q.params.copy_(torch.arange(40).reshape(10, 4))
    index = torch.tensor([7, 0, 7])
    assert q(torch.zeros(3, D, dtype=torch.float64), index).mean.tolist() == [[28.0, 29], [0, 1], [28, 29]]
    q(torch.zeros(3, D, dtype=torch.float64), index).mean.sum().backward()
    assert q.params.grad is not None
    assert q.params.grad.is_sparse
    assert q.params.grad.to_dense().abs().sum(1).nonzero().flatten().tolist() == [0, 7]


@pytest.mark.parametrize("index, named", [([3, 10], 10), ([-1, 3], -1), ([12, -2], 12)])
def test_data_never_seen_have_no_local_posterior(index, named):
    q = Local(Gaussian((d,)), 10)
    with pytest.raises(InputError, match=rf"the 10 data.* index {named} .*subo\.infer"):
        q(torch.zeros(2, D), torch.tensor(index))


def test_a_local_posterior_without_an_index_asks_for_it():
    model = catalog.vae(posterior="local gaussian")
    with pytest.raises(InputError, match="'index'"):
        model.draw(data())


# Priors


def test_the_vamp_prior_is_the_mixture_of_the_models_own_posterior():
    model = catalog.vae("vamp").double()
    prior, posterior = model.prior, model.posterior
    assert isinstance(prior, VampPrior)
    assert prior.posterior is posterior
    z = torch.randn(7, d, dtype=torch.float64)

    def mixture() -> Tensor:
        components = [posterior(u[None]).log_prob(z) for u in prior.pseudo_inputs]
        return torch.stack(components).exp().mean(0).log()

    before = prior().log_prob(z)
    assert_close(before, mixture())
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.1)
    assert_close(prior().log_prob(z), mixture())
    assert (prior().log_prob(z) != before).all()
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) == 9  # two layers twice, and the pseudo-inputs


def test_the_vamp_priors_inputs_stay_in_their_limits_and_learn_from_anywhere():
    """A clamp would stop the gradient of every pixel that starts at 0 or 1, as most pixels of bits do."""
    q = OwnPosterior()
    start = torch.tensor([[0.0] * D, [0.5] * D, [1.0] * D])
    limited = VampPrior(q, start, limits=(0.0, 1.0))
    assert (limited.pseudo_inputs - start).abs().max() <= 0.0501
    (gradient,) = torch.autograd.grad(limited().log_prob(torch.randn(5, d)).sum(), [limited.raw_inputs])
    assert (gradient != 0).all()
    with torch.no_grad():
        limited.raw_inputs.mul_(100)
    assert 0 <= limited.pseudo_inputs.min() <= limited.pseudo_inputs.max() <= 1
    free = VampPrior(q, 7 * start)
    assert torch.equal(free.pseudo_inputs, 7 * start)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_mixture_prior_is_the_weighted_sum_of_its_components(covariance):
    prior = GaussianMixture(d, components=3, covariance=covariance).double()
    with torch.no_grad():
        prior.logits.normal_()
        prior.params.add_(torch.randn_like(prior.params))
    p, z = prior(), torch.randn(7, d, dtype=torch.float64)
    assert isinstance(p, MixtureSameFamily)
    components = torch.stack([prior.family(row[None]).log_prob(z) for row in prior.params])
    expected = (prior.logits.softmax(0)[:, None] * components.exp()).sum(0).log()
    assert_close(p.log_prob(z), expected)


def test_the_components_of_a_mixture_start_apart_and_plain():
    prior = GaussianMixture(d, components=5, spread=3.0)
    p = prior()
    assert isinstance(p, MixtureSameFamily)
    assert_close(p.component_distribution.variance, torch.ones(5, d))
    assert isinstance(p.mixture_distribution, Categorical)
    assert_close(p.mixture_distribution.probs, torch.full((5,), 0.2))
    assert p.component_distribution.mean.std() > 1


@pytest.mark.parametrize("kind", ["autoregressive", "spline"])
def test_the_density_of_a_flow_prior_is_that_of_its_noise_times_the_jacobian(kind):
    prior = FlowPrior(3, kind=kind, hidden=(8,)).double()
    z = torch.randn(3, dtype=torch.float64)
    towards_noise = prior.transform()
    jacobian = torch.autograd.functional.jacobian(towards_noise, z)
    assert isinstance(jacobian, Tensor)
    noise = StandardNormal(3).double()().log_prob(towards_noise(z))
    assert_close(prior().log_prob(z), noise + torch.linalg.slogdet(jacobian).logabsdet)
    assert_close(towards_noise(prior().rsample()).shape, Size([3]))


@pytest.mark.parametrize("make", [
    lambda: GaussianMixture(d, components=0),
    lambda: FlowPrior(d, transforms=0),
], ids=["mixture", "flow"])  # fmt: skip
def test_a_prior_of_nothing_is_refused(make):
    with pytest.raises(InputError, match="at least one"):
        make()


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


# Nothing that is not ours changes

STATE = """
import json, logging, os, random, sys, warnings
import numpy, torch
from torch.distributions import Distribution, Normal

def state():
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    return {
        "validation": Distribution._validate_args,
        "normal": repr(Normal.arg_constraints),
        "checks": refuses(),
        "root handlers": len(logging.root.handlers),
        "level": logging.root.level,
        "handlers": sum(len(logger.handlers) for logger in loggers if logger.name.startswith("subo")),
        "filters": repr(warnings.filters),
        "dtype": str(torch.get_default_dtype()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "rng": hash(tuple(torch.get_rng_state().tolist())),
        "numpy": repr(numpy.random.get_state()),
        "random": hash(random.getstate()),
        "environment": dict(os.environ),
        "hook": (repr(sys.excepthook), repr(sys.displayhook)),
        "path": sys.path,
    }

def refuses():
    try:
        Normal(torch.zeros(()), -torch.ones(()))
    except ValueError:
        return True
    return False

before = state()
import subo
after = state()
changed = [name for name in before if before[name] != after[name]]
heavy = {"lightning_fabric", "matplotlib", "rich", "sklearn", "pandas", "IPython"}
loaded = sorted(heavy & set(sys.modules))
print(json.dumps([changed, loaded]))
"""


def test_importing_changes_nothing_and_loads_nothing_heavy():
    run = subprocess.run([sys.executable, "-c", STATE], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [[], []]
    assert run.stderr == ""


def test_flows_of_zuko_work_after_importing_subo():
    lines = "import subo, zuko; zuko.flows.MAF(2)().sample(); zuko.flows.NSF(2, 1)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", lines], capture_output=True, text=True, check=False)
    assert run.stderr == ""


def test_forked_random_numbers_leave_no_trace_and_come_back():
    before = torch.get_rng_state()
    with forked(3):
        inside = torch.randn(5)
    assert torch.equal(torch.get_rng_state(), before)
    with forked(3):
        assert torch.equal(torch.randn(5), inside)
    with forked(4):
        assert not torch.equal(torch.randn(5), inside)
    with contextlib.suppress(RuntimeError), forked(3):
        raise RuntimeError(torch.randn(5))
    assert torch.equal(torch.get_rng_state(), before)
