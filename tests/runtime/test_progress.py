"""Lines of progress where there is no terminal."""

from itertools import pairwise

import pytest

from subo.training.bar import TrainingBar
from subo.training.history import Epoch
from subo.training.metrics import Metrics


def lines(
    capsys: pytest.CaptureFixture, epochs: int | None, minutes: float | None, *, done: int, seconds: float
) -> list[str]:
    """What is printed of so many epochs of so many seconds each."""
    metrics = Metrics(-3.0, -3.0, -3.0, 1.0, 2.0, (1.0,))
    with TrainingBar(epochs, 10, minutes, show=True) as bar:
        for i in range(1, done + 1):
            bar.epoch(Epoch(i, 10 * i, seconds * i, 1e-3, 1.0, metrics, metrics))
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "epochs, minutes, done, seconds",
    [
        (200, None, 200, 1.0),
        (None, 5.0, 600, 0.5),
        (100_000, 5.0, 600, 0.5),  # the clock comes first
        (600, 60.0, 600, 0.5),
    ],
)
def test_lines_are_few_and_spread_over_the_training(capsys, epochs, minutes, done, seconds):
    printed = [int(line.split()[1].rstrip(":")) for line in lines(capsys, epochs, minutes, done=done, seconds=seconds)]
    assert 10 <= len(printed) <= 12
    assert (printed[0], printed[-1]) == (1, done)
    gaps = [after - before for before, after in pairwise(printed[1:])]
    assert max(gaps) <= 1.1 * min(gaps)


def test_every_one_of_a_few_epochs_has_a_line(capsys):
    printed = lines(capsys, 3, None, done=3, seconds=1.0)
    assert [line.split(":")[0] for line in printed] == ["epoch 1", "epoch 2", "epoch 3"]
    assert "validation bound -3.00" in printed[0]
