"""Ladders: a linear-Gaussian one whose evidence and posterior are known, and gradients against quadrature."""

import math
from typing import Any

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from assertions import assert_within
from subo import (
    ELBO,
    IWAE,
    VIMCO,
    Bernoulli,
    Block,
    BottomUp,
    Conditional,
    Correction,
    DReG,
    Gaussian,
    InputError,
    InverseAutoregressiveFlow,
    Ladder,
    Objective,
    Pathwise,
    PrecisionWeighted,
    ScoreFunction,
    StickingTheLanding,
    Update,
    mlp,
)
from subo.evaluation import ais, bdmc, gaps, log_marginal
from subo.evaluation.evidence.annealed import Annealing
from subo.inference.ascent import Ascent
from subo.training.updates import at_rest, make_updates

DIMS, STATE, DATA = (1, 2, 3), 4, 5  # of z3, z2, z1; of h; of x


pytestmark = pytest.mark.usefixtures("double_by_default")


class Same(nn.Module):
    """The data themselves as the features of every block."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x] * self.count


class Affine(nn.Module):
    """``h, z -> U h + u + V z``."""

    def __init__(self, state: int, dim: int):
        super().__init__()
        self.carry, self.write = nn.Linear(state, state), nn.Linear(dim, state, bias=False)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return self.carry(h) + self.write(z)


class Exact(nn.Module):
    """``p(z_l | z_{>l}, x)`` of a linear-Gaussian ladder, moved aside by `shift`."""

    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.shift = shift
        self.below: Any = None  # what x is, given the state below the block

    def forward(self, h: Tensor, features: Tensor, p: Distribution) -> Distribution:
        block, (weight, offset, noise) = self.below
        gain = weight @ block.update.write.weight
        expected = block.update.carry(h) @ weight.mT + offset + p.mean @ gain.mT
        precision = torch.diag(p.variance[0].reciprocal()) + gain.mT @ torch.linalg.solve(noise, gain)
        covariance = torch.linalg.inv(precision)
        step = covariance @ gain.mT @ torch.linalg.inv(noise)
        return MultivariateNormal(p.mean + (features - expected) @ step.mT + self.shift, covariance)


def linear_ladder(shift: float = 0.0) -> tuple[Ladder, MultivariateNormal]:
    """Three layers with their exact posterior, if it is not moved, and p(x).

    From the bottom upwards, x is ``N(W h + w, C)`` given the state above each block.
    """
    torch.manual_seed(1)
    blocks = [
        Block(Conditional(Gaussian((dim,), 0.8), nn.Linear(STATE, dim)), Exact(shift), Affine(STATE, dim))
        for dim in DIMS
    ]
    likelihood = Conditional(Gaussian((DATA,), 0.5), nn.Linear(STATE, DATA))
    model = Ladder(blocks, Same(3), likelihood, start=torch.randn(STATE))
    with torch.no_grad():
        output: Any = likelihood.network
        weight, offset, noise = output.weight, output.bias, 0.25 * torch.eye(DATA)
        for block in blocks[::-1]:
            block.posterior.below = block, (weight, offset, noise)
            prior, write = block.prior.network, block.update.write.weight
            gain = weight @ write
            noise = noise + 0.64 * gain @ gain.mT
            offset = offset + weight @ block.update.carry.bias + gain @ prior.bias
            weight = weight @ block.update.carry.weight + gain @ prior.weight
        return model, MultivariateNormal(weight @ model.start + offset, noise)


# Densities


@pytest.mark.parametrize("num_samples", [1, 3])
def test_with_the_exact_posterior_every_weight_is_the_evidence(num_samples: int):
    model, evidence = linear_ladder()
    x = evidence.sample(torch.Size([6]))
    draw: Any = model.draw(x, num_samples=num_samples)
    assert_close(draw.log_weight, evidence.log_prob(x).expand(num_samples, -1))
    z: Any = draw.z
    assert {name: tuple(leaf.shape) for name, leaf in z.items()} == {
        name: (num_samples, 6, dim) for name, dim in zip(("z3", "z2", "z1"), DIMS, strict=True)
    }
    assert_close(model.log_joint(x, z), draw.log_joint)
    assert_close(model.log_prior(z), draw.log_prior)
    assert_close(draw.q.log_prob(z), draw.log_posterior)
    assert_close(draw.q.log_prob({name: leaf[0] for name, leaf in z.items()}), draw.log_posterior[0])


def joint_of(model: Ladder) -> MultivariateNormal:
    """``p(z3, z2, z1, x)``: every variable as an affine map of the noises, one after another."""
    total = sum(DIMS) + DATA
    mean, loading, place = model.start, torch.zeros(STATE, total), 0
    means, loadings = [], []
    blocks: Any = model.blocks
    for block, dim in zip(blocks, DIMS, strict=True):
        own = torch.zeros(dim, total)
        own[:, place : place + dim] = 0.8 * torch.eye(dim)
        prior, update = block.prior.network, block.update
        z_mean, z_loading = prior.weight @ mean + prior.bias, prior.weight @ loading + own
        mean = update.carry(mean) + update.write(z_mean)
        loading = update.carry.weight @ loading + update.write.weight @ z_loading
        means.append(z_mean)
        loadings.append(z_loading)
        place += dim
    output = model.likelihood.network
    own = torch.zeros(DATA, total)
    own[:, place:] = 0.5 * torch.eye(DATA)
    loadings = torch.cat([*loadings, output.weight @ loading + own])
    return MultivariateNormal(torch.cat([*means, output.weight @ mean + output.bias]), loadings @ loadings.mT)


def test_the_joint_density_is_that_of_one_gaussian_in_value_and_gradient():
    model, _ = linear_ladder()
    joint = joint_of(model)
    values = torch.randn(4, 3, sum(DIMS) + DATA)
    values[..., sum(DIMS) :] = values[:1, :, sum(DIMS) :]  # one x for the K latents of an example
    rows, truth_rows = values.clone().requires_grad_(), values.clone().requires_grad_()
    z3, z2, z1, x = rows.split([*DIMS, DATA], dim=-1)
    found, truth = model.log_joint(x[0], {"z3": z3, "z2": z2, "z1": z1}), joint.log_prob(truth_rows)
    assert_close(found, truth)
    of_latents = [
        torch.autograd.grad(v.sum(), r, retain_graph=True)[0] for v, r in ((found, rows), (truth, truth_rows))
    ]
    assert_close(of_latents[0][..., : sum(DIMS)], of_latents[1][..., : sum(DIMS)])
    weights = torch.randn(4, 3)
    theta = [p for name, p in model.named_parameters() if "posterior" not in name]
    slopes = [torch.autograd.grad((weights * v).sum(), theta) for v in (found, truth)]
    for one, other in zip(*slopes, strict=True):
        assert_close(one, other)


def test_samples_have_the_moments_of_the_joint_density():
    model, _ = linear_ladder()
    joint, z = joint_of(model), {}
    with torch.no_grad():
        z, p = model.sample(20_000)
        values = torch.cat([z["z3"], z["z2"], z["z1"], p.sample()], dim=-1) - joint.mean
    assert_within(values, 0.0)
    assert_within(torch.einsum("ni,nj->nij", values, values), joint.covariance_matrix.detach())
    assert_close(model.decode(z).mean, p.mean)


def test_samples_given_upper_layers_have_the_moments_of_that_conditional():
    model, _ = linear_ladder()
    with torch.no_grad():
        joint, upper = joint_of(model), sum(DIMS[:2])
        top, fixed = model.sample(1)[0], torch.Size([20_000])
        held = {name: top[name].expand(*fixed, -1) for name in ("z3", "z2")}
        z, p = model.sample(20_000, fixed=held)
        covariance = joint.covariance_matrix
        values = torch.cat([top["z3"], top["z2"]], dim=1)[0] - joint.mean[:upper]
        step = torch.linalg.solve(covariance[:upper, :upper], covariance[:upper, upper:]).mT
        rest = torch.cat([z["z1"], p.sample()], dim=-1) - joint.mean[upper:] - step @ values
        conditional = covariance[upper:, upper:] - step @ covariance[:upper, upper:]
    assert list(z) == ["z3", "z2", "z1"]
    assert torch.equal(z["z2"], held["z2"])
    assert_within(rest, 0.0)
    assert_within(torch.einsum("ni,nj->nij", rest, rest), conditional)


def test_the_posterior_draws_as_the_model_does():
    model, evidence = linear_ladder(shift=0.3)
    x = evidence.sample(torch.Size([2]))
    q: Any = model.draw(x).q
    assert q.batch_shape == (2,)
    drawn: Any
    with torch.no_grad():
        z, drawn = q.sample(torch.Size([20_000])), model.draw(x, num_samples=20_000).z
    for name in ("z3", "z2", "z1"):
        both: Any = torch.stack([z[name], drawn[name]])
        assert_within(both[0] - both[1], 0.0)
        assert_within(both[0].square() - both[1].square(), 0.0)
    lone: Any = q.rsample()
    assert [tuple(leaf.shape) for leaf in lone.values()] == [(2, dim) for dim in DIMS]
    assert q.log_prob(lone).shape == (2,)
    assert q.has_rsample


def test_bounds_are_in_their_order_and_divergences_agree_with_samples():
    model, evidence = linear_ladder(shift=0.2)
    x = evidence.sample(torch.Size([3]))
    truth = evidence.log_prob(x)
    with torch.no_grad():
        draw = model.draw(x, num_samples=20_000)
        assert [f.kl is not None and tuple(f.kl.shape) for f in draw.factors] == [(3,), (20_000, 3), (20_000, 3)]
        for factor in draw.factors:
            assert_within(factor.log_posterior - factor.log_prior - factor.rate(), 0.0)
        weights = draw.log_weight
        elbo, iwae = weights.mean(0), (weights.view(5, -1, 3).logsumexp(0) - math.log(5)).mean(0)
        assert (elbo < iwae).all()
        assert (iwae < truth).all()
        assert_within((weights - truth).exp(), 1.0)
        gap = []
        for block in model.blocks:  # its divergence from the exact posterior, level by level
            module: Any = block
            h, features = torch.zeros(1, STATE), torch.zeros(1, DATA)
            precision = module.posterior(h, features, module.prior(h)).precision_matrix[0]
            gap.append(0.5 * 0.04 * precision.sum())
        assert_within(truth - weights, sum(gap))


# Gradients, of a ladder with two latents whose every layer bends with the one above


def tiny_ladder(merge: str = "correction", *, layers: int = 2) -> Ladder:
    torch.manual_seed(2)

    def block() -> Block:
        prior = Conditional(Gaussian((1,)), nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
        width = 2 + 3 if merge == "correction" else 3
        proposal = Conditional(Gaussian((1,)), nn.Sequential(nn.Linear(width, 2), nn.Tanh()))
        posterior = Correction(proposal) if merge == "correction" else PrecisionWeighted(proposal)
        return Block(prior, posterior, Update(nn.Linear(1, 2), nn.Sequential(nn.Tanh(), nn.Linear(2, 2))))

    likelihood = Conditional(Bernoulli((3,)), nn.Linear(2, 3))
    model = Ladder([block() for _ in range(layers)], Same(layers), likelihood, start=torch.randn(2))
    return model


NODES, WEIGHTS = (torch.tensor(values) for values in hermegauss(40))


def weights_at_nodes(model: Ladder, x: Tensor, merge: str = "correction") -> tuple[Tensor, Tensor]:
    """Log-weights of one example at all pairs of standard-normal nodes, and the nodes' probabilities: by hand."""
    square, log_weight, blocks = (len(NODES), len(NODES)), torch.zeros(()), model.blocks
    h, x = model.start.expand(*square, 2), x.expand(*square, 3)
    for module, noise in zip(blocks, (NODES[:, None], NODES[None, :]), strict=True):
        block: Any = module
        p_loc, p_raw = block.prior.network(h).unbind(-1)
        p_scale = block.prior.family.location_scale.scale.of(p_raw)
        seen = torch.cat([h, x], dim=-1) if merge == "correction" else x
        loc, raw = block.posterior.proposal.network(seen).unbind(-1)
        scale = block.posterior.proposal.family.location_scale.scale.of(raw)
        if merge == "correction":
            q_loc, q_scale = p_loc + loc, p_scale * scale
        else:
            precision = p_scale**-2 + scale**-2
            q_loc, q_scale = (p_loc * p_scale**-2 + loc * scale**-2) / precision, precision**-0.5
        z = q_loc + q_scale * noise
        log_weight = log_weight + Normal(p_loc, p_scale).log_prob(z) - Normal(q_loc, q_scale).log_prob(z)
        h = block.update.network(h + block.update.project(z[..., None]))
    logits = model.likelihood.network(h)
    log_weight = log_weight + TorchBernoulli(logits=logits).log_prob(x).sum(-1)
    probability = WEIGHTS[:, None] * WEIGHTS[None, :] / (2 * math.pi)
    return log_weight.flatten(), probability.flatten()


