"""The training loop: what it yields, what it follows, and how it fails."""

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from shapes import unchecked_shapes
from subo import (
    ELBO,
    IWAE,
    VAE,
    Bernoulli,
    Conditional,
    DivergedError,
    DReG,
    Gaussian,
    InputError,
    Objective,
    Pathwise,
    StandardNormal,
    make,
    mlp,
    probabilistic_pca,
    train,
)
from subo.data.batches import Batch
from subo.gradients import GradientEstimator
from subo.training.fused_adam import direct_step
from subo.training.loop import Schedule
from subo.training.optimizers import make_optimizer


def small_objective(**options) -> Objective:
    model = VAE(
        StandardNormal(2),
        Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,))),
        Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,))),
    )
    return Objective(model, **options)


def bits(n: int) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, 5), 0.5))


def test_steps_are_counted_and_batches_gone_through_again():
    steps = list(train(small_objective(), [bits(4), bits(4)], steps=5))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    assert len(list(train(small_objective(), [bits(4), bits(4)]))) == 2


def test_batches_come_as_tensors_pairs_or_batches():
    x = bits(4)
    for item in (x, (x,), [x, {}], Batch(x, {}, 1.0)):
        assert len(list(train(small_objective(), [item]))) == 1
    with pytest.raises(InputError, match="a batch is x, or"):
        next(train(small_objective(), [(x, x)]))


def test_a_step_is_one_step_of_the_optimizer_along_the_gradient():
    torch.manual_seed(0)
    objective, x = small_objective(), bits(4)
    before = [p.clone() for p in objective.parameters()]
    state = torch.get_rng_state()
    gradients = torch.autograd.grad(objective(x).loss, list(objective.parameters()))
    torch.set_rng_state(state)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    next(train(objective, [x], optimizer=optimizer))
    for p, start, gradient in zip(objective.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p, start - 0.1 * gradient)


def test_weight_scales_the_gradient_of_a_share():
    torch.manual_seed(0)
    objective, x = small_objective(), bits(4)
    weights = [p.clone() for p in objective.parameters()]
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    next(train(objective, [Batch(x, {}, 0.0)], optimizer=optimizer))
    for p, start in zip(objective.parameters(), weights, strict=True):
        assert torch.equal(p, start)


def test_schedule_rises_and_decays():
    schedule = Schedule(warmup=4, decay="cosine", kl_warmup=2)
    assert [schedule.learning_rate(step, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule.learning_rate(10, 0.5) == pytest.approx(0.5)
    assert schedule.learning_rate(10, 1.0) == pytest.approx(0.0)
    assert [schedule.kl_weight(step, 0.9) for step in range(3)] == [0.5, 1.0, 1.0]
    timed = Schedule(kl_warmup=10, by_clock=True)
    assert [timed.kl_weight(4, done) for done in (0.0, 0.25, 0.3, 0.5, 1.0)] == [0.5, 0.5, 0.6, 1.0, 1.0]
    assert Schedule().learning_rate(0, 0.9) == Schedule().kl_weight(0, 0.0) == 1


def test_learning_rate_follows_the_schedule_in_training():
    objective = small_objective()
    optimizer = make_optimizer(objective, "SGD", learning_rate=0.4)
    steps = train(objective, [bits(4)], steps=4, optimizer=optimizer, schedule=Schedule(warmup=2, decay="cosine"))
    rates = [step.learning_rate for step in steps]
    shares = [0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(4)]
    assert rates == pytest.approx([0.4 * min(1, (n + 1) / 2) * share for n, share in enumerate(shares)])


def test_kl_warmup_shapes_the_gradient_and_not_the_numbers():
    torch.manual_seed(0)
    objective, x = small_objective(), bits(4)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.0)
    state = torch.get_rng_state()
    (plain,) = train(objective, [x], optimizer=optimizer)
    torch.set_rng_state(state)
    (warm,) = train(objective, [x], optimizer=optimizer, schedule=Schedule(kl_warmup=10))
    assert warm.kl_weight == pytest.approx(0.1)
    assert torch.equal(warm.loss.bound, plain.loss.bound)
    torch.set_rng_state(state)
    followed = torch.autograd.grad(objective(x, kl_weight=0.1).loss, list(objective.parameters()))
    torch.set_rng_state(state)
    beta = Objective(objective.model, ELBO(beta=0.1))
    expected = torch.autograd.grad(beta(x).loss, list(objective.parameters()))
    torch.testing.assert_close(followed, expected)


@pytest.mark.parametrize("gradient", [Pathwise(), DReG()])
def test_the_first_steps_follow_the_elbo_with_one_sample_and_the_others_the_bound(gradient: GradientEstimator):
    torch.manual_seed(0)
    objective = Objective(small_objective().model, IWAE(), gradient=gradient, num_samples=7)
    elbo, x = Objective(objective.model, ELBO()), bits(4)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.0)
    for first, plain in enumerate([elbo, elbo, objective]):
        state = torch.get_rng_state()
        schedule = Schedule(elbo=2, kl_warmup=4 if plain is elbo else 0)
        (step,) = train(objective, [x], steps=first + 1, first=first, optimizer=optimizer, schedule=schedule)
        taken = [p.grad for p in objective.parameters()]
        torch.set_rng_state(state)
        loss = plain(x, kl_weight=step.kl_weight)
        assert torch.equal(step.loss.bound, loss.bound)
        torch.testing.assert_close(taken, list(torch.autograd.grad(loss.loss, list(objective.parameters()))))


