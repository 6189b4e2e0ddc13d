"""Schedules of theta and phi: what each batch moves, when aggressive updates end, and going on bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shapes import unchecked_shapes
from subo import (
    VAE,
    Bernoulli,
    Conditional,
    Gaussian,
    InputError,
    Objective,
    StandardNormal,
    VampPrior,
    fit,
    mlp,
    probabilistic_pca,
    train,
)
from subo.core.objective import Loss
from subo.data.dataset import Data, split
from subo.data.splits import Split
from subo.evaluation.latents.information import mutual_information
from subo.runs.run import Run
from subo.runtime.devices import make_fabric
from subo.training.history import Epoch, epoch_of
from subo.training.updates import Aggressive, Alternating, Joint, Updates, at_rest, make_updates


def small_objective(seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,)))
    return Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,)))))


def bits(n: int) -> Tensor:
    return torch.bernoulli(torch.full((n, 5), 0.5), generator=torch.Generator().manual_seed(n))


def clusters(n: int = 300) -> Data:
    """Two kinds of data, so that there is something to tell."""
    kind = torch.arange(n).remainder(2).unsqueeze(1)
    probability = torch.where(kind == 1, 0.9, 0.1).expand(n, 5)
    return Data("bits", *split(torch.bernoulli(probability, generator=torch.Generator().manual_seed(0))), kind="binary")


def weights(module: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in module.state_dict().values()])


def parameters(objective: Objective) -> tuple[list[Tensor], list[Tensor]]:
    """Phi and theta."""
    return list(objective.model.posterior.parameters()), list(objective.model.likelihood.parameters())


@pytest.mark.parametrize("posterior_steps", [1, 3])
def test_alternating_is_the_loop_that_one_writes_by_hand(posterior_steps: int):
    data = [bits(4), bits(6), bits(5)]
    by_hand = small_objective()
    phi, theta = (torch.optim.Adam(part, lr=0.01) for part in parameters(by_hand))
    torch.manual_seed(1)
    losses = []
    for x in data:
        for optimizer in [phi] * posterior_steps + [theta]:
            by_hand.zero_grad()
            loss = by_hand(x).loss
            loss.backward()
            optimizer.step()
        losses.append(loss.item())  # pyright: ignore[reportPossiblyUnbound]
    ours = small_objective()
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.01)
    torch.manual_seed(1)
    steps = list(train(ours, data, optimizer=optimizer, updates=Alternating(posterior_steps)))
    assert torch.equal(weights(ours), weights(by_hand))
    assert [step.loss.loss.item() for step in steps] == losses  # those of the steps on theta
    assert [step.number for step in steps] == [1, 2, 3]


class Always(Updates):
    """Moves one part, for ever."""

    name = "alternating"

    def __init__(self, part):
        self.part = part

    def turns(self):
        return (self.part,)


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("part", ["posterior", "model"])
def test_what_rests_keeps_its_values_and_its_moments(part, clip: float | None):
    """Weight decay and momentum move parameters whose gradient is zero; these have none."""
    objective = small_objective()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.1, weight_decay=0.5)
    list(train(objective, [bits(4)] * 3, optimizer=optimizer))  # gives all of them moments
    phi, theta = parameters(objective)
    moving, resting = (phi, theta) if part == "posterior" else (theta, phi)

    def everything(group: list[Tensor]) -> list[Tensor]:
        return [tensor.detach().clone() for p in group for tensor in (p, *optimizer.state[p].values())]

    before, moved = everything(resting), everything(moving)
    steps = list(train(objective, [bits(4)] * 2, optimizer=optimizer, updates=Always(part), clip=clip))
    assert all(torch.equal(a, b) for a, b in zip(before, everything(resting), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(moved, everything(moving), strict=True))
    if clip:
        norm = torch.stack([p.grad.norm() for p in moving if p.grad is not None]).norm().item()
        assert norm == pytest.approx(clip, rel=1e-2)  # of what moves alone
        assert all(step.gradient_norm and step.gradient_norm > clip for step in steps)


def test_phi_is_the_posterior_with_what_it_shares_and_what_the_estimator_learns():
    objective = small_objective()
    objective.model.prior = VampPrior(objective.model.posterior, bits(3))
    objective.gradient.baseline = nn.Linear(5, 1)
    resting = at_rest(objective, Alternating())
    phi = {*objective.model.posterior.parameters(), *objective.gradient.parameters()}
    assert set(resting["model"]) == phi
    assert set(resting["posterior"]) == {*objective.model.likelihood.parameters(), objective.model.prior.raw_inputs}
    assert resting["both"] == []


def loss_of(value: float, n: int = 4) -> Loss:
    bound = torch.full((n,), -value)
    return Loss(torch.tensor(value), bound, bound, torch.zeros(1, n), torch.zeros(n))


def moved_by(updates: Updates, losses: list[float]) -> str:
    """The first letters of what the batches with these losses moved."""
    letters, fabric = "", make_fabric(device="cpu")
    for value in losses:
        (part,) = updates.turns()
        letters += part[0]
        updates.watch(loss_of(value), 1.0, fabric)
    return letters


def test_aggressive_moves_the_posterior_until_a_windows_loss_is_no_less():
    falling = [9.0, 9.0, 8.0, 8.0, 7.0, 7.0]
    assert moved_by(Aggressive(window=2), [*falling, 7.0, 7.0, 0.0, 3.0, 3.0, 4.0, 3.0, 0.0]) == "ppppppppmppppm"
    assert moved_by(Aggressive(window=2), [1.0, 9.0, 2.0, 7.0, 0.0, 1.0, 8.0, 0.0]) == "pppppppp"  # means, not losses
    assert moved_by(Aggressive(window=2, max_steps=3), [9.0 - n for n in range(9)]) == "pppmpppmp"
    assert moved_by(Aggressive(), [-float(n) for n in range(103)]) == "p" * 100 + "mpp"


def test_a_windows_mean_weighs_data_and_not_batches():
    updates, fabric = Aggressive(window=2), make_fabric(device="cpu")
    for value, n in [(3.0, 10), (0.0, 10), (1.0, 99), (9.0, 1)]:  # 1.5, then 1.08, though the batches' mean is 5
        updates.watch(loss_of(value, n), 1.0, fabric)
    assert updates.turns() == ("posterior",)


def test_aggressive_ends_for_good_when_the_information_does_not_rise():
    updates = Aggressive(window=1, max_steps=1, model_steps=2)
    for information in (0.5, 0.9, 0.8):  # theta has not made two steps: no comparison
        updates.inform(information)
    for information, then in [(0.5, "aggressive"), (0.6, "aggressive"), (0.6, "joint")]:
        assert updates.now == "aggressive"
        assert moved_by(updates, [1.0] * 4) == "pmpm"
        updates.inform(information)
        assert updates.now == then
    assert moved_by(updates, [1.0] * 4) == "bbbb"


def test_a_schedule_goes_on_from_its_state():
    losses = [float(value) for value in torch.rand(60)]
    one, other = Aggressive(window=2), Aggressive(window=2)
    moved_by(one, losses[:37])
    one.inform(0.3)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert moved_by(other, losses[37:]) == moved_by(one, losses[37:])
    assert other.state_dict() == one.state_dict()


@unchecked_shapes()
@pytest.mark.slow
def test_fit_says_when_aggressive_updates_ended(tmp_path: Path):
    objective, data = small_objective(), clusters()
    history = fit(objective, data, epochs=22, batch_size=5, learning_rate=0.1, updates="aggressive", run_dir=tmp_path)
    modes = [epoch.updates for epoch in history.epochs]
    ended = modes.index("joint")
    assert ended >= 2
    assert modes == ["aggressive"] * ended + ["joint"] * (22 - ended)
    information = [epoch.mutual_information for epoch in history.epochs]
    assert all(value is not None for value in information[:ended])
    assert information[ended:] == [None] * (22 - ended)
    assert information[ended - 1] <= max(information[: ended - 1])  # pyright: ignore
    lines = Run(tmp_path).read_metrics()
    assert [line["updates"] for line in lines] == modes
    assert [line["mutual_information"] for line in lines] == information


def test_the_information_is_of_validation_data_or_else_of_training_data():
    data, objective = clusters(), small_objective()
    options = {"epochs": 1, "batch_size": 10, "updates": "aggressive", "seed": 3}
    for given, measured in ((data, data.validation), (data.train, data.train)):
        (epoch,) = fit(objective, given, **options).epochs
        assert epoch.mutual_information == mutual_information(objective.model, measured, num_samples=1, seed=3).value


class Stop(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize(
    "updates, posterior_steps, crashes, epochs", [("alternating", 2, [2], 3), ("aggressive", 1, [2, 10], 11)]
)
@unchecked_shapes()
@pytest.mark.slow
def test_a_crashed_run_resumes_bit_for_bit(tmp_path: Path, updates, posterior_steps: int, crashes: list, epochs: int):
    """While the updates are aggressive, in the middle of a window, and when they are joint again."""
    options = {"epochs": epochs, "batch_size": 5, "learning_rate": 0.1}
    options |= {"updates": updates, "posterior_steps": posterior_steps}
    whole, data = small_objective(), clusters(400)
    history = fit(whole, data, run_dir=tmp_path / "whole", **options)
    if updates == "aggressive":
        assert [history.epochs[crash - 1].updates for crash in crashes] == ["aggressive", "joint"]
    for crash in crashes:

        def stop(record: Epoch, crash: int = crash) -> None:
            if record.epoch == crash:
                raise Stop

        broken, resumed, folder = small_objective(), small_objective(seed=5), tmp_path / str(crash)
        with pytest.raises(Stop):
            fit(broken, data, run_dir=folder, checkpoint_minutes=1e-9, on_epoch=stop, **options)
        again = fit(resumed, data, run_dir=folder, resume=True, **options)
        assert torch.equal(weights(resumed), weights(whole))
        names = ("epoch", "step", "train", "validation", "updates", "mutual_information")
        for a, b in zip(history.epochs, again.epochs, strict=True):
            assert all(getattr(a, name) == getattr(b, name) for name in names)


def test_going_on_with_other_updates_is_refused(tmp_path: Path):
    fit(small_objective(), clusters(), epochs=1, run_dir=tmp_path)
    with pytest.raises(InputError, match="made with updates = joint, and continuing with aggressive"):
        fit(small_objective(), clusters(), epochs=2, run_dir=tmp_path, resume=True, updates="aggressive")


def test_records_of_runs_before_there_were_updates_are_read():
    metrics = {"bound": 0.0, "objective": 0.0, "elbo": 0.0, "rate": 0.0, "distortion": 0.0, "rates": [0.0]}
    record = {"epoch": 1, "step": 1, "seconds": 0.0, "learning_rate": 1.0, "kl_weight": 1.0, "train": metrics}
    assert epoch_of({**record, "validation": None}).updates == "joint"


def test_names_make_schedules():
    assert isinstance(make_updates("joint"), Joint)
    assert make_updates("alternating", posterior_steps=3).turns() == ("posterior",) * 3 + ("model",)
    assert isinstance(make_updates("aggressive"), Aggressive)
    with pytest.raises(InputError, match="updates must be one of joint, alternating, aggressive, not 'wake-sleep'"):
        make_updates("wake-sleep")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"updates": "alternating", "posterior_steps": 0}, "posterior_steps must be at least 1, not 0"),
        ({"posterior_steps": 5}, "so 5 has no meaning with joint updates.*use updates alternating"),
        ({"updates": "aggressive", "posterior_steps": 5}, "so 5 has no meaning with aggressive updates"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        fit(small_objective(), clusters(), **options)


def test_aggressive_needs_steps_to_count():
    with pytest.raises(InputError, match="window must be at least 1, not 0"):
        Aggressive(window=0)


def test_a_model_whose_theta_and_phi_cannot_be_told_apart_is_refused():
    class Whole(nn.Module):
        """A model that is no VAE."""

        def __init__(self):
            super().__init__()
            self.inner = small_objective().model

        def draw(self, *args, **options):
            return self.inner.draw(*args, **options)

        def log_joint(self, *args):
            return self.inner.log_joint(*args)

        def sample(self, *args):
            return self.inner.sample(*args)

    whole = Objective(Whole())  # pyright: ignore[reportArgumentType]
    assert len(list(train(whole, [bits(4)]))) == 1
    with pytest.raises(InputError, match="Whole has no module 'posterior'.*Use joint updates, or a VAE"):
        next(train(whole, [bits(4)], updates=Alternating()))
    exact = Objective(probabilistic_pca(5, 2))  # the posterior holds the likelihood
    with pytest.raises(InputError, match="the prior and likelihood of this model has no parameters of its own"):
        fit(exact, Split(torch.randn(9, 5)), updates="aggressive")