def exact_bound(model: Ladder, x: Tensor, bound: Any, merge: str = "correction") -> Tensor:
    """The mean of the bound over one example's samples: one sample of the ELBO, two of IWAE."""
    log_weight, probability = weights_at_nodes(model, x, merge)
    if isinstance(bound, ELBO):
        return probability @ log_weight
    pairs = torch.logaddexp(log_weight[:, None], log_weight[None, :]) - math.log(2)
    return probability @ pairs @ probability


BITS = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
ESTIMATORS: dict[str, tuple[Any, Any, int, int]] = {  # estimator, bound, samples per example, copies of it
    "pathwise": (Pathwise(), ELBO(), 2, 500),
    "pathwise, by samples": (Pathwise(), ELBO(closed_form_kl=False), 2, 500),
    "pathwise, iwae": (Pathwise(), IWAE(), 2, 1000),
    "score, one sample": (ScoreFunction("none"), ELBO(), 1, 5000),
    "score, one sample, by samples": (ScoreFunction("none"), ELBO(closed_form_kl=False), 1, 5000),
    "score, leave-one-out": (ScoreFunction("leave-one-out"), ELBO(), 4, 1000),
    "score, iwae": (ScoreFunction("none"), IWAE(), 2, 4000),
    "vimco": (VIMCO(), IWAE(), 2, 4000),
}