def test_processes_share_the_noise_of_as_many_samples_as_a_step_draws(monkeypatch: pytest.MonkeyPatch):
    """One in the steps that follow the ELBO, whatever the objective's number."""
    seen: list[int] = []

    def noise(batch: Batch, fabric: Any, num_samples: int) -> Any:
        seen.append(num_samples)
        return nullcontext()

    monkeypatch.setattr("subo.training.step.noise_of", noise)
    objective = Objective(small_objective().model, IWAE(), num_samples=7)
    assert len(list(train(objective, [bits(4)], steps=3, schedule=Schedule(elbo=2)))) == 3
    assert seen == [1, 1, 7]


def test_the_first_steps_refuse_an_estimator_of_another_bound():
    bits_of_z = make("vae", bits(4), likelihood="bernoulli", posterior="bernoulli", bound="iwae", num_samples=5)
    with pytest.raises(InputError, match="in the epochs that follow the ELBO: VIMCO is the gradient of IWAE"):
        next(train(bits_of_z, [bits(4)], schedule=Schedule(elbo=1)))


def test_clipping_shortens_the_gradient_and_reports_its_norm():
    torch.manual_seed(0)
    objective, x = small_objective(), bits(4)
    before = torch.cat([p.flatten() for p in objective.parameters()]).clone()
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    (step,) = train(objective, [x], optimizer=optimizer, clip=1e-3)
    after = torch.cat([p.flatten() for p in objective.parameters()])
    assert step.gradient_norm is not None
    assert step.gradient_norm > 1e-3
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("name", ["Adam", "adamw", "SGD", "RMSprop", "NAdam", "Adagrad"])
def test_any_torch_optimizer_by_name(name: str):
    objective = small_objective()
    start = [p.clone() for p in objective.parameters()]
    list(train(objective, [bits(4)], steps=2, optimizer=make_optimizer(objective, name)))
    assert any(not torch.equal(a, b) for a, b in zip(start, objective.parameters(), strict=True))


def test_unknown_optimizers_and_rates_are_refused():
    with pytest.raises(InputError, match="no optimizer 'Adem'.*AdamW"):
        make_optimizer(nn.Linear(2, 2), "Adem")
    with pytest.raises(InputError, match="learning rate must be positive"):
        make_optimizer(nn.Linear(2, 2), learning_rate=0.0)


