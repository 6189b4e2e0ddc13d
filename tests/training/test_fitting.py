"""Fitting: honest means, best weights, checkpoints, and going on bit for bit."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from assertions import assert_refused
from shapes import unchecked_shapes
from subo import (
    ELBO,
    IWAE,
    VAE,
    Bernoulli,
    Conditional,
    DivergedError,
    Gaussian,
    InputError,
    Interrupted,
    Objective,
    StandardNormal,
    evaluate,
    fit,
    mlp,
    probabilistic_pca,
)
from subo.data.dataset import Data, split
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.runs.run import Run
from subo.runtime.devices import PrecisionName, as_fabric, make_fabric
from subo.training.divergence import noise_of_change
from subo.training.history import Epoch, History, WorseWarning
from subo.training.metrics import measure


def binary(n: int = 230, seed: int = 0) -> Data:
    x = torch.bernoulli(torch.full((n, 5), 0.5), generator=torch.Generator().manual_seed(seed))
    return Data("bits", *split(x), kind="binary")


def objective(seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,)))
    return Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,)))))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in module.state_dict().values()])


class Fixed(nn.Module):
    """A posterior without noise or parameters, so that numbers do not depend on how data are batched."""

    def forward(self, x: torch.Tensor) -> torch.distributions.Distribution:
        scale = torch.full((len(x), 2), 1e-20)
        return torch.distributions.Independent(torch.distributions.Normal(x[:, :2], scale), 1)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_epoch_means_weigh_every_datum_the_same(batch_size: int):
    """The last, smaller batch counts by its data, not as a batch."""
    data = binary()
    model = VAE(StandardNormal(2), Conditional(Bernoulli((5,)), mlp(2, 5)), Fixed())
    whole = Objective(model)(data.train.x)
    history = fit(Objective(model), data, epochs=1, batch_size=batch_size, learning_rate=1e-30)
    (epoch,) = history.epochs
    assert epoch.train.distortion == pytest.approx(whole.distortion.mean().item(), rel=1e-5)
    assert epoch.train.elbo == pytest.approx(whole.elbo.mean().item(), rel=1e-5)
    assert epoch.train.elbo == -(epoch.train.rate + epoch.train.distortion)
    assert epoch.validation == measure(Objective(model), data.validation, batch_size=batch_size)


def test_measuring_is_repeatable_and_touches_no_random_state():
    data, fitted = binary(), objective()
    state = torch.get_rng_state()
    assert measure(fitted, data.test) == measure(fitted, data.test)
    assert torch.equal(state, torch.get_rng_state())
    assert fitted.training


def test_fitting_is_reproducible_by_seed_and_touches_no_random_state():
    data = binary()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    runs = [objective() for _ in range(3)]
    torch.set_rng_state(state)
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        fit(run, data, epochs=2, seed=seed)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_the_best_epochs_weights_are_kept():
    """A learning rate so high that the last epoch is not the best: the kept weights give the best bound again."""
    data, fitted = binary(), objective()
    history = fit(fitted, data, epochs=30, learning_rate=0.3)
    bounds = [epoch.validation.bound for epoch in history.epochs if epoch.validation]
    assert history.best_epoch == 1 + bounds.index(max(bounds)) < 30
    assert measure(fitted, data.validation).bound == max(bounds)


def test_patience_stops_after_epochs_without_a_better_bound():
    history = fit(objective(), binary(), epochs=500, patience=3, learning_rate=0.3)
    assert history.stopped_by == "patience"
    assert history.best_epoch is not None
    assert len(history.epochs) == history.best_epoch + 3


def test_minutes_end_training_with_a_last_record():
    history = fit(objective(), binary(), minutes=0.005)
    assert history.stopped_by == "minutes"
    assert 0.3 <= history.epochs[-1].seconds < 5


def test_training_data_alone_keeps_the_last_weights():
    fitted = objective()
    history = fit(fitted, binary().train.x, epochs=2)
    assert history.best_epoch is None
    assert history.epochs[-1].validation is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"minutes": -1.0}, "minutes must be positive"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"resume": True}, "none was given"),
        ({"batch_size": 0}, "batch"),
        ({"kl_warmup_epochs": -1.0}, "must be at least 0"),
        ({"elbo_epochs": 2.0}, "this one is an ELBO already"),
        ({"optimizer": "Adem"}, "no optimizer"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        fit(objective(), binary(), **options)


def test_patience_without_validation_is_refused():
    with pytest.raises(InputError, match="no validation data"):
        fit(objective(), binary().train, patience=2)


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.full((9, 5), 0.5), "row 1 holds 0.5.*grey values.*binarize.*continuous-bernoulli"),
        (torch.full((9, 5), 3.0), "row 1 holds 3.*poisson for counts"),
        (torch.zeros(9, 4), r"shape \(5,\), but these have the shape \(4,\).*fitted to 5 features, but received 4"),
    ],
)
def test_data_that_the_model_does_not_describe_are_refused(x: torch.Tensor, message: str):
    with pytest.raises(InputError, match=message):
        fit(objective(), Split(x), epochs=1)


def of_iwae(seed: int = 0) -> Objective:
    return Objective(objective(seed).model, IWAE(), num_samples=6)


def test_a_fit_follows_the_elbo_for_some_epochs_and_then_the_bound():
    data = binary()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 50}
    as_elbo, staged = fit(objective(), data, **options), fit(of_iwae(), data, **options, elbo_epochs=1.0)
    assert staged.epochs[0].train == as_elbo.epochs[0].train
    assert staged.epochs[1].train.bound != as_elbo.epochs[1].train.bound
    plain = fit(of_iwae(), data, **options)
    assert plain.epochs[0].train != staged.epochs[0].train
    assert staged.epochs[1].train.bound > staged.epochs[1].train.elbo  # six samples
    assert staged.epochs[0].train.bound == pytest.approx(staged.epochs[0].train.elbo)  # one


def test_the_kl_warms_up_within_the_epochs_of_the_elbo():
    history = fit(of_iwae(), binary(), epochs=2, elbo_epochs=1.0, kl_warmup_epochs=1.0)
    assert len(history.epochs) == 2
    with pytest.raises(InputError, match="IWAE has no KL of its own"):
        fit(of_iwae(), binary(), epochs=2, elbo_epochs=1.0, kl_warmup_epochs=1.5)


def test_a_fit_that_stopped_in_the_epochs_of_the_elbo_resumes_bit_for_bit(tmp_path: Path):
    options: dict[str, Any] = {"epochs": 4, "batch_size": 50, "elbo_epochs": 3.0}
    whole = of_iwae()
    fit(whole, binary(), **options)
    with pytest.raises(Stop):
        fit(of_iwae(), binary(), run_dir=tmp_path, checkpoint_minutes=1e-9, on_epoch=interrupt_after(2), **options)
    resumed = of_iwae(seed=5)
    fit(resumed, binary(), run_dir=tmp_path, resume=True, **options)
    assert torch.equal(weights(resumed), weights(whole))


class Stop(Exception):
    """Stands for a crash."""


def interrupt_after(epoch: int):
    def crash(record: Epoch) -> None:
        if record.epoch == epoch:
            raise Stop

    return crash


OPTIONS = {"epochs": 6, "batch_size": 50, "warmup_epochs": 1.0, "decay": "cosine", "kl_warmup_epochs": 3.0, "clip": 5.0}


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_crashed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path, optimizer: str):
    data = load_data("digits", binarize="dynamic")
    data = Data("d", *(Split(s.x.flatten(1)[:120, :5], s.levels, None, s.resample) for s in
                       (data.train, data.validation, data.test)), kind="binary")  # fmt: skip
    options = {**OPTIONS, "optimizer": optimizer}
    whole = objective()
    history = fit(whole, data, run_dir=tmp_path / "whole", **options)
    broken = objective()
    with pytest.raises(Stop):
        fit(broken, data, run_dir=tmp_path / "broken", checkpoint_minutes=1e-9, on_epoch=interrupt_after(3), **options)
    resumed = objective(seed=5)  # other first weights: all must come from the checkpoint
    again = fit(resumed, data, run_dir=tmp_path / "broken", resume=True, **options)
    assert torch.equal(weights(resumed), weights(whole))
    numbers = [(e.epoch, e.step, e.train, e.validation) for e in history.epochs]
    assert numbers == [(e.epoch, e.step, e.train, e.validation) for e in again.epochs]
    lines = (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_in_the_middle_of_an_epoch_resumes_too(tmp_path: Path):
    data, whole, broken = binary(), objective(), objective()
    fit(whole, data, epochs=3, batch_size=20)

    calls = 0

    class Crashing(Objective):
        def forward(self, x, context=None, *, kl_weight=1.0):
            nonlocal calls
            calls += self.training
            if calls == 14:
                raise Stop
            return super().forward(x, context, kl_weight=kl_weight)

    crashing = Crashing(broken.model)
    with pytest.raises(Stop):
        fit(crashing, data, epochs=3, batch_size=20, run_dir=tmp_path, checkpoint_minutes=1e-9)
    content = Run(tmp_path).load_checkpoint()
    assert content["batch"] == 3
    resumed = objective(seed=5)
    history = fit(resumed, data, epochs=3, batch_size=20, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert len(history.epochs) == 3


def test_resuming_another_run_is_refused(tmp_path: Path):
    fit(objective(), binary(), epochs=1, run_dir=tmp_path)
    with pytest.raises(InputError, match="made with batch_size = 100, and continuing with 10"):
        fit(objective(), binary(), epochs=2, batch_size=10, run_dir=tmp_path, resume=True)
    with pytest.raises(InputError, match="checkpoint is of a different model"):
        other = Objective(VAE(StandardNormal(2), Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(9,))), Fixed()))
        fit(other, binary(), epochs=2, run_dir=tmp_path, resume=True)


def test_a_finished_run_goes_on_when_there_are_more_epochs(tmp_path: Path):
    data, whole, short = binary(), objective(), objective()
    fit(whole, data, epochs=4)
    fit(short, data, epochs=2, run_dir=tmp_path)
    fit(short, data, epochs=4, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(short), weights(whole))


class Poisoned(nn.Module):
    """A decoder that gives NaN once it has been asked often enough."""

    def __init__(self, after: int):
        super().__init__()
        self.network, self.left = mlp(2, 5), after

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        return self.network(z) * (torch.nan if self.left < 0 else 1.0)


def test_a_nonfinite_loss_leaves_the_last_good_checkpoint(tmp_path: Path):
    decoder = Conditional(Bernoulli((5,)), Poisoned(after=10))
    poisoned = Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(5, 4))))
    with pytest.raises(DivergedError, match="step 11: the distortion"):
        fit(poisoned, binary(), epochs=9, batch_size=50, run_dir=tmp_path, checkpoint_minutes=1e-9)
    content = Run(tmp_path).load_checkpoint()
    assert content["step"] == 10
    assert all(tensor.isfinite().all() for tensor in content["objective"].values())


def test_parameters_that_became_nan_never_reach_a_checkpoint(tmp_path: Path):
    """A finite loss can have a gradient that is not."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.raw = mlp(2, 5), nn.Parameter(torch.zeros(()))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.network(z) + self.raw.sqrt()  # at 0 the derivative is infinite

    root = Objective(
        VAE(StandardNormal(2), Conditional(Bernoulli((5,)), Root()), Conditional(Gaussian((2,)), mlp(5, 4)))
    )
    with pytest.raises(DivergedError, match=r"parameter .*raw is no longer finite"):
        fit(root, binary().train, epochs=1, batch_size=1000, run_dir=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_kept_weights_are_the_best_of_what_was_trained():
    """With a small beta the bound at beta 1 is best before anything is learnt; what was asked for is not."""
    data = load_data("digits", binarize="static")
    torch.manual_seed(0)
    decoder = Conditional(Bernoulli((1, 8, 8)), mlp(5, 64, hidden=(50,)))
    model = VAE(StandardNormal(5), decoder, Conditional(Gaussian((5,)), mlp(64, 10, hidden=(50,))))
    history = fit(Objective(model, ELBO(beta=0.05)), data, epochs=15, learning_rate=3e-3)
    followed = [epoch.validation.objective for epoch in history.epochs if epoch.validation]
    assert history.best_epoch == 1 + followed.index(max(followed)) > 10
    for epoch in history.epochs:
        assert epoch.validation is not None
        assert epoch.validation.objective == pytest.approx(
            -(0.05 * epoch.validation.rate + epoch.validation.distortion), rel=1e-5
        )
        assert epoch.validation.bound == pytest.approx(epoch.validation.elbo, rel=1e-5)


def test_nonfinite_validation_is_an_error_with_its_step_and_term():
    data = binary()
    wild = Split(torch.full((5, 5), 1e25))
    gaussian = Objective(VAE(StandardNormal(2), Conditional(Gaussian((5,)), mlp(2, 10)), Fixed()))
    with pytest.raises(DivergedError, match=r"step 2, held-out data: the distortion .* for 5 of 5 examples"):
        fit(gaussian, Data("wild", data.train, wild, wild, kind="real"), epochs=2)


def test_a_fresh_start_forgets_the_checkpoint_of_another_run(tmp_path: Path):
    fit(objective(), binary(), epochs=1, run_dir=tmp_path)
    with pytest.raises(DivergedError):
        poisoned = Objective(VAE(StandardNormal(2), Conditional(Bernoulli((5,)), Poisoned(1)), Fixed()))
        fit(poisoned, binary(), epochs=1, run_dir=tmp_path, overwrite=True)
    with pytest.raises(InputError, match="different model"):
        fit(objective(), binary(), epochs=2, run_dir=tmp_path, resume=True)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_resume_exactly_too(tmp_path: Path, precision: PrecisionName):
    data, whole, broken = binary(), objective(), objective()
    fit(whole, data, epochs=3, fabric=make_fabric(device="cpu", precision=precision))
    options = {"run_dir": tmp_path, "checkpoint_minutes": 1e-9}
    with pytest.raises(Stop):
        fit(broken, data, epochs=3, fabric=make_fabric(device="cpu", precision=precision),
            on_epoch=interrupt_after(2), **options)  # fmt: skip
    resumed = objective(seed=5)
    fit(resumed, data, epochs=3, fabric=make_fabric(device="cpu", precision=precision), resume=True, **options)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_float64_model_is_fitted_in_float64():
    fitted = objective().double()
    fit(fitted, binary().train.x.double(), epochs=1)
    assert all(parameter.dtype == torch.float64 for parameter in fitted.parameters())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("epochs", [2, 3], ids=["at the end", "before"])
def test_a_signal_is_obeyed_after_a_checkpoint_whenever_it_comes(number: signal.Signals, epochs: int, tmp_path: Path):
    def ask(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            signal.raise_signal(number)

    with pytest.raises(Interrupted) as stopped:
        fit(objective(), binary(), epochs=epochs, on_epoch=ask, run_dir=tmp_path)
    assert stopped.value.signal == number
    assert Run(tmp_path).load_checkpoint()["epoch"] == 2


def test_ctrl_c_without_a_run_folder_is_a_keyboard_interrupt():
    """By which notebooks and searches over settings know that somebody wants them to end."""
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 3 after 2 steps; the model has the weights"):
        fit(objective(), binary(100), epochs=3, on_epoch=lambda _: signal.raise_signal(signal.SIGINT))


@unchecked_shapes()  # and types
def test_what_is_no_objective_or_no_data_is_refused_with_the_mend():
    model = probabilistic_pca(5, 2)
    x, untyped = torch.randn(20, 5), cast(Any, fit)
    with assert_refused("not a VAE", "Objective(model)"):
        untyped(model, x)
    for take in (lambda data: untyped(Objective(model), data), lambda data: cast(Any, evaluate)(model, data)):
        with assert_refused("subo.load_data(path)"):
            take("a.csv")
    assert evaluate(model, x, num_samples=5) == evaluate(model, Split(x), num_samples=5)


def test_a_training_that_diverges_keeps_the_best_weights_before_and_a_checkpoint(tmp_path: Path):
    data, decoder = binary(), Poisoned(after=10)
    likelihood = Conditional(Bernoulli((5,)), decoder)
    poisoned = Objective(VAE(StandardNormal(2), likelihood, Conditional(Gaussian((2,)), mlp(5, 4))))
    with pytest.raises(DivergedError, match=r"step 11: .*weights kept are those of epoch (1|2), .*checkpoint.*step 10"):
        fit(poisoned, data, epochs=9, batch_size=50, run_dir=tmp_path)
    bounds = [record["validation"]["bound"] for record in Run(tmp_path).read_metrics()]
    decoder.left = 1  # heals it
    assert len(bounds) == 2
    assert measure(poisoned, data.validation, batch_size=50).bound == max(bounds)
    kept = weights(poisoned)
    for parameter in poisoned.parameters():
        parameter.data.zero_()
    Run(tmp_path).load_weights(poisoned.model)
    assert torch.equal(weights(poisoned), kept)
    assert "training diverged" in (Run(tmp_path).caution or "")
    assert Run(tmp_path).load_checkpoint()["step"] == 10


@pytest.mark.parametrize("with_validation", [True, False])
def test_a_model_that_is_worse_after_training_is_warned_of(with_validation: bool, tmp_path: Path):
    data, fitted = binary(), objective()
    held = data.validation if with_validation else data.train
    before = measure(fitted, held).objective
    given = data if with_validation else data.train
    with pytest.warns(WorseWarning, match=rf"worse than before training.*was {before:.4g} .*`learning_rate`"):
        history = fit(fitted, given, epochs=2, learning_rate=1e4, run_dir=tmp_path)
    assert history.before == before
    assert history.after == measure(fitted, held).objective < before
    assert Run(tmp_path).caution == history.worse
    Run(tmp_path).accept_changes()
    assert Run(tmp_path).caution == history.worse
    better = fit(objective(), given, epochs=2, run_dir=tmp_path, overwrite=True)
    assert better.worse is None
    assert Run(tmp_path).caution is None


def test_a_model_that_training_made_better_or_left_alone_is_not(recwarn: pytest.WarningsRecorder):
    for rate in (1e-3, 1e-30):
        history = fit(objective(), binary(), epochs=2, learning_rate=rate)
        assert history.worse is None
        assert history.before is not None
    assert not recwarn.list


def test_a_model_is_worse_where_the_difference_exceeds_chance(recwarn: pytest.WarningsRecorder):
    drifted = [fit(objective(), binary(30, seed), epochs=1, learning_rate=0.1, seed=seed) for seed in range(20)]
    changes = [cast(float, history.after) - cast(float, history.before) for history in drifted]
    assert sum(change < 0 for change in changes) > 2  # of three data in validation
    assert all(history.worse is None for history in drifted)
    assert not recwarn.list
    history = History((), None, "epochs", before=-10.0, after=-10.31, noise=0.3)
    assert history.worse
    assert replace(history, after=-10.29).worse is None
    none = torch.zeros(3, dtype=torch.float64)
    change = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    assert noise_of_change(none, change) == pytest.approx(22.327 * change.std().item() / math.sqrt(3), rel=1e-4)
    assert noise_of_change(none[:1], change[:1]) == math.inf
    assert noise_of_change(none, change.log() - math.inf) == 0.0


@unchecked_shapes()  # and types
def test_the_device_and_precision_are_named_or_given_as_a_fabric():
    fitted, data = objective(), binary()
    fit(fitted, data, epochs=1, device="cpu", precision="64-true")
    assert all(parameter.dtype == torch.float64 for parameter in fitted.parameters())
    with pytest.raises(InputError, match=r"`fabric` and `device` were given.*give one or the other"):
        fit(fitted, data, device="cpu", fabric=make_fabric(device="cpu"))
    with pytest.raises(InputError, match="device must be one of"):
        fit(fitted, data, device=cast(Any, "abacus"))


@pytest.mark.parametrize("name", ["FSDPStrategy", "ModelParallelStrategy"])
def test_a_fabric_that_divides_the_model_is_refused(name: str):
    from lightning_fabric import strategies

    options = {"parallelize_fn": lambda model, mesh: model} if name == "ModelParallelStrategy" else {}
    strategy = getattr(strategies, name)(**options)
    fabric: Any = SimpleNamespace(strategy=strategy, device=torch.device("cpu"), world_size=2)
    with pytest.raises(InputError, match=f"`fabric` has a {name}.*use `strategy=ddp`"):
        as_fabric(fabric)
