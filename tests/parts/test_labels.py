"""Labels as context: a linear model whose log p(x|c) is known, what flows to the labels' weights, what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from subo import VAE, Conditional, Gaussian, InputError, StandardNormal, mlp
from subo.data.splits import Split
from subo.evaluation import ais, bdmc, calibrate, log_marginal, log_marginal_from_prior, mutual_information
from subo.evaluation.evidence.annealed import Annealing
from subo.evaluation.reconstruction import decode
from subo.parts.labels import ByLabel, Labelled, Stack, count_labels, labelled, num_labels_of
from subo.recipes import vae
from subo.report.class_pictures import first_rows, has_discrete_prior, prior_draws, prior_of
from subo.training.fitting import fit

C, Z, D, NOISE = 3, 2, 4, 0.5
LABEL = torch.tensor([0, 2, 1, 2, 0])


pytestmark = pytest.mark.usefixtures("double_by_default")


class ExactPosterior(nn.Module):
    """``p(z|x, c)`` of a linear model."""

    def __init__(self, model: VAE):
        super().__init__()
        self._of = (model,)

    def forward(self, x: Tensor, label: Tensor) -> Distribution:
        weight, offset, prior = parts(self._of[0], label)
        precision = torch.diag_embed(prior.variance.reciprocal()) + weight.mT @ weight / NOISE**2
        target = prior.mean / prior.variance + (x - offset) @ weight / NOISE**2
        loc = torch.linalg.solve(precision, target)
        return MultivariateNormal(loc, precision_matrix=precision)


def linear_vae() -> VAE:
    """``z | c ~ N(m_c, s_c^2), x | z, c ~ N(W z + U_c + b, 0.25)``, with q a linear network's."""
    decoder = Labelled(mlp(Z + C, D, hidden=()), num_labels=C)
    encoder = Stack(nn.Tanh(), Labelled(mlp(D + C, 2 * Z, hidden=()), num_labels=C))
    prior = ByLabel(Gaussian((Z,)), num_labels=C)
    nn.init.normal_(prior.params, std=0.5)
    return VAE(prior, Conditional(Gaussian((D,), NOISE), decoder), Conditional(Gaussian((Z,)), encoder))


def parts(model: VAE, label: Tensor) -> tuple[Tensor, Tensor, Any]:
    """W, what the labels add to it, and p(z|c)."""
    linear = model.likelihood.network.network[-1]
    return linear.weight[:, :Z], linear.weight[:, Z:].mT[label] + linear.bias, model.prior(label=label)


def evidence(model: VAE, label: Tensor) -> MultivariateNormal:
    weight, offset, prior = parts(model, label)
    covariance = weight @ torch.diag_embed(prior.variance) @ weight.mT + NOISE**2 * torch.eye(D)
    return MultivariateNormal(prior.mean @ weight.mT + offset, covariance)


def test_importance_sampling_finds_log_p_of_x_given_its_class():
    model = linear_vae()
    x = evidence(model, LABEL).sample()
    truth = evidence(model, LABEL).log_prob(x)
    estimate = log_marginal(model, x, {"label": LABEL}, num_samples=5000)
    assert ((estimate.log_px - truth).abs() < 5 * estimate.standard_error).all()
    assert estimate.standard_error.max() < 0.1
    wrong = evidence(model, LABEL.flip(0) * 0 + 1).log_prob(x)  # it would be told from that of another class
    assert ((estimate.log_px - wrong).abs()[LABEL != 1] > 5 * estimate.standard_error[LABEL != 1]).any()


@pytest.mark.parametrize("num_samples", [1, 3])
def test_with_the_exact_posterior_every_weight_is_the_evidence(num_samples: int):
    model = linear_vae()
    exact = VAE(model.prior, model.likelihood, ExactPosterior(model))
    x = evidence(model, LABEL).sample()
    draw = exact.draw(x, {"label": LABEL}, num_samples=num_samples)
    assert_close(draw.log_weight, evidence(model, LABEL).log_prob(x).expand(num_samples, -1))
    assert_close(exact.log_joint(x, draw.z, {"label": LABEL}), draw.log_joint)


