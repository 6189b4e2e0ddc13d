"""Graphs of latents: a linear-Gaussian chain whose evidence and posterior are known, and what a graph refuses."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal
from torch.testing import assert_close

from assertions import assert_within
from shapes import unchecked_shapes
from subo import (
    ELBO,
    IWAE,
    VAE,
    Bernoulli,
    Conditional,
    Gaussian,
    InputError,
    Objective,
    ScoreFunction,
    StandardNormal,
    mlp,
)
from subo.evaluation import ais, log_marginal
from subo.evaluation.evidence.annealed import Annealing
from subo.models.graph import Child, Joint
from subo.training.fitting import fit

D3, D2, D1, D = 1, 2, 3, 4  # z3 -> z2 -> z1 -> x


def normal(loc: Tensor, covariance: Tensor) -> MultivariateNormal:
    return MultivariateNormal(loc, covariance.expand(*loc.shape, -1))


class Linear(nn.Module):
    """``N(A parent + a, C)``; its parent's name is set by whoever makes it."""

    def __init__(self, weight: Tensor, covariance: Tensor, shift: float = 0.0):
        super().__init__()
        self.weight, self.shift = nn.Parameter(weight.clone()), nn.Parameter(torch.tensor(shift).double())
        self.covariance = covariance

    def at(self, parent: Tensor) -> Distribution:
        return normal(parent @ self.weight.mT + self.shift, self.covariance)


class OfZ3(Linear):
    def forward(self, z3: Tensor) -> Distribution:
        return self.at(z3)


class OfZ2(Linear):
    def forward(self, z2: Tensor) -> Distribution:
        return self.at(z2)


class OfZ1(Linear):
    def forward(self, z1: Tensor) -> Distribution:
        return self.at(z1)


class OfX(Linear):
    def forward(self, x: Tensor) -> Distribution:
        return self.at(x)


class Likelihood(Linear):
    def forward(self, z: dict[str, Tensor]) -> Distribution:
        return self.at(z["z1"])


def eye(size: int, scale: float) -> Tensor:
    return scale * torch.eye(size, dtype=torch.float64)


def chain() -> tuple[VAE, MultivariateNormal]:
    """Three layers with their exact posterior ``q(z1|x) q(z2|z1) q(z3|z2)``, and the evidence."""
    sizes = [D3, D2, D1, D]
    weights = [torch.randn(b, a, dtype=torch.float64) for a, b in pairwise(sizes)]
    noise = [eye(D2, 0.5), eye(D1, 0.3), eye(D, 0.4)]
    marginal = [eye(D3, 1.0)]
    for weight, variance in zip(weights, noise, strict=True):
        marginal.append(weight @ marginal[-1] @ weight.mT + variance)
    prior = Joint(
        z1=OfZ2(weights[1], noise[1]),
        z2=OfZ3(weights[0], noise[0]),
        z3=lambda: normal(torch.zeros(D3, dtype=torch.float64), eye(D3, 1.0)),
    )
    backwards = []
    for weight, variance, before in zip(weights, noise, marginal[:-1], strict=True):
        precision = torch.linalg.inv(before) + weight.mT @ torch.linalg.solve(variance, weight)
        covariance = torch.linalg.inv(precision)
        backwards.append((covariance @ weight.mT @ torch.linalg.inv(variance), covariance))
    posterior = Joint(z3=OfZ2(*backwards[0]), z2=OfZ1(*backwards[1]), z1=OfX(*backwards[2]))
    evidence = MultivariateNormal(torch.zeros(D, dtype=torch.float64), marginal[-1])
    return VAE(prior, Likelihood(weights[2], noise[2]), posterior), evidence


@pytest.mark.parametrize("num_samples", [1, 3])
def test_with_the_exact_posterior_every_weight_is_the_evidence(num_samples: int):
    model, evidence = chain()
    x = evidence.sample(torch.Size([5]))
    draw = model.draw(x, num_samples=num_samples)
    z: Any = draw.z
    assert_close(draw.log_weight, evidence.log_prob(x).expand(num_samples, -1))
    assert [tuple(z[name].shape) for name in ("z3", "z2", "z1")] == [(num_samples, 5, n) for n in (D3, D2, D1)]
    assert len(draw.factors) == 3
    assert_close(model.log_joint(x, draw.z), draw.log_joint)


