"""Training in windows: the bound of a reader that starts anew at their borders, and its gradient cut there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.testing import assert_close

from padding import mask_of
from subo import (
    VAE,
    Gaussian,
    HiddenMarkov,
    InputError,
    LinearGaussianStateSpace,
    MarkovDistribution,
    Objective,
    ScoreFunction,
    StickingTheLanding,
    fit,
    probabilistic_pca,
    train,
)
from subo.core.objective import Loss
from subo.data.splits import Split
from subo.models.deep_markov import Smoother
from subo.models.emission import masked
from subo.recipes import deep_markov
from subo.runtime.room import bytes_saved
from subo.training.history import Epoch, History
from subo.training.metrics import measure
from subo.training.updates import Alternating
from subo.training.windows import Update, in_windows

D, LENGTHS, WINDOW = 3, (7, 3, 5, 1), 3
MASK = mask_of(*LENGTHS)


def objective(seed: int = 0, **options: Any) -> Objective:
    torch.manual_seed(seed)
    sizes = {"latent_dim": 2, "transition_hidden": 6, "hidden": (5,), "reader_hidden": 4}
    return deep_markov((D,), likelihood="gaussian", **{**sizes, **options}).double()


def sequences() -> Tensor:
    x = torch.randn(len(LENGTHS), max(LENGTHS), D, generator=torch.Generator().manual_seed(1)).double()
    x[0, 4] = torch.nan  # a step that was not observed
    return x


def split() -> Split:
    return Split(sequences()[MASK].float(), lengths=torch.tensor(LENGTHS))


def weights(objective: Objective) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in objective.parameters()])


def borders(x: Tensor) -> Tensor:
    """Which steps start a window after the first, ``(B, T, 1)``."""
    times = torch.arange(x.shape[1])
    return ((times > 0) & (times % WINDOW == 0)).to(x).reshape(1, -1, 1).expand(len(x), -1, -1)


class StartingAnew(nn.Module):
    """The reader in one pass over all steps, without memory at the borders, which are marked beside what it read."""

    def __init__(self, reader: nn.Module):
        super().__init__()
        self.reader = reader

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        parts = zip(x.split(WINDOW, 1), mask.split(WINDOW, 1), strict=True)
        return torch.cat([torch.cat([self.reader(*part) for part in parts], 1), borders(x)], 2)


class Cut(nn.Module):
    """A step of a chain with the path from earlier windows cut."""

    def __init__(self, step: nn.Module):
        super().__init__()
        self.step = step

    def forward(self, previous: Tensor, inputs: Tensor) -> Distribution:
        previous = torch.where(inputs[:, -1:] == 1, previous.detach(), previous)
        return self.step(previous, inputs[:, :-1]) if inputs.shape[1] > 1 else self.step(previous)


class CutPrior(nn.Module):
    def __init__(self, prior: Any):
        super().__init__()
        self.initial, self.transition = prior.initial, Cut(prior.transition)

    def forward(self, mask: Tensor) -> MarkovDistribution:
        marks = borders(mask.unsqueeze(2).double())
        return MarkovDistribution(self.initial(), self.transition, mask.shape[1], mask=mask, inputs=marks)


class CutSmoother(Smoother):
    def __init__(self, q: Smoother):
        nn.Module.__init__(self)
        self.reader, self.combiner, self.start = StartingAnew(q.reader), Cut(q.combiner), q.start

    def forward(self, input: Tensor, mask: Tensor) -> MarkovDistribution:  # pyright: ignore[reportIncompatibleMethodOverride]
        h = self.reader(input, mask)
        first = self.combiner(self.start.expand(len(input), -1), h[:, 0])
        return MarkovDistribution(first, self.combiner, input.shape[1], mask=mask, inputs=h)


def in_one_pass(model: VAE, *, seed: int, weight: float = 1.0) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The terms of each window and sequence, and each window's gradient, all from one draw of whole sequences."""
    x, prior, posterior = sequences(), CutPrior(model.prior), CutSmoother(model.posterior)
    torch.manual_seed(seed)
    q, p = posterior(x, MASK), prior(MASK)
    z = q.rsample()
    kl = q.kl_by_step(p, z[None])
    assert kl is not None
    likelihood: Any = model.likelihood
    steps = likelihood.family(likelihood.network(z.flatten(0, 1)))
    seen = torch.where(
        sequences().isnan().any(2), 0, steps.log_prob(x.nan_to_num(0).flatten(0, 1)).unflatten(0, MASK.shape)
    )
    terms = [term.sum(1) for term in (masked(seen, MASK) - weight * kl[0]).split(WINDOW, 1)]
    parameters = list(model.parameters())
    slopes = [
        list(torch.autograd.grad(-term.mean(), parameters, retain_graph=True, materialize_grads=True)) for term in terms
    ]
    return terms, slopes