@pytest.mark.parametrize("merge", ["correction", "precision"])
@pytest.mark.parametrize("label", ESTIMATORS)
def test_every_estimator_has_the_gradient_of_the_exact_bound(label: str, merge: str):
    gradient, bound, num_samples, copies = ESTIMATORS[label]
    model = tiny_ladder(merge)
    parameters = list(model.parameters())
    exact = exact_bound(model, BITS, bound, merge)
    truth = torch.cat([g.flatten() for g in torch.autograd.grad(exact, parameters)])
    objective = Objective(model, bound, gradient=gradient, num_samples=num_samples)
    rounds, values = [], []
    for _ in range(30):  # each the mean over independent copies of one example
        loss = objective(BITS.expand(copies, -1))
        values.append(loss.bound.mean().detach())
        rounds.append(torch.cat([-g.flatten() for g in torch.autograd.grad(loss.loss, parameters)]))
    assert_within(torch.stack(rounds), truth)
    assert_within(torch.stack(values), exact.detach())
    assert (truth.abs() > 1e-4).sum() > 20  # there is something to be found in most parameters


def test_estimators_derived_for_one_layer_say_so_and_take_a_ladder_of_one():
    x = BITS.expand(4, -1)
    for gradient, bound in ((StickingTheLanding(), ELBO()), (DReG(), IWAE())):
        with pytest.raises(InputError, match="exact for one stochastic layer, but this model has 2"):
            Objective(tiny_ladder(), bound, gradient=gradient, num_samples=2)(x)
        assert Objective(tiny_ladder(layers=1), bound, gradient=gradient, num_samples=2)(x).bound.shape == (4,)