def test_samples_of_the_prior_have_its_covariance():
    model, evidence = chain()
    z: Any
    z, p = model.sample(20_000)
    x = p.sample()
    assert z["z2"].shape == (20_000, D2)
    assert_within(torch.einsum("ni,nj->nij", x, x), evidence.covariance_matrix)
    lone = model.prior().sample()
    assert lone["z1"].shape == (D1,)
    assert model.prior().log_prob(lone).shape == ()


@unchecked_shapes()  # the chain above is checked; here thousands of steps are taken
@pytest.mark.slow
def test_learning_reaches_the_greatest_evidence_of_a_chain():
    """Three layers of one latent each are one Gaussian latent to x: probabilistic PCA, whose maximum is known.

    With eigenvalues l of the data's covariance, ``sigma^2`` is the mean of all but the first, and the mean evidence
    ``-1/2 [D log 2 pi + log l_1 + (D - 1) log sigma^2 + D]`` (Tipping and Bishop, 1999, equation 8 and section 3.3).
    """
    x = torch.randn(200, 1).double() @ torch.tensor([[1.5, -1.0, 0.7]]).double() + 0.5 * torch.randn(200, 3) + 1
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))
    noise = eigenvalues[:-1].mean()
    greatest = -0.5 * (3 * math.log(2 * math.pi) + eigenvalues[-1].log() + 2 * noise.log() + 3)

    def child(size: int, parent: str, *, dim: int = 1) -> Child:
        family = Gaussian((dim,), "shared")
        return Child(family, nn.Linear(size, dim), parent)

    prior = Joint(z3=StandardNormal(1), z2=child(1, "z3"), z1=child(1, "z2"))
    posterior = Joint(z1=child(3, "x"), z2=child(1, "z1"), z3=child(1, "z2"))
    objective = Objective(VAE(prior, child(1, "z1", dim=3), posterior).double(), num_samples=10)
    fit(objective, x, epochs=800, batch_size=200, learning_rate=0.03, decay="cosine")
    found = objective.model.draw(x, num_samples=2000, path=False).log_weight.mean()
    assert greatest - 0.02 < found < greatest + 0.002


def shifted() -> tuple[VAE, MultivariateNormal]:
    """The chain with a posterior that is off in place at every layer."""
    model, evidence = chain()
    with torch.no_grad():
        for name, by in (("z1", 0.2), ("z2", -0.3), ("z3", 0.4)):
            model.posterior.node(name).shift.fill_(by)
    return model, evidence


def test_bounds_are_in_their_order_and_divergences_in_closed_form_agree_with_samples():
    model, evidence = shifted()
    x = evidence.sample(torch.Size([3]))
    truth = evidence.log_prob(x)
    draws = model.draw(x, num_samples=20_000)
    for factor in draws.factors:
        assert_within(factor.log_posterior - factor.log_prior - factor.rate(), 0.0)
        assert (factor.rate() > 0).all()
    weights = draws.log_weight
    elbo, iwae = weights.mean(0), (weights.view(5, -1, 3).logsumexp(0) - torch.tensor(5.0).log()).mean(0)
    assert (elbo < iwae).all()
    assert (iwae < truth).all()
    assert_close(ELBO()(draws), elbo, rtol=0, atol=0.1)
    assert_within((weights - truth).exp(), 1.0)


def test_a_divergence_is_in_closed_form_only_where_the_priors_parents_do_not_depend_on_the_node():
    x = torch.randint(2, (4, 6)).double()
    bottom_up, top_down = two_layers(), two_layers()
    top_down.posterior = Joint(
        z2=Conditional(Gaussian((2,)), mlp(6, 4)), z1=Child(Gaussian((3,)), mlp(8, 6), "z2", "x")
    )
    top_down.double()
    known = []
    for model in (bottom_up, top_down):
        draw = model.draw(x, num_samples=5000)
        known.append([factor.kl is not None for factor in draw.factors])
        for factor in draw.factors:
            if factor.kl is not None:
                assert_within(factor.log_posterior - factor.log_prior - factor.kl, 0.0)
        assert_within(draw.log_weight - ELBO(closed_form_kl=False)(draw), 0.0)
        elbos = torch.stack([ELBO()(model.draw(x, num_samples=200)) for _ in range(12)])
        others = torch.stack([ELBO(closed_form_kl=False)(model.draw(x, num_samples=200)) for _ in range(12)])
        assert_within(elbos - others, 0.0)
    assert known == [[False, True], [True, True]]  # z1, z2 and z2, z1


