"""Training on batches that come ready made, such as those of a DataLoader."""

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from shapes import unchecked_shapes
from subo import (
    VAE,
    Bernoulli,
    Conditional,
    Gaussian,
    InputError,
    Interrupted,
    Objective,
    StandardNormal,
    fit,
    mlp,
    train,
)
from subo.data.batches import Batch, batch_of
from subo.data.splits import Split
from subo.runtime.randomness import forked
from subo.training.history import Epoch
from subo.training.optimizers import make_optimizer


class Labeled(nn.Module):
    """A decoder that sees the class."""

    def __init__(self):
        super().__init__()
        self.network = mlp(3, 5, hidden=(8,))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.network(torch.cat([z, label[:, None].to(z)], dim=1))


def objective(seed: int = 0, *, labeled: bool = False) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((5,)), Labeled() if labeled else mlp(2, 5, hidden=(8,)))
    return Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(5, 4, hidden=(8,)))))


def bits(n: int = 20) -> Tensor:
    return torch.bernoulli(torch.full((n, 5), 0.5), generator=torch.Generator().manual_seed(0))


def loader(*tensors: Tensor) -> DataLoader:
    generator = torch.Generator().manual_seed(7)
    return DataLoader(TensorDataset(*tensors), batch_size=8, shuffle=True, generator=generator)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in module.state_dict().values()])


@pytest.mark.parametrize("labeled", [False, True])
def test_two_epochs_over_a_loader_are_the_same_steps_by_hand(labeled: bool):
    tensors = (bits(), torch.arange(20) % 2) if labeled else (bits(),)
    fitted, by_hand = objective(labeled=labeled), objective(labeled=labeled)
    history = fit(fitted, loader(*tensors), epochs=2, seed=3)
    assert [epoch.step for epoch in history.epochs] == [3, 6]
    assert history.before is None
    batches, optimizer = loader(*tensors), make_optimizer(by_hand)
    with forked(3):
        for _ in range(2):
            assert len(list(train(by_hand, batches, optimizer=optimizer))) == 3
    assert torch.equal(weights(fitted), weights(by_hand))


def test_steps_per_epoch_counts_batches_over_passes():
    history = fit(objective(), [bits(4), bits(4)], epochs=2, steps_per_epoch=3)
    assert [epoch.step for epoch in history.epochs] == [3, 6]
    endless = (bits(4) for _ in range(100))
    assert [epoch.step for epoch in fit(objective(), endless, epochs=2, steps_per_epoch=3).epochs] == [3, 6]


@pytest.mark.parametrize("validation", [bits(), Split(bits()), (bits(), {"label": torch.arange(20) % 2})])
def test_validation_tells_the_best_epoch(validation):
    for data in (loader(bits(), torch.arange(20) % 2), Split(bits(), labels=torch.arange(20) % 2)):
        history = fit(
            objective(labeled=isinstance(validation, tuple)), data, validation=validation, epochs=3, patience=2
        )
        assert history.best_epoch is not None
        assert history.before is not None


def test_a_run_on_a_loader_goes_on_with_a_new_pass(tmp_path: Path):
    def stop(epoch: Epoch) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(objective(), loader(bits()), epochs=2, run_dir=tmp_path, on_epoch=stop)
    history = fit(objective(), loader(bits()), epochs=2, run_dir=tmp_path, resume=True)
    assert [epoch.step for epoch in history.epochs] == [3, 6]
    with pytest.raises(InputError, match="made with steps_per_epoch = 3"):
        fit(objective(), loader(bits()), epochs=3, steps_per_epoch=5, run_dir=tmp_path, resume=True)


@unchecked_shapes()  # and types
@pytest.mark.parametrize(
    "data, options, message",
    [
        ((bits(4) for _ in range(9)), {}, "generator has no length.*`steps_per_epoch`"),
        (iter([bits(4)]), {"steps_per_epoch": 2}, "no batch left"),
        ([], {}, "has no batches"),
        ([(bits(4), torch.randn(4))], {}, r"a batch is x, or \(x, label\).*got \(float32 \(4, 5\), float32 \(4,\)\)"),
        ([(bits(4), torch.arange(3))], {}, "'label' has 3 rows for 4"),
        ([0.5 * bits(4)], {}, "the first batch: row .* holds 0.5"),
        ([bits(4)], {"patience": 2}, "no validation data"),
        ([bits(4)], {"updates": "aggressive"}, "give `validation`"),
        (bits(4), {"steps_per_epoch": 2}, "data in memory"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(data, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        fit(objective(), data, epochs=2, **options)


def test_local_inference_needs_data_in_memory():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.means = nn.Parameter(torch.zeros(20, 2))

        def forward(self, x: Tensor, index: Tensor) -> torch.distributions.Distribution:
            return torch.distributions.Independent(torch.distributions.Normal(self.means[index], 1.0), 1)

    model = VAE(StandardNormal(2), Conditional(Bernoulli((5,)), mlp(2, 5)), Local())
    with pytest.raises(InputError, match="local inference keeps parameters for each.*a tensor or a Split"):
        fit(Objective(model), loader(bits()), epochs=1)


def test_a_batch_of_integers_is_one_of_numbers():
    batch = batch_of((torch.ones(2, 5, dtype=torch.uint8), torch.tensor([0, 1])))
    assert isinstance(batch, Batch)
    assert batch.x.dtype == torch.float32
    assert batch.context["label"].tolist() == [0, 1]