def exact_log_px(model: Ladder, x: Tensor) -> Tensor:
    log_weight, probability = weights_at_nodes(model, x)
    return (probability.log() + log_weight).logsumexp(0)


@pytest.mark.slow
def test_importance_sampling_annealing_and_brackets_find_the_evidence():
    model = tiny_ladder()
    x = torch.stack([BITS, 1 - BITS])
    truth = torch.stack([exact_log_px(model, row) for row in x]).detach()
    sampled = log_marginal(model, x, num_samples=5000)
    assert sampled.rate.shape == (2, 2)
    assert ((sampled.log_px - truth).abs() < 5 * sampled.standard_error).all()
    for start in ("prior", "posterior"):
        found = ais(model, x, annealing=Annealing(temperatures=2, chains=32, leapfrog_steps=1, start=start))  # pyright: ignore
        assert ((found.log_px - truth).abs() < 5 * found.standard_error).all()
    sandwich = bdmc(model, 50, estimator="importance", num_samples=20)
    assert (sandwich.upper - sandwich.lower).mean() > 0


def test_the_gaps_are_those_to_the_evidence_and_a_refitted_posterior_closes_one():
    model, x = tiny_ladder(), BITS.expand(1, -1)
    with torch.no_grad():
        exact = exact_bound(model, BITS, ELBO())
        found = gaps(
            model,
            x,
            ascent=Ascent(steps=60, num_samples=4),
            num_samples=1000,
            elbo_samples=1000,
            annealing=None,
            richer=None,
        )
    assert (found.elbo - exact).abs() < 5 * found.elbo_se
    assert (found.log_px - exact_log_px(model, BITS).detach()).abs() < 5 * found.log_px_se
    assert found.elbo_best - found.elbo > 5 * found.elbo_se
    assert found.log_px - found.elbo_best > -5 * found.elbo_best_se