def by_windows(objective: Objective, *, seed: int, **stage: Any) -> tuple[Loss, list[Loss], list[list[Tensor]]]:
    """The loss that the windows add up to, and each window's loss and gradient."""
    losses, slopes = [], []

    def follow(update: Update) -> tuple[Loss, None]:
        loss = objective(update.x, update.context, **update.stage)
        slopes.append(list(torch.autograd.grad(loss.loss, list(objective.model.parameters()), materialize_grads=True)))
        losses.append(loss)
        return loss._replace(loss=loss.loss.detach()), None

    torch.manual_seed(seed)
    total, norm = in_windows(follow, WINDOW)(Update(1, sequences(), {"mask": MASK}, 1.0, stage, []))
    assert norm is None
    return total, losses, slopes


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_each_window_is_that_of_a_reader_that_starts_anew_in_value_and_gradient(kl_weight: float):
    ours = objective()
    total, losses, slopes = by_windows(ours, seed=5, kl_weight=kl_weight)
    terms, expected = in_one_pass(ours.model, seed=5)
    assert len(losses) == len(terms) == 3
    for loss, term in zip(losses, terms, strict=True):
        assert_close(loss.bound, term.detach())  # 0 for sequences that ended
    whole = torch.stack(terms).sum(0)
    assert_close(total.bound, whole)
    assert_close(total.elbo, total.bound)
    _, followed = in_one_pass(ours.model, seed=5, weight=kl_weight)
    for of_window, wanted in zip(slopes, followed, strict=True):
        for found, slope in zip(of_window, wanted, strict=True):
            assert_close(found, slope, rtol=1e-9, atol=1e-12)
    if kl_weight == 1:
        assert_close(total.loss, -whole.mean())
        return
    assert any(
        (found - slope).abs().max() > 1e-6
        for a, b in zip(slopes, expected, strict=True)
        for found, slope in zip(a, b, strict=True)
    )


def test_a_window_of_all_steps_is_training_without():
    batch = (sequences(), {"mask": MASK})
    whole = objective()
    plain = [step.loss for step in train(whole, [batch], steps=3)]
    windowed = objective()  # which seeds the noise, too
    found = [step.loss for step in train(windowed, [batch], steps=3, window=max(LENGTHS))]
    for a, b in zip(plain, found, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a[:-1], b[:-1], strict=True))
    assert torch.equal(weights(whole), weights(windowed))


def test_every_window_makes_an_update_and_is_counted_in_the_step():
    ours, still = objective(), objective()
    options: dict[str, Any] = {"steps": 1, "window": WINDOW, "clip": 1e9}
    sgd = [torch.optim.SGD(o.parameters(), lr=rate) for o, rate in ((ours, 0.01), (still, 0.0))]
    for each, optimizer in zip((ours, still), sgd, strict=True):
        torch.manual_seed(5)
        (step,) = train(each, [(sequences(), {"mask": MASK})], optimizer=optimizer, **options)
    terms, slopes = in_one_pass(still.model, seed=5)
    assert_close(step.loss.bound, torch.stack(terms).sum(0).detach())
    assert step.loss.z is None
    norms = [torch.cat([slope.flatten() for slope in each]).norm().item() for each in slopes]
    assert step.gradient_norm == pytest.approx(max(norms))
    moved = weights(objective()) - 0.01 * torch.cat([slope.flatten() for slope in slopes[0]])
    assert (weights(ours) - moved).abs().max() > 1e-6  # not the first window's alone
    together = moved - 0.01 * torch.cat([(b + c).flatten() for b, c in zip(*slopes[1:], strict=True)])
    assert 0 < (weights(ours) - together).abs().max() < 0.1 * (weights(ours) - weights(still)).abs().max()