def test_the_gradient_in_the_labels_parameters_is_that_of_log_p_of_x_given_its_class():
    """By the exact posterior's samples, held fixed: the mean of ``grad log p(x, z|c)`` is ``grad log p(x|c)``."""
    model = linear_vae()
    linear = model.likelihood.network.network[-1]
    x = evidence(model, LABEL).sample()
    theta = [model.prior.params, linear.weight, linear.bias]
    truth = torch.autograd.grad(evidence(model, LABEL).log_prob(x).sum(), theta)
    z = ExactPosterior(model)(x, LABEL).sample(torch.Size([40 * 500]))
    found = [
        torch.autograd.grad(model.log_joint(x, part, {"label": LABEL}).sum() / 500, theta) for part in z.split(500)
    ]
    for exact, estimates in zip(truth, map(torch.stack, zip(*found, strict=True)), strict=True):
        error = estimates.std(0) / math.sqrt(len(estimates))
        assert ((estimates.mean(0) - exact).abs() <= 5 * error + 1e-9).all()
        assert (exact.abs() > 5 * error).double().mean() > 0.6


def test_the_rate_is_the_divergence_from_the_prior_of_the_class():
    model = linear_vae()
    x = torch.randn(5, D)
    draw = model.draw(x, {"label": LABEL}, num_samples=7)
    q: Any = draw.q
    loc, raw = model.prior.params[LABEL].chunk(2, 1)
    scale = Gaussian((Z,))(torch.cat([loc, raw], 1)).stddev
    mean, deviation = q.mean, q.stddev
    closed = (scale / deviation).log() + (deviation**2 + (mean - loc) ** 2) / (2 * scale**2) - 0.5
    assert_close(draw.factors[0].rate(), closed.sum(1))
    by_torch = kl_divergence(Normal(mean, deviation), Normal(loc, scale)).sum(1)
    gradients = [torch.autograd.grad(rate.sum(), model.prior.params, retain_graph=True)[0]
                 for rate in (draw.factors[0].rate(), by_torch)]  # fmt: skip
    assert_close(*gradients)
    assert (gradients[0] != 0).all()


@pytest.mark.usefixtures("errors_of_drawn_weights")
@pytest.mark.slow
def test_what_else_is_measured_is_measured_given_the_label():
    model = linear_vae()
    exact = VAE(model.prior, model.likelihood, ExactPosterior(model))
    x, context = evidence(model, LABEL).sample(), {"label": LABEL}
    truth = evidence(model, LABEL).log_prob(x)
    for found in (
        log_marginal_from_prior(model, x, context, num_samples=20_000),
        ais(model, x, context, annealing=Annealing(temperatures=10, chains=16)),
    ):
        assert ((found.log_px - truth).abs() < 5 * found.standard_error).all()
        assert found.standard_error.max() < 0.5
    sandwich = bdmc(exact, 5, context, estimator="importance", num_samples=10)
    assert_close(sandwich.lower, sandwich.upper)  # by the exact posterior, there is nothing between
    split = Split(x, labels=LABEL)
    information = mutual_information(exact, split, num_samples=50)
    assert information.marginal_kl is not None
    assert_close(torch.tensor(information.value + information.marginal_kl), torch.tensor(information.rate))
    assert information.given == ("label",)
    divergence = kl_divergence(exact.posterior(x, LABEL), as_multivariate(model.prior(label=LABEL)))
    assert abs(information.rate - divergence.mean().item()) < 5 * information.rate_se
    calibration = calibrate(exact, 200, num_ranks=19, num_bins=10, context={"label": torch.arange(200) % C})
    assert calibration.is_calibrated


def as_multivariate(p: Any) -> MultivariateNormal:
    return MultivariateNormal(p.mean, torch.diag_embed(p.variance))


def test_a_prior_by_label_begins_at_the_familys_plainest_member():
    start = ByLabel(Gaussian((Z,)), num_labels=C)(label=LABEL)
    z = torch.randn(5, Z)
    assert_close(start.log_prob(z), StandardNormal(Z)().log_prob(z))