def test_phi_is_what_only_the_posterior_uses():
    model = tiny_ladder()
    turns = at_rest(Objective(model), make_updates("alternating"))
    theta = {id(p) for p in turns["posterior"]}
    z: Any = model.draw(BITS.expand(2, -1), path=False).z
    used = torch.autograd.grad(
        model.log_joint(BITS.expand(2, -1), z).sum(), list(model.parameters()), allow_unused=True
    )
    for (name, parameter), slope in zip(model.named_parameters(), used, strict=True):
        assert (id(parameter) in theta) == (slope is not None), name


# Merges


class Constant(nn.Module):
    """The same distribution, whatever is given."""

    def __init__(self, distribution: Distribution):
        super().__init__()
        self.distribution = distribution

    def forward(self, input: Tensor) -> Distribution:
        return self.distribution


def gaussian(loc: Tensor, scale: Tensor) -> Any:
    return Gaussian((2,))(torch.cat([loc, _raw(scale)], dim=1))


def _raw(scale: Tensor) -> Tensor:
    """What the family makes `scale` of: softplus backwards."""
    beta, floor = math.log(2) / (1 - 1e-3), 1e-3
    return torch.log(torch.expm1(beta * (scale - floor))) / beta


def test_the_precision_weighted_posterior_is_the_product_of_two_gaussians():
    locs, scales = torch.randn(2, 4, 2), 0.2 + torch.rand(2, 4, 2)
    p, own = (gaussian(loc, scale) for loc, scale in zip(locs, scales, strict=True))
    assert_close(p.scale, scales[0])
    q = PrecisionWeighted(Constant(own))(torch.zeros(4, 1), torch.zeros(4, 1), p)
    z = torch.randn(50, 4, 2)
    excess = q.log_prob(z) - p.log_prob(z) - own.log_prob(z)
    assert_close(excess, excess[:1].expand_as(excess))  # the same function of z, up to its normalizer
    assert_close(q.variance.reciprocal(), p.variance.reciprocal() + own.variance.reciprocal())