class Broken(nn.Module):
    """A likelihood whose scale is NaN for some z."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z: torch.Tensor) -> torch.distributions.Distribution:
        loc = z[:, :1].expand(-1, 5) * torch.tensor([math.nan, 1, 1, 1, 1]) + self.weight
        return torch.distributions.Independent(torch.distributions.Normal(loc, 1.0, validate_args=False), 1)


def test_a_nonfinite_loss_names_step_term_and_mend_and_changes_nothing():
    model = VAE(StandardNormal(2), Broken(), Conditional(Gaussian((2,)), mlp(5, 4)))
    objective = Objective(model)
    before = [p.clone() for p in objective.parameters()]
    with pytest.raises(DivergedError, match=r"step 1: the distortion.* is nan for 4 of 4 examples.*learning-rate"):
        list(train(objective, [bits(4)]))
    assert all(torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))


@unchecked_shapes()
@pytest.mark.slow
def test_a_linear_vae_reaches_the_evidence_of_pca():
    """Lucas et al., 2019: the ELBO of a linear VAE has no maximum but that of the evidence."""
    torch.manual_seed(0)
    x = torch.randn(400, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64)
    x = x + 0.5 * torch.randn(400, 6, dtype=torch.float64) + torch.randn(6, dtype=torch.float64)
    best = probabilistic_pca(6, 2).double().likelihood.fit(x).log_px(x).mean()
    model = probabilistic_pca(6, 2)
    model.posterior = Conditional(Gaussian((2,), scale="per-dimension"), nn.Linear(6, 2))
    objective = Objective(model.double(), num_samples=8)
    optimizer = make_optimizer(objective, learning_rate=0.03)
    for _ in train(objective, [x], steps=1500, optimizer=optimizer, schedule=Schedule(decay="cosine")):
        pass
    reached = model.likelihood.log_px(x).mean()
    assert best - 0.01 < reached <= best


# The way past torch's step


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_direct_step_is_the_optimizers_own_bit_for_bit(kind: type):
    networks = [nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    direct, plain = (kind(n.parameters(), lr=0.1, weight_decay=0.01, fused=True) for n in networks)
    step = direct_step(direct)
    assert step != direct.step
    for number in range(12):
        x = torch.randn(4, 5)
        for network, optimizer in zip(networks, (direct, plain), strict=True):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
            if number == 5:  # a layer rests, and its moments and count with it
                for parameter in network[0].parameters():
                    parameter.grad = None
        if number == 8:
            direct.load_state_dict(direct.state_dict())
        step()
        plain.step()
        for own, reference in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            assert torch.equal(own, reference)
    counts = [{float(state["step"]) for state in optimizer.state.values()} for optimizer in (direct, plain)]
    assert counts == [{11.0, 12.0}, {11.0, 12.0}]


@pytest.mark.parametrize(
    "options",
    [
        {"amsgrad": True, "fused": True},
        {"fused": False},
        {"lr": torch.tensor(0.1), "fused": True},
        {"decoupled_weight_decay": True, "fused": True},
    ],
)
def test_every_other_optimizer_makes_its_own_step(options):
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), **options)
    assert direct_step(optimizer) == optimizer.step


def test_hooks_are_called():
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), fused=True)
    optimizer.register_step_pre_hook(lambda *_: None)
    assert direct_step(optimizer) == optimizer.step


def test_a_parameter_that_meets_its_first_gradient_late_is_taken_along():
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    other = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    other.load_state_dict(network.state_dict())
    optimizers = [torch.optim.Adam(n.parameters(), lr=0.1, fused=True) for n in (network, other)]
    steps = [direct_step(optimizers[0]), optimizers[1].step]
    for number in range(6):
        x = torch.randn(4, 3)
        for module, optimizer, step in zip((network, other), optimizers, steps, strict=True):
            optimizer.zero_grad()
            module(x).sum().backward()
            if number < 3:
                for parameter in module[1].parameters():
                    parameter.grad = None
            step()
    for own, reference in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(own, reference)
