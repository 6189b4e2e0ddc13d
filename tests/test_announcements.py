"""What a fit says when it is over."""

from dataclasses import replace
from pathlib import Path

import pytest

from subo.announcements import conclude
from subo.history import Epoch, History
from subo.metrics import Metrics


def history(*bounds: float, best: int | None, stopped_by: str = "epochs") -> History:
    """An epoch a validation bound."""
    metrics = [Metrics(bound, bound, bound, 0.0, -bound, (0.0,)) for bound in bounds]
    epochs = (
        Epoch(number, 10 * number, 1.0 * number, 1e-3, 1.0, values, values)
        for number, values in enumerate(metrics, start=1)
    )
    return History(tuple(epochs), best, stopped_by)  # pyright: ignore[reportArgumentType]


def said(capsys: pytest.CaptureFixture, of: History, **training: object) -> str:
    conclude(of, training, out=Path("runs/a"), trained=True)
    return capsys.readouterr().out


def test_a_bound_that_was_still_rising_is_told_with_the_command_that_goes_on(capsys: pytest.CaptureFixture):
    rising = [-100.0 + epoch for epoch in range(20)]
    words = said(capsys, history(*rising, best=20), epochs=20)
    assert "by 2.00 nats" in words
    assert "subo fit --resume --out runs/a --epochs 40" in words
    assert "--minutes 3" in said(capsys, history(*rising, best=20, stopped_by="minutes"), minutes=1.5)
    late = [*rising[:18], -81.0, -81.5]  # the best epoch is not quite the last
    assert "by 2.25 nats" in said(capsys, history(*late, best=19), epochs=20)
    assert "by 1.00 nats" in said(capsys, history(-3.0, -2.0, best=2), epochs=2)


@pytest.mark.parametrize(
    "bounds, best",
    [
        ([-100.0 + epoch for epoch in range(16)] + [-80.0] + [-84.0] * 3, 15),
        ([-100.0, -90.0, -89.95], 3),
        ([-100.0, -90.0], None),
        ([-100.0], 1),
    ],
    ids=["the best is earlier", "it hardly rises", "no validation", "one epoch"],
)
def test_a_bound_that_was_not_rising_is_no_reason_to_go_on(bounds, best, capsys: pytest.CaptureFixture):
    words = said(capsys, history(*bounds, best=best), epochs=len(bounds))
    assert "Careful" not in words
    assert "all epochs are done" in words


def test_a_model_that_is_worse_than_before_training_is_told_of_instead_of_a_rise(capsys: pytest.CaptureFixture):
    worse = replace(history(-900.0, -500.0, best=2), before=-45.0, after=-500.0)
    words = said(capsys, worse, epochs=2)
    assert words.count("Careful") == 1
    assert "worse than before training: what training maximizes is -500 nats per data point on validation data" in words
    assert "was -45 before the first step" in words