def test_a_correction_of_nothing_leaves_the_prior():
    p = gaussian(torch.randn(4, 2), 0.2 + torch.rand(4, 2))
    zeros = Conditional(Gaussian((2,)), nn.Linear(6, 4))
    nn.init.zeros_(zeros.network.weight), nn.init.zeros_(zeros.network.bias)  # pyright: ignore
    q = Correction(zeros)(torch.randn(4, 3), torch.randn(4, 3), p)
    assert_close(kl_divergence(q, p), torch.zeros(4))
    moved = Correction(Constant(gaussian(torch.ones(4, 2), torch.full((4, 2), 0.5))))
    q = moved(torch.zeros(4, 1), torch.zeros(4, 1), p)
    assert_close(q.loc, p.loc + 1)
    assert_close(q.scale, p.scale / 2)


@pytest.mark.parametrize("merge", [Correction, PrecisionWeighted])
def test_merges_take_gaussians_alone(merge: Any):
    p = Independent(TorchBernoulli(logits=torch.zeros(4, 2)), 1)
    with pytest.raises(InputError, match="merges Gaussians, but its prior returned a Independent"):
        merge(Conditional(Gaussian((2,)), mlp(2, 4)))(torch.zeros(4, 1), torch.zeros(4, 1), p)


# Other layers, contexts


class Free(nn.Module):
    """A posterior of any family, which does not look at the prior."""

    def __init__(self, family: Any):
        super().__init__()
        self.conditional = Conditional(family, mlp(5, family.num_params, hidden=(4,)))

    def forward(self, h: Tensor, features: Tensor, p: Distribution) -> Distribution:
        return self.conditional(torch.cat([h, features], 1))


def of_families(prior: Any, posterior: Any) -> Ladder:
    def block() -> Block:
        return Block(
            Conditional(prior, mlp(2, prior.num_params, hidden=(4,))),
            Free(posterior),
            Update(nn.Linear(2, 2), mlp(2, 2, hidden=(4,))),
        )

    return Ladder(
        [block(), block()], Same(2), Conditional(Bernoulli((3,)), mlp(2, 3, hidden=(4,))), start=torch.zeros(2)
    )


def test_bits_are_drawn_by_the_score_and_have_no_path():
    model, x = of_families(Bernoulli((2,)), Bernoulli((2,))), BITS.expand(4, -1)
    draw: Any = model.draw(x, num_samples=3, path=False)
    assert [f.kl is not None and tuple(f.kl.shape) for f in draw.factors] == [(4,), (3, 4)]
    assert not draw.q.has_rsample
    with pytest.raises(InputError, match="has no rsample.*ScoreFunction"):
        model.draw(x)
    values = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)[:, None].expand(-1, 4, -1)
    z = {"z2": values[..., :2].contiguous(), "z1": values[..., 2:].contiguous()}  # all values there are
    assert_close(model.log_prior(z).logsumexp(0), torch.zeros(4))
    assert_close(draw.q.log_prob(z).logsumexp(0), torch.zeros(4))
    exact = (draw.q.log_prob(z).exp() * (model.log_joint(x, z) - draw.q.log_prob(z))).sum(0)
    with torch.no_grad():
        many = model.draw(x, num_samples=20_000, path=False)
    assert_within(many.log_weight, exact.detach())


