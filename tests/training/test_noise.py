"""Processes that share a batch draw the noise that one process would draw: each its own rows of it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Laplace, Normal, StudentT

from subo.data.batches import Batch, batches
from subo.data.splits import Split
from subo.runtime.randomness import forked
from subo.training.noise import noise_of

K, D = 3, 2


def gaussian(x: Tensor) -> Tensor:
    return Independent(Normal(x, 1 + x.square()), 1).rsample((K,))


def categories(x: Tensor) -> Tensor:
    return torch.distributions.OneHotCategorical(logits=x).sample((K,))


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "K samples of a normal": gaussian,
    "one sample of a normal": lambda x: Normal(x, 1.0).sample(),
    "uniform": lambda x: Laplace(x, 1.0).rsample((K,)),
    "folded": lambda x: torch.randn(K * len(x), D),
    "of a shape by name": lambda x: torch.rand(size=(len(x), 4)),
    "alike": lambda x: torch.rand_like(x),
    "bits": lambda x: torch.bernoulli(x.sigmoid().expand(K, *x.shape)),
    "classes": categories,
    "classes of folded rows": lambda x: Categorical(logits=x.repeat(K, 1)).sample(),
    "dropout": lambda x: torch.nn.functional.dropout(x, 0.4),
    "dropout of samples": lambda x: torch.nn.functional.dropout(x.expand(K, *x.shape), 0.4),
    "in place": lambda x: torch.zeros(K, len(x), D).exponential_(),
}


def drawn(draw: Callable[[Tensor], Tensor], batch: Batch, rank: int, world_size: int) -> Tensor:
    """Two draws, the second of which also needs the generators to be where one process's would be."""
    fabric: Any = SimpleNamespace(global_rank=rank, world_size=world_size)
    with forked(5), noise_of(batch, fabric, K):
        first, second = draw(batch.x), draw(batch.x)
    return torch.stack([first, second])


def of_examples(values: Tensor, count: int) -> Tensor:
    """Examples first: ``(B, ...)`` of ``(2, K, B, ...)``, ``(2, K B, ...)`` or ``(2, B, ...)``."""
    if values.shape[1] == K and values.ndim > 2 and values.shape[2] == count:
        return values.movedim(2, 0)
    return values.unflatten(1, (-1, count)).movedim(2, 0)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(("size", "world_size"), [(11, 2), (11, 4), (6, 2), (3, 4), (1, 2)])
def test_each_process_has_its_rows_of_the_noise_of_one(name: str, size: int, world_size: int):
    part = Split(torch.randn(size, D, generator=torch.Generator().manual_seed(1)))
    (whole,) = batches(part, size, seed=0, epoch=0)
    expected = of_examples(drawn(DRAWS[name], whole, 0, 1), size)
    for rank in range(min(world_size, size)):
        (share,) = batches(part, size, seed=0, epoch=0, rank=rank, world_size=world_size)
        own = drawn(DRAWS[name], share, rank, world_size)
        assert torch.equal(of_examples(own, len(share.x)), expected[rank::world_size])


def test_a_process_without_examples_keeps_its_generator_with_the_others():
    part = Split(torch.zeros(3, D))
    after = []
    for rank in range(4):
        (share,) = batches(part, 3, seed=0, epoch=0, rank=rank, world_size=4)
        fabric: Any = SimpleNamespace(global_rank=rank, world_size=4)
        with forked(0):
            with noise_of(share, fabric, K):
                gaussian(share.x)
            after.append(torch.randn(()))
    assert len({value.item() for value in after}) == 1


def test_samplers_that_reject_differ_between_processes_and_keep_them_together():
    part = Split(torch.zeros(8, D))
    values, after = [], []
    for rank in range(2):
        (share,) = batches(part, 8, seed=0, epoch=0, rank=rank, world_size=2)
        fabric: Any = SimpleNamespace(global_rank=rank, world_size=2)
        with forked(0):
            with noise_of(share, fabric, K):
                values.append(StudentT(3.0, share.x).rsample((K,)))
            after.append(torch.randn(()).item())
    assert not (values[0] == values[1]).any()
    assert after[0] == after[1]


def test_the_gradient_goes_through_dropout_and_samples():
    part = Split(torch.ones(4, D))
    (share,) = batches(part, 4, seed=0, epoch=0, rank=1, world_size=2)
    x = share.x.requires_grad_()
    fabric: Any = SimpleNamespace(global_rank=1, world_size=2)
    with forked(0), noise_of(share, fabric, 1):
        kept = torch.nn.functional.dropout(x, 0.5)
    (gradient,) = torch.autograd.grad(kept.sum(), x)
    assert torch.equal(gradient, kept.detach())  # 0 or 2 each