@pytest.mark.parametrize("network", ["mlp", "residual", "conv"])
def test_gradients_flow_to_the_weights_of_the_classes_in_the_batch_and_of_no_other(network: Any):
    objective = vae((1, 8, 8), likelihood="bernoulli", latent_dim=2, condition="labels", num_labels=3,
                    network=network, hidden=(8, 8), channels=(3, 4), closed_form_kl=False)  # fmt: skip
    model: Any = objective.model
    label = torch.tensor([0, 2, 2, 0])
    objective(torch.rand(4, 1, 8, 8).round(), {"label": label}).loss.backward()
    present, absent = torch.tensor([0, 2]), 1
    first = {"mlp": lambda n: n[1], "residual": lambda n: n[1], "conv": lambda n: n[0]}[network]
    encoder = first(model.posterior.network[1].network).weight.grad[:, -3:]
    decoder = (model.likelihood.network.network.network[1] if network != "conv"
               else model.likelihood.network.network.network[0]).weight.grad[:, -3:]  # fmt: skip
    for gradient in (encoder.transpose(0, 1), decoder.mT, model.prior.params.grad):
        assert (gradient[present].flatten(1).abs().amax(1) > 0).all()
        assert (gradient[absent] == 0).all()


def test_a_row_is_told_its_own_label_whatever_stands_beside_it():
    model = linear_vae()
    x, z = torch.randn(5, D), torch.randn(3, 5, Z)
    together = model.log_joint(x, z, {"label": LABEL})
    alone = [model.log_joint(x[i : i + 1], z[:, i : i + 1], {"label": LABEL[i : i + 1]}) for i in range(5)]
    assert_close(together, torch.cat(alone, 1))
    assert (model.log_joint(x, z, {"label": LABEL.roll(1)}) - together).abs()[:, LABEL.roll(1) != LABEL].min() > 1e-6


def test_the_label_stands_beside_the_input():
    flat = Labelled(nn.Identity(), num_labels=3)(torch.ones(2, 1, 2, 2), torch.tensor([2, 0]))
    assert flat.tolist() == [[1.0] * 4 + [0, 0, 1], [1.0] * 4 + [1, 0, 0]]
    images = Labelled(nn.Identity(), num_labels=3, planes=True)(torch.full((2, 1, 2, 2), 7.0), torch.tensor([2, 0]))
    assert images.shape == (2, 4, 2, 2)
    assert [images[0, c].unique().tolist() for c in range(4)] == [[7], [0], [0], [1]]
    for planes, wider in ((False, (183,)), (True, (8, 6, 6))):
        shapes = []
        labelled(
            lambda shape, to=shapes: to.append(tuple(shape)) or nn.Identity(), (5, 6, 6), num_labels=3, planes=planes
        )
        assert shapes == [wider]
    with pytest.raises(InputError, match="at least 1"):
        labelled(lambda shape: nn.Identity(), (4,), num_labels=0)


@pytest.mark.parametrize("options", [
    {}, {"network": "conv", "channels": (3,), "hidden": (8,)}, {"prior": "mixture"}, {"prior": "normal"},
    {"prior": "spline-flow"}, {"posterior": "bernoulli"}, {"posterior": "categorical"}, {"posterior": "full-rank"},
    {"inference": "semi-amortized"}, {"inference": "local", "num_data": 4}, {"bound": "iwae", "num_samples": 3},
], ids=str)  # fmt: skip
def test_every_combination_trains_and_samples_by_class(options: dict[str, Any]):
    settings = {"hidden": (8,), "latent_dim": 2, "condition": "labels", "num_labels": 3} | options
    objective = vae((1, 8, 8), likelihood="bernoulli", **settings)
    model: Any = objective.model
    context = {"label": torch.tensor([0, 2, 1, 2]), "index": torch.arange(4)}
    loss = objective(torch.rand(4, 1, 8, 8).round(), context)
    loss.loss.backward()
    assert loss.bound.isfinite().all()
    assert all(p.grad is None or p.grad.is_sparse or p.grad.isfinite().all() for p in objective.parameters())
    z, p = model.sample(4, context)
    assert p.batch_shape == (4,)
    assert num_labels_of(model) == 3
    other = model.decode(z, {"label": torch.tensor([1, 0, 0, 1])})
    assert ((other.mean - p.mean).flatten(1).abs().amax(1) > 0).all()
    assert has_discrete_prior(model) == (options.get("posterior") in ("bernoulli", "categorical"))