def test_flows_bring_their_density_with_the_sample():
    model, x = (
        of_families(Gaussian((2,)), InverseAutoregressiveFlow((2,), context_dim=3, hidden=(8,))),
        BITS.expand(4, -1),
    )
    draw: Any = model.draw(x, num_samples=3)
    assert_close(draw.log_posterior, draw.q.log_prob(draw.z), rtol=1e-5, atol=1e-5)
    assert all(factor.kl is None for factor in draw.factors)
    assert draw.factors[1].rate().shape == (4,)


def test_the_context_reaches_the_pass_up_and_the_likelihood_with_its_datum():
    class Up(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> list[Tensor]:
            return [x + label[:, None]] * 2

    class Decoder(nn.Module):
        def forward(self, h: Tensor, label: Tensor) -> Distribution:
            return Independent(Normal(h[:, :1] + 10 * label[:, None], 1.0), 1)

    model = tiny_ladder()
    model.bottom_up, model.likelihood = Up(), Decoder()
    x, label = torch.randn(3, 3), torch.tensor([0.0, 1.0, 2.0])
    with pytest.raises(InputError, match="needs the context 'label'"):
        model.draw(x)
    model.likelihood = Decoder()
    x = torch.randn(3, 1)
    model.bottom_up.forward = lambda x, label: [x.expand(-1, 3) + label[:, None]] * 2  # pyright: ignore
    draw: Any = model.draw(x, {"label": label}, num_samples=4)
    for b in range(3):  # the same densities, example by example
        z = {name: leaf[:, b : b + 1] for name, leaf in draw.z.items()}
        own = {"label": label[b : b + 1]}
        q: Any = model.draw(x[b : b + 1], own).q
        assert_close(model.log_joint(x[b : b + 1], z, own)[:, 0], draw.log_joint[:, b])
        assert_close(q.log_prob(z)[:, 0], draw.log_posterior[:, b])
    _, p = model.sample(3, {"label": label})
    assert_close((p.mean[:, 0] / 10).round(), label, atol=1, rtol=0)


# What is refused


def test_what_modules_return_is_checked_by_layer():
    model, x = tiny_ladder(), BITS.expand(4, -1)
    with pytest.raises(InputError, match="num_samples must be at least 1"):
        model.draw(x, num_samples=0)
    model.bottom_up = Same(3)
    with pytest.raises(InputError, match="expected a tensor of 4 rows for each of 2 blocks"):
        model.draw(x)
    model.bottom_up, block = BottomUp(nn.Linear(3, 3), nn.Linear(3, 3)), model.blocks[1]
    assert model.draw(x).log_weight.shape == (1, 4)
    wide: Any = Block(nn.Linear(2, 2), block.posterior, block.update)  # pyright: ignore
    model.blocks[1] = wide
    with pytest.raises(InputError, match="the prior of z1 returned Tensor"):
        model.draw(x)
    wide.prior = Conditional(Gaussian((2,)), nn.Linear(2, 4))
    wide.posterior = Free(Gaussian((1,)))
    with pytest.raises(InputError, match=r"the posterior of z1 returned .*\(1,\); expected \(4,\), \(2,\)"):
        model.draw(x)
    with pytest.raises(InputError, match="the likelihood returned .*expected"):
        tiny_ladder().log_joint(torch.zeros(4, 2), tiny_ladder().draw(x).z)
    with pytest.raises(InputError, match="at least one block"):
        Ladder([], Same(0), nn.Identity(), start=torch.zeros(2))


def test_latents_of_other_layers_are_refused():
    model, z = tiny_ladder(), torch.zeros(1, 4, 1)
    for wrong in (z, {"z2": z}, {"z1": z, "z2": z, "z3": z}):
        with pytest.raises(InputError, match="latents of a ladder are a dict of z2, z1; got"):
            model.log_prior(wrong)
    with pytest.raises(InputError, match="the fixed layers are z1; expected the first ones"):
        model.sample(4, fixed={"z1": torch.zeros(4, 1)})
    with pytest.raises(InputError, match="z2 has 3 rows, but 4 samples"):
        model.sample(4, fixed={"z2": torch.zeros(3, 1)})