def test_sticking_the_landing_and_turns_go_by_windows_too():
    model = objective().model
    for other in (Objective(model, gradient=StickingTheLanding()), Objective(model, num_samples=3)):
        (step,) = train(other, [(sequences(), {"mask": MASK})], steps=1, window=WINDOW)
        assert step.loss.bound.isfinite().all()
    ours = objective()
    before = weights(ours)
    steps = list(train(ours, [(sequences(), {"mask": MASK})], steps=2, window=WINDOW, updates=Alternating(2)))
    assert len(steps) == 2
    assert (weights(ours) != before).double().mean() > 0.9


def test_autograd_keeps_what_a_window_needs():
    x, kept = torch.randn(2, 400, D).double(), {}
    for window in (400, 40, 20):
        most, ours = 0, objective()

        def follow(update: Update, ours: Any = ours) -> Any:
            nonlocal most
            with bytes_saved(list(ours.parameters())) as total:
                loss = ours(update.x, update.context, **update.stage)
            most = max(most, total[0])
            return loss._replace(loss=loss.loss.detach()), None

        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        in_windows(follow, window)(Update(1, x, {"mask": mask}, 1.0, {}, []))
        kept[window] = most
    assert kept[40] < kept[400] / 9
    assert kept[20] < kept[40] / 1.8


class Stop(Exception):
    """Stands for a crash."""


def test_a_fit_in_windows_resumes_bit_for_bit_and_validates_whole_sequences(tmp_path: Path):
    def crash(record: Epoch) -> None:
        if record.epoch == 2:
            raise Stop

    def fitted(ours: Objective, *, window: int | None = WINDOW, **options: Any) -> History:
        return fit(ours, split(), validation=split(), epochs=4, batch_size=2, window=window, **options)

    whole, resumed = objective().float(), objective(seed=5).float()
    history = fitted(whole)
    assert history.epochs[-1].step == 8  # batches
    best = max(epoch.validation.bound for epoch in history.epochs if epoch.validation is not None)
    assert measure(whole, split(), batch_size=2).bound == best
    with pytest.raises(Stop):
        fitted(objective().float(), run_dir=tmp_path, checkpoint_minutes=1e-9, on_epoch=crash)
    for other in (None, 4):
        with pytest.raises(InputError, match="made with window = 3"):
            fitted(resumed, window=other, run_dir=tmp_path, resume=True)
    fitted(resumed, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(whole))


CHAIN = {"latent_dim": 2, "transition_hidden": 6, "hidden": (5,), "reader_hidden": 4}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Objective(HiddenMarkov(2, Gaussian((D,)))), "HiddenMarkov has others"),
        (lambda: Objective(LinearGaussianStateSpace(D, 2).as_vae()), "VAE has others"),
        (lambda: deep_markov((D,), likelihood="gaussian", bound="iwae", num_samples=2, **CHAIN), "bound IWAE"),
        (lambda: deep_markov((D,), likelihood="gaussian", free_bits=1.0, **CHAIN), "without free bits"),
        (lambda: Objective(deep_markov((D,), likelihood="gaussian", **CHAIN).model, gradient=ScoreFunction()), "path"),
    ],
)
def test_models_and_bounds_without_windows_are_refused(made: Any, words: str):
    with pytest.raises(InputError, match=words):
        fit(made(), split(), epochs=1, window=2)


def test_data_without_steps_are_refused():
    with pytest.raises(InputError, match="not sequences"):
        fit(Objective(probabilistic_pca(D, 2)), torch.randn(9, D), epochs=1, window=2)
    with pytest.raises(InputError, match="window must be at least 1"):
        fit(objective().float(), split(), epochs=1, window=0)
    chain = objective()
    chain.model.prior.length = 4  # needs no mask
    assert len(list(train(chain, [torch.zeros(2, 4, D)]))) == 1
    with pytest.raises(InputError, match="not sequences"):
        next(train(chain, [torch.zeros(2, 4, D)], window=2))