def test_its_gap_is_the_sum_of_divergences_layer_by_layer():
    model, evidence = shifted()
    x = evidence.sample(torch.Size([2]))
    precisions = [torch.linalg.inv(model.posterior.node(name).covariance) for name in ("z1", "z2", "z3")]
    gap = sum(0.5 * by**2 * p.sum() for by, p in zip((0.2, -0.3, 0.4), precisions, strict=True))
    assert isinstance(gap, Tensor)
    assert_within(evidence.log_prob(x) - model.draw(x, num_samples=20_000).log_weight.detach(), gap)


@pytest.mark.slow
def test_annealing_and_importance_sampling_run_on_a_graph():
    model, evidence = shifted()
    x = evidence.sample(torch.Size([3]))
    for start in ("prior", "posterior"):
        found = ais(model, x, annealing=Annealing(temperatures=10, chains=32, leapfrog_steps=4, start=start))  # pyright: ignore
        assert ((found.log_px - evidence.log_prob(x)).abs() < 5 * found.standard_error).all()
    sampled = log_marginal(model, x, num_samples=2000)
    assert sampled.rate.shape == (3, 3)
    assert ((sampled.log_px - evidence.log_prob(x)).abs() < 5 * sampled.standard_error).all()


@pytest.mark.slow
def test_gradients_along_the_path_and_by_the_score_have_the_same_mean():
    model, evidence = shifted()
    x = evidence.sample(torch.Size([2]))
    parameters = [model.posterior.node(name).shift for name in ("z1", "z2", "z3")]
    precisions = [torch.linalg.inv(model.posterior.node(name).covariance) for name in ("z1", "z2", "z3")]
    exact = torch.stack([-by * p.sum() for by, p in zip((0.2, -0.3, 0.4), precisions, strict=True)])
    for gradient, closed in ((None, True), (None, False), (ScoreFunction("leave-one-out"), False)):
        objective = Objective(model, ELBO(closed_form_kl=closed), gradient=gradient, num_samples=64)
        found = [torch.autograd.grad(-objective(x).loss, parameters) for _ in range(100)]
        assert_within(torch.stack([torch.stack(list(slopes)) for slopes in found]), exact)


def two_layers(family: Any = Gaussian) -> VAE:
    prior = Joint(z2=StandardNormal(2), z1=Child(family((3,)), mlp(2, family((3,)).num_params), "z2"))
    q1 = Conditional(family((3,)), mlp(6, family((3,)).num_params))
    posterior = Joint(z1=q1, z2=Child(Gaussian((2,)), mlp(3, 4), "z1"))
    return VAE(prior, Child(Bernoulli((6,)), mlp(3, 6), "z1"), posterior).double()


def test_networks_that_take_one_tensor_are_trained_and_measured():
    model, x = two_layers(), torch.randint(2, (5, 6)).double()
    objective = Objective(model, IWAE(), num_samples=4)
    loss = objective(x)
    assert loss.rate.shape == (2, 5)
    assert_close(loss.elbo, -(loss.rate.sum(0) + loss.distortion))
    loss.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_is_not_cut_in_a_view_is_unfolded_all_the_same():
    from subo import Laplace as LaplaceFamily

    torch.manual_seed(1)
    model, x = two_layers(LaplaceFamily), torch.randint(2, (4, 6)).double()
    draw = model.draw(x, num_samples=3)
    drawn: Any = draw.z
    lone = [model.draw(x[i : i + 1], num_samples=1) for i in range(4)]
    for b, other in enumerate(lone):  # the same densities, example by example, at the same latents
        z = {name: leaf[:, b : b + 1] for name, leaf in drawn.items()}
        assert_close(model.posterior(x[b : b + 1]).log_prob(z)[:, 0], draw.log_posterior[:, b])
        assert_close(model.log_prior(z)[:, 0], draw.log_prior[:, b])
        assert other.log_weight.shape == (1, 1)
    assert all(factor.rate().shape == (4,) for factor in draw.factors)