def test_the_priors_picture_mixes_the_classes_by_their_shares():
    model = linear_vae()
    z = torch.randn(7, Z)
    labels = torch.tensor([0, 0, 0, 2])
    of_class = torch.stack([model.prior(label=torch.full((7,), c)).log_prob(z) for c in range(C)])
    truth = (of_class + torch.tensor([0.75, 0.0, 0.25]).log()[:, None]).logsumexp(0)
    assert_close(prior_of(model, labels).log_prob(z), truth)
    assert_close(prior_of(model).log_prob(z), of_class.logsumexp(0) - math.log(C))
    drawn, p = prior_draws(model, 10)
    assert isinstance(drawn, Tensor)
    assert len(drawn) == 12  # four of each
    assert_close(p.mean, model.decode(drawn, {"label": torch.arange(3).repeat_interleave(4)}).mean)
    assert_close(decode(model, drawn, {"label": torch.arange(3).repeat_interleave(4)}, batch_size=5), p.mean)
    rows, classes = first_rows(torch.arange(3 * 80.0)[:, None], ("a", "b", "c"))
    assert classes == ("a", "b", "c")
    assert rows[:, 0].tolist() == [*range(33), *range(80, 113), *range(160, 193)]


# What is refused


@pytest.mark.parametrize(("label", "words"), [
    (None, ["needs the context 'label'"]),
    (torch.tensor([0, 1]), [r"\(5,\)", r"\(2,\)"]),
    (torch.tensor(2), [r"shape \(\)"]),
    (torch.eye(5, 3), [r"\(5, 3\)"]),
    (torch.zeros(5), ["torch.float"]),
    (torch.tensor([0, 1, 3, 0, 0]), ["holds 3", "0 to 2"]),
    (torch.tensor([0, -1, 2, 0, 0]), ["holds -1", "0 to 2"]),
], ids=str)  # fmt: skip
def test_labels_that_a_model_cannot_use(label: Tensor | None, words: list[str]):
    model = linear_vae()
    context = {} if label is None else {"label": label}
    shared = VAE(StandardNormal(Z), model.likelihood, model.posterior)
    for word in words:
        for refused in (model, shared):
            with pytest.raises(InputError, match=word):
                refused.draw(torch.zeros(5, D), context)
            with pytest.raises(InputError, match=word):
                shared.sample(5, context)
    if label is None or label.ndim != 1:
        with pytest.raises(InputError, match=words[0] if label is None else "one integer per row"):
            model.sample(5, context)


def test_a_context_of_another_length_is_no_sample():
    with pytest.raises(InputError, match="2 rows, but 5 samples"):
        linear_vae().sample(5, {"label": torch.tensor([0, 1])})


def test_settings_and_labels_that_make_no_sense():
    settings: list[tuple[dict[str, Any], str]] = [
        ({"condition": "labels"}, "needs num_labels"),
        ({"condition": "labels", "num_labels": 0}, "at least 1, not 0"),
        ({"condition": "labels", "num_labels": 3, "prior": "vamp"}, "vamp"),
    ]
    for options, words in settings:
        with pytest.raises(InputError, match=words):
            vae((4,), likelihood="bernoulli", **options)
    labels = torch.tensor([0, 1, 4])
    assert count_labels([labels, torch.tensor([2, 3, 3])]) == 5
    assert count_labels([labels], asked=7) == 7
    for parts_, asked, words in (
        ([labels, None], None, "there are no labels"),
        ([labels], 4, "row 3 has the label 4"),
        ([torch.tensor([1, -2])], None, "row 2 has the label -2"),
        ([torch.tensor([0, 99_999])], None, "not classes"),
    ):
        with pytest.raises(InputError, match=words):
            count_labels(parts_, asked=asked)


def test_fit_refuses_data_without_labels():
    objective = vae((4,), likelihood="bernoulli", condition="labels", num_labels=2, hidden=(4,), latent_dim=2)
    with pytest.raises(InputError, match="needs the context 'label'"):
        fit(objective, Split(torch.ones(6, 4)), epochs=1)
