"""The gap over training, from the weights that were kept."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_gaps import D, linear, model_with
from torch import Tensor
from torch.distributions import kl_divergence

from subo import VAE, Bernoulli, Conditional, Gaussian, InputError, Interrupted, Objective, StandardNormal, fit, mlp
from subo.evaluation import log_marginal
from subo.evaluation.evidence.annealed import Annealing
from subo.evaluation.training_gap import gap_over_training, models_over_training
from subo.models.probabilistic_pca import ExactPosterior
from subo.runs.run import Run
from subo.training.checkpoints import KeptWeights, _is_kept


def small(seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((4,)), mlp(2, 4, hidden=(6,)))
    return Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(4, 4, hidden=(6,)))))


def bits(n: int = 60) -> Tensor:
    return torch.bernoulli(torch.full((n, 4), 0.5), generator=torch.Generator().manual_seed(0))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "snapshots").iterdir()}


def test_weights_are_kept_in_growing_distances_and_at_the_end():
    assert [epoch for epoch in range(1, 1001) if _is_kept(epoch)] == [
        *(1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987)
    ]


def test_kept_weights_are_those_of_their_epoch(tmp_path: Path):
    objective, seen = small(), {}

    def remember(epoch: Any) -> None:
        seen[epoch.epoch] = [p.detach().clone() for p in objective.model.parameters()]

    fit(objective, bits(), epochs=6, batch_size=20, run_dir=tmp_path, on_epoch=remember)
    run, fresh = Run(tmp_path), small(9)
    assert run.kept_epochs() == [1, 2, 3, 5, 6]
    points = []
    for epoch, step, model in models_over_training(run, fresh.model):
        points.append((epoch, step))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), seen[epoch], strict=True))
    assert points == [(1, 3), (2, 6), (3, 9), (5, 15), (6, 18)]
    assert all(torch.equal(a, b) for a, b in zip(fresh.model.parameters(), small(9).model.parameters(), strict=True))


def test_a_run_that_is_killed_and_resumed_keeps_the_same_files(tmp_path: Path):
    class Stop(Exception):
        pass

    def crash(epoch: Any) -> None:
        if epoch.epoch == 5:
            raise Stop  # after the weights of epoch 5 and before its checkpoint

    options: dict[str, Any] = {"batch_size": 20, "checkpoint_minutes": 1e-9}
    fit(small(), bits(), epochs=7, run_dir=tmp_path / "whole", **options)
    with pytest.raises(Stop):
        fit(small(), bits(), epochs=7, run_dir=tmp_path / "broken", on_epoch=crash, **options)
    assert "weights-000005.safetensors" in contents(tmp_path / "broken")
    fit(small(5), bits(), epochs=7, run_dir=tmp_path / "broken", resume=True, **options)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    fit(
        small(5), bits(), epochs=9, run_dir=tmp_path / "broken", resume=True, **options
    )  # longer: 7 is no last any more
    assert Run(tmp_path / "broken").kept_epochs() == [1, 2, 3, 5, 8, 9]
    fit(small(5), bits(), epochs=9, run_dir=tmp_path / "broken", resume=True, **options)  # nothing to do
    assert Run(tmp_path / "broken").kept_epochs() == [1, 2, 3, 5, 8, 9]
    fit(small(5), bits(), epochs=1, run_dir=tmp_path / "broken", overwrite=True, **options)  # another in its place
    assert Run(tmp_path / "broken").kept_epochs() == [1]


def test_an_interrupted_run_has_no_last_epoch(tmp_path: Path):
    import signal

    def stop(epoch: Any) -> None:
        if epoch.epoch == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(small(), bits(), epochs=7, batch_size=20, run_dir=tmp_path, on_epoch=stop)
    assert Run(tmp_path).kept_epochs() == [1, 2, 3]


def test_large_models_keep_nothing_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import subo.training.checkpoints

    monkeypatch.setattr(subo.training.checkpoints, "_SMALL", 100)
    fit(small(), bits(), epochs=2, run_dir=tmp_path / "large")
    fit(small(), bits(), epochs=2, run_dir=tmp_path / "asked", keep_weights=True)
    monkeypatch.undo()
    fit(small(), bits(), epochs=2, run_dir=tmp_path / "unwanted", keep_weights=False)
    kept = {name: Run(tmp_path / name).kept_epochs() for name in ("large", "asked", "unwanted")}
    assert kept == {"large": [], "asked": [1, 2], "unwanted": []}
    run = Run.create(tmp_path / "run")
    KeptWeights(run, small().model).keep(3)
    run.write_config({})
    assert run.kept_epochs() == [3]
    assert Run.create(tmp_path / "run", overwrite=True).kept_epochs() == []


def test_weights_that_were_not_kept_are_refused(tmp_path: Path):
    run = Run.create(tmp_path / "run")
    run.save_weights(small().model, epoch=2)
    with pytest.raises(InputError, match="no weights after epoch 4; available: 2"):
        run.load_weights(small().model, epoch=4)
    with pytest.raises(InputError, match=r"weights-000002.*different model"):
        run.load_weights(mlp(2, 2), epoch=2)
    with pytest.raises(InputError, match="no checkpoints"):
        gap_over_training([], torch.zeros(2, 4))


@pytest.mark.usefixtures("errors_of_drawn_weights")
def test_surprisal_and_error_over_training_are_the_closed_forms():
    """Three points of a made-up training: the exact posterior, and two that are off by known amounts."""
    likelihood = linear()
    x = torch.randn(50, D).double()
    exact = ExactPosterior(likelihood)(x)
    truth, models = [], [model_with(likelihood, shift, raw) for shift, raw in ((0.5, -0.5), (0.3, -0.8), (0.1, -1.0))]
    for model in models:
        q: Any = model.posterior(x)
        full = torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
        truth.append(kl_divergence(full, exact).mean().item())
    points = gap_over_training([(i + 1, 10 * i, model) for i, model in enumerate(models)], x, num_samples=2000)
    surprisal = -likelihood.log_px(x).mean().item()
    for point, error, model in zip(points, truth, models, strict=True):
        each = log_marginal(model, x, num_samples=2000).standard_error
        noise = 5 * each.square().mean().sqrt().item() / math.sqrt(50)
        assert noise < 0.05
        assert point.surprisal == pytest.approx(surprisal, abs=noise)
        assert point.error == pytest.approx(error, abs=5 * point.error_se + noise)
        assert point.error_se < 0.05 < point.surprisal_se
        assert point.subo == point.surprisal + point.error
        assert point.elbo == -point.subo
        assert point.log_px == -point.surprisal
    assert [(p.epoch, p.step, p.num_data) for p in points] == [(1, 0, 50), (2, 10, 50), (3, 20, 50)]
    estimate = log_marginal(models[0], x, num_samples=2000)
    assert points[0].elbo == pytest.approx(estimate.elbo.mean().item(), abs=0.1)


@pytest.mark.slow
def test_annealing_mends_the_surprisal_of_a_bad_posterior():
    likelihood = linear()
    model, x = model_with(likelihood, shift=6.0, raw=-6.0), torch.randn(5, D).double()
    exact = -likelihood.log_px(x).mean().item()
    plain, annealed = (
        gap_over_training([(1, 1, model)], x, num_samples=50, annealing=annealing)[0]
        for annealing in (None, Annealing(temperatures=50))
    )
    assert plain.surprisal > exact + 5
    assert annealed.surprisal == pytest.approx(exact, abs=0.2)
    assert annealed.subo == pytest.approx(plain.subo)