def test_the_context_reaches_every_node_and_is_repeated_with_its_datum():
    class OfLabel(nn.Module):
        def forward(self, label: Tensor) -> Distribution:
            return Independent(Normal(label[:, None].double().expand(-1, 2), 1.0), 1)

    class OfBoth(nn.Module):
        def forward(self, z2: Tensor, label: Tensor) -> Distribution:
            return Independent(Laplace(z2 + 10 * label[:, None], 0.1), 1)

    prior = Joint(z1=OfBoth(), z2=OfLabel())
    label = torch.tensor([0, 1, 2])
    z = prior(label=label).sample(torch.Size([2000]))
    assert z["z1"].shape == (2000, 3, 2)
    assert_within(z["z1"], torch.tensor([0.0, 11.0, 22.0]).double()[:, None])
    with pytest.raises(InputError, match=r"node 'z\d' has the parent 'label'.*Rename"):
        prior()


def test_discrete_nodes_are_drawn_and_have_no_path():
    def bits() -> Distribution:
        return Independent(TorchBernoulli(logits=torch.zeros(2)), 1)

    graph = Joint(b=bits, z=lambda b: Independent(Normal(b, 1.0), 1))
    assert graph().sample(torch.Size([7]))["z"].shape == (7, 2)
    with pytest.raises(InputError, match="node 'b' has no rsample"):
        graph().rsample()


# What is refused


@unchecked_shapes()  # and types: a user's run has neither
def test_circles_and_unknown_parents_are_refused_by_name():
    with pytest.raises(InputError, match="cycle: .*a.*b.*"):
        Joint(a=lambda b: b, b=lambda a: a)
    with pytest.raises(InputError, match="node 'a' has the parent 'missing', which is neither a node"):
        Joint(a=lambda missing: missing)()
    with pytest.raises(InputError, match="at least one node"):
        Joint()
    with pytest.raises(InputError, match="node 'a' is 3, but a node is a module"):
        Joint(a=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="node 'a' names no parent"):
        Joint(a=lambda **anything: anything)


def test_nodes_that_return_something_else_are_refused_by_name():
    with pytest.raises(InputError, match="node 'a' returned Tensor; expected a torch"):
        Joint(a=lambda: torch.zeros(2))().sample()
    with pytest.raises(InputError, match=r"node 'b' returned batch_shape \(5, 2\).*Independent"):
        Joint(a=StandardNormal(2), b=lambda a: Normal(a, 1.0))().sample(torch.Size([5]))


@unchecked_shapes()
def test_values_that_leave_a_node_out_are_refused_by_its_name():
    graph = Joint(a=StandardNormal(2), b=lambda a: Independent(Normal(a, 1.0), 1))()
    with pytest.raises(InputError, match="by name for each node, a, b; there is none for b"):
        graph.log_prob({"a": torch.zeros(5, 2)})
    with pytest.raises(InputError, match="there is none for a, b"):
        graph.log_prob(torch.zeros(5, 2))  # pyright: ignore[reportArgumentType]


def test_graphs_of_different_nodes_or_sizes_are_refused():
    x = torch.zeros(2, 6).double()
    model = two_layers()
    other = Joint(z2=StandardNormal(2), top=StandardNormal(3)).double()
    with pytest.raises(InputError, match="a Joint of the same nodes"):
        VAE(other, model.likelihood, model.posterior).draw(x)
    wide = Joint(z2=StandardNormal(5), z1=Child(Gaussian((3,)), mlp(5, 6), "z2")).double()
    with pytest.raises(
        InputError, match=r"node 'z2' is over events of shape \(5,\), but its values have the shape \(2,\)"
    ):
        VAE(wide, model.likelihood, model.posterior).draw(x)
    with pytest.raises(InputError, match="a node reads 'z9'"):
        Child(Bernoulli((6,)), mlp(3, 6), "z9")({"z1": torch.zeros(2, 3)})
    with pytest.raises(InputError, match="at least one parent"):
        Child(Bernoulli((6,)), mlp(3, 6))
