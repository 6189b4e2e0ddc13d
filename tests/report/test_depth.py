"""The depth of a full evaluation: what fits into a time, what is said of it, and that it is chosen once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from subo.data.splits import Split
from subo.evaluation.effort import GradientTime
from subo.evaluation.evidence.annealed import Annealing, ais
from subo.evaluation.evidence.bidirectional import bdmc
from subo.evaluation.evidence.hamiltonian import Bridge, State
from subo.experiments.chosen_depth import chosen_depth
from subo.models.probabilistic_pca import probabilistic_pca
from subo.report.depth import REDUCIBLE, Depth, affordable_depth, examples_a_piece
from subo.report.full import _Plan  # pyright: ignore[reportPrivateUsage]

PCA, DATA = probabilistic_pca(5, 2), Split(torch.zeros(120, 5))
WHOLE = Depth()


@pytest.mark.parametrize("temperatures", [30, 70])
def test_gradients_are_counted_as_annealing_takes_them(temperatures: int, monkeypatch: pytest.MonkeyPatch):
    taken, own = [], Bridge.at

    def counted(bridge: Bridge, z: torch.Tensor) -> State:
        taken.append(z.shape)
        return own(bridge, z)

    monkeypatch.setattr(Bridge, "at", counted)
    monkeypatch.setattr("subo.evaluation.evidence.annealed._PILOT", (5, 6))
    annealing = Annealing(temperatures, chains=3, leapfrog_steps=2)
    for runs, measure in (
        (1, lambda: ais(PCA, DATA.x[:4], annealing=annealing)),
        (2, lambda: bdmc(PCA, 4, annealing=annealing)),
    ):
        taken.clear()
        measure()
        assert set(taken) == {(3, 4, 2)}
        assert len(taken) == annealing.num_gradients(runs=runs) + runs + 1, "and each run begins with one"


def depth(seconds: float, time: GradientTime | None, asked: Depth = WHOLE, reducible: Any = REDUCIBLE) -> Any:
    return affordable_depth(asked, seconds, time, PCA, DATA, reducible=reducible)


def test_no_more_is_measured_than_fits_and_no_less_than_asked_for_if_it_fits():
    slow, asked = GradientTime(1e-3, 1e-5), Depth()
    whole = depth(1e9, slow)
    assert (whole.depth, whole.reduced_from, whole.sentences()) == (asked, None, ("Careful",)) or whole.taken < 3600
    seen = [depth(whole.taken * share, slow) for share in (1.0, 0.99, 0.5, 0.3, 0.2, 0.01)]
    assert seen[0].depth == asked
    for found in seen[1:]:
        assert found.asked == asked
        assert found.taken <= found.seconds or found.depth == replace(asked, temperatures=200, intensive_data=10)
        assert found.asked_taken == whole.taken
    sizes = [found.depth.temperatures * found.depth.intensive_data for found in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 3


def test_numbers_that_were_asked_for_and_unknown_times_lower_nothing():
    slow = GradientTime(1.0, 1.0)
    assert depth(1.0, slow, reducible=()).depth == Depth()
    assert depth(1.0, slow, reducible=("intensive_data",)).depth == Depth(intensive_data=10)
    assert depth(1.0, slow, Depth(temperatures=50), ("intensive_data",)).depth == Depth(
        temperatures=50, intensive_data=10
    )
    few = Depth(temperatures=50, intensive_data=5)
    assert depth(1.0, slow, few).depth == few, "what is asked for is never raised"
    assert depth(1.0, None).depth == Depth()


def test_what_was_lowered_is_said_with_the_options_that_give_all():
    found = depth(60.0, GradientTime(1e-3, 1e-5))
    assert found.reduced_from == {"temperatures": 1000, "intensive_data": 100, "seconds": 60.0}
    (said,) = found.sentences()
    assert f"{found.depth.temperatures} temperatures of annealing instead of 1,000" in said
    assert f"{found.depth.intensive_data} examples instead of 100" in said
    assert "`temperatures=1000`, `intensive_data=100` takes about" in said
    (said,) = depth(1.0, GradientTime(1.0, 1.0), reducible=()).sentences()
    assert said.startswith("Careful: annealing, bracket and gaps take about")
    assert depth(1.0, None).sentences() == ()


def test_the_choice_is_kept_and_belongs_to_its_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = [GradientTime(1e-3, 1e-5), GradientTime(1.0, 1.0), GradientTime(1e-9, 1e-9), None]
    monkeypatch.setattr("subo.experiments.chosen_depth.gradient_time", lambda *_: times.pop(0))
    options: dict[str, Any] = {"reducible": REDUCIBLE, "training_seconds": None, "folder": tmp_path}
    first = chosen_depth(Depth(), PCA, DATA, **options)
    assert first.seconds == 300
    assert chosen_depth(Depth(), PCA, DATA, **options) == first
    other = chosen_depth(Depth(num_samples=50), PCA, DATA, **options)
    assert other.depth == Depth(num_samples=50, temperatures=200, intensive_data=10)
    assert chosen_depth(Depth(), PCA, DATA, **{**options, "training_seconds": 1e6}).depth == Depth()
    (tmp_path / "depth.json").write_text("{")
    assert chosen_depth(Depth(), PCA, DATA, **options).taken is None
    assert json.loads((tmp_path / "depth.json").read_text())["answer"]["taken"] is None
    assert times == []


def test_small_examples_are_annealed_together():
    assert examples_a_piece(Split(torch.zeros(2, 28, 28))) == 10
    assert examples_a_piece(Split(torch.zeros(2, 3, 64, 64))) == 10
    assert examples_a_piece(DATA) > 1000
    sizes = {
        stage.name: [len(piece) for piece in stage.pieces] for stage in _Plan(PCA, DATA, None, Depth(), 0).stages()
    }
    assert sizes["annealed"] == sizes["bracket"] == sizes["prior"] == [100]
