"""Work in shares among processes gives what one process gives, in the same order."""

import os
import pickle
import signal
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import subo
from catalog import DATA_SHAPE, LAYERED_MODELS, conditional_vae, context_of, vae
from subo.data.splits import Split
from subo.errors import InputError, ProcessLostError
from subo.evaluation.cells import cell_scores
from subo.evaluation.latents.usage import _at_a_time, _parts_of, latent_usage, posterior_means
from subo.evaluation.regret import likelihood_regret
from subo.evaluation.scores import _estimates, score
from subo.inference.ascent import Ascent
from subo.runtime.shares import in_shares
from tables import FactorAnalysis, with_gaps

N = 250  # three batches


def data(*, labels: bool = False) -> Split:
    x = torch.bernoulli(torch.full((N, *DATA_SHAPE), 0.5), generator=torch.Generator().manual_seed(0))
    return Split(x, labels=context_of(N)["label"] if labels else None)


def models() -> dict[str, tuple[nn.Module, Split]]:
    return {
        "vae": (vae(), data()),
        "conditional": (conditional_vae(), data(labels=True)),
        "ladder": (LAYERED_MODELS["ladder, residual"](), data()),
    }


def assert_same(found: Any, expected: Any) -> None:
    for name, value in vars(expected).items():
        if isinstance(value, torch.Tensor):  # one thread, or several
            torch.testing.assert_close(getattr(found, name), value, rtol=1e-5, atol=1e-6, equal_nan=True)
        else:
            assert getattr(found, name) == value


@pytest.mark.parametrize("name", ["vae", "conditional", "ladder"])
def test_a_batch_has_its_own_noise_whoever_does_the_others(name: str):
    model, split = models()[name]
    options = {"num_samples": 3, "max_rows": 1000, "pareto": False}
    whole = _estimates(model, split, 100, 7, options, range(3))
    for piece in range(3):
        (alone,) = _estimates(model, split, 100, 7, options, range(piece, piece + 1))
        assert torch.equal(alone.log_px, whole[piece].log_px)
    assert not torch.equal(whole[0].log_px[:50], whole[2].log_px)
    size, num_samples = _at_a_time(model, split, 100)  # pyright: ignore[reportArgumentType]
    parts = _parts_of(model, split, size, num_samples, None, range(3))  # pyright: ignore[reportArgumentType]
    (last,) = _parts_of(model, split, size, num_samples, None, range(2, 3))  # pyright: ignore[reportArgumentType]
    for layer, part in parts[2].items():
        assert torch.equal(part.means, last[layer].means)


def squares(pieces: range) -> list[int]:
    return [piece**2 for piece in pieces]


def refused(pieces: range) -> list[int]:
    raise InputError(f"no {pieces.start}")


def killed(pieces: range) -> list[int]:
    if 3 in pieces:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(pieces)


def test_one_process_does_all_itself():
    assert in_shares(lambda pieces: [os.getpid() for _ in pieces], 3) == [os.getpid()] * 3
    assert in_shares(squares, 0, processes=2) == []


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(InputError, match="can't be sent to other processes.*lambda.*leave `processes` out"):
        in_shares(lambda pieces: list(pieces), 3, processes=2)


@pytest.mark.slow
def test_processes_do_what_one_does():
    done: list[range] = []
    assert in_shares(squares, 21, processes=2, advance=done.append) == squares(range(21))
    assert [piece for pieces in done for piece in pieces] == list(range(21))
    with pytest.raises(InputError, match="no 0"):
        in_shares(refused, 2, processes=2)
    with pytest.raises(ProcessLostError, match="one of 2 processes .* was ended") as lost:
        in_shares(killed, 8, processes=2)
    assert lost.value.code == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conditional", "ladder"])
def test_scores_and_means_do_not_depend_on_the_number_of_processes(name: str):
    model, split = models()[name]
    count: list[float] = []
    options: Any = {"num_samples": 5, "seed": 3}
    assert_same(score(model, split, processes=2, advance=count.append, **options), score(model, split, **options))
    assert sum(count) == N
    assert_same(latent_usage(model, split, batch_size=100, processes=2), latent_usage(model, split, batch_size=100))
    means: Any = partial(posterior_means, model, split, batch_size=100)
    torch.testing.assert_close(means(processes=2), means(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_cells_and_regrets_do_not_depend_on_the_number_of_processes():
    torch.manual_seed(0)
    truth, count = FactorAnalysis(), []
    rows = Split(with_gaps(truth.sample(450)))
    cells: Any = partial(cell_scores, truth.model, rows, num_samples=5, seed=3)
    torch.testing.assert_close(cells(processes=2, advance=count.append), cells(), rtol=1e-5, atol=1e-5, equal_nan=True)
    assert sum(count) == 450
    model, x = vae(), data().x
    regrets: Any = partial(likelihood_regret, model, x, ascent=Ascent(steps=20), num_samples=5, seed=3)
    torch.testing.assert_close(regrets(processes=2), regrets(), rtol=1e-4, atol=1e-4)


def test_recipes_can_be_sent():
    bits = subo.load_data("digits", binarize="static")
    for recipe in ("vae", "ladder", "hierarchical"):
        model = subo.make(recipe, bits).model
        sent = pickle.loads(pickle.dumps(model))
        few = bits.test.take(torch.arange(3))
        assert_same(score(sent, few, num_samples=2, seed=0), score(model, few, num_samples=2, seed=0))
