"""Batches: every example once an epoch, in one order, whoever reads them."""

from dataclasses import replace

import pytest
import torch

from assertions import assert_refused
from subo.data.batches import batches, num_batches
from subo.data.splits import Split


def both():
    """The same 23 examples, read as they are, drawn as bits at every read and with noise at every read."""
    x = torch.randint(1, 255, (23, 1, 5, 5), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    part = Split(x, levels=255, labels=torch.arange(23) * 10)
    return [part, replace(part, resample=True), replace(part, resample=True, dequantize=True)]


def assert_same(a, b):
    assert torch.equal(a.x, b.x)
    assert a.weight == b.weight
    assert a.context.keys() == b.context.keys() == {"index", "label"}
    assert all(torch.equal(a.context[name], b.context[name]) for name in a.context)


@pytest.mark.parametrize("part", both())
def test_an_epoch_reads_every_datum_once(part):
    epoch = list(batches(part, 5, seed=0, epoch=0))
    assert [len(batch.x) for batch in epoch] == [5, 5, 5, 5, 3]
    assert len(epoch) == num_batches(part, 5)
    assert all(batch.weight == 1.0 for batch in epoch)
    index = torch.cat([batch.context["index"] for batch in epoch])
    assert torch.equal(index.sort().values, torch.arange(23))
    assert torch.equal(torch.cat([batch.context["label"] for batch in epoch]), index * 10)
    if not part.resample:
        assert torch.equal(torch.cat([batch.x for batch in epoch]), part.x[index].float() / 255)


def test_num_batches():
    part = both()[0]
    assert [num_batches(part, size) for size in (1, 22, 23, 24)] == [23, 2, 1, 1]
    with assert_refused("batch_size is 0"):
        num_batches(part, 0)


@pytest.mark.parametrize("part", both())
def test_epochs_and_seeds_have_their_own_order(part):
    def order(seed, epoch):
        return tuple(torch.cat([b.context["index"] for b in batches(part, 5, seed=seed, epoch=epoch)]).tolist())

    assert order(0, 1) == order(0, 1)
    assert len({order(0, 0), order(0, 1), order(1, 0), order(1, 1)}) == 4


def test_without_shuffling_data_come_in_order():
    part = both()[0]
    epoch = list(batches(part, 5, seed=0, epoch=0, shuffle=False))
    assert torch.equal(torch.cat([batch.context["index"] for batch in epoch]), torch.arange(23))


def test_dynamic_bits_differ_between_batches_epochs_and_seeds():
    part = Split(torch.full((10, 60), 128, dtype=torch.uint8), levels=255, resample=True)
    runs = [(0, 0), (0, 1), (1, 0)]
    draws = [batch.x for seed, epoch in runs for batch in batches(part, 5, seed=seed, epoch=epoch)]
    assert len({tuple(x.flatten().tolist()) for x in draws}) == 6
    assert torch.equal(draws[0], next(batches(part, 5, seed=0, epoch=0)).x)


@pytest.mark.parametrize("part", both())
@pytest.mark.parametrize("first", [0, 3, 4, 5])
def test_first_goes_on_where_an_epoch_stopped(part, first):
    rest = list(batches(part, 5, seed=3, epoch=2))[first:]
    resumed = list(batches(part, 5, seed=3, epoch=2, first=first))
    assert len(resumed) == 5 - first
    for a, b in zip(rest, resumed, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("part", both())
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("batch_size", [5, 6, 11])  # the last batch has 3, 5 and 1
def test_processes_see_together_what_one_would_see(part, world_size, batch_size):
    whole = list(batches(part, batch_size, seed=3, epoch=2))
    shares = [
        list(batches(part, batch_size, seed=3, epoch=2, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert all(len(share) == len(whole) for share in shares)
    for b, batch in enumerate(whole):
        x, index, mean = torch.full_like(batch.x, -1), torch.full_like(batch.context["index"], -1), 0.0
        for rank in range(world_size):
            share = shares[rank][b]
            mean += share.weight * share.x.double().mean(0) / world_size
            if rank < len(batch.x):
                x[rank::world_size] = share.x
                index[rank::world_size] = share.context["index"]
                assert torch.equal(share.context["label"], share.context["index"] * 10)
            else:
                assert share.weight == 0.0
                assert torch.equal(share.x, batch.x[:1])
                assert share.context["index"].tolist() == batch.context["index"][:1].tolist()
        assert torch.equal(x, batch.x)
        assert torch.equal(index, batch.context["index"])
        torch.testing.assert_close(mean, batch.x.double().mean(0), rtol=1e-14, atol=1e-15)


def test_the_frequency_over_epochs_is_the_grey_value():
    values = torch.tensor([0, 1, 30, 128, 254, 255], dtype=torch.uint8)
    part = Split(values.repeat(10, 1), levels=255, resample=True)
    n, total = 400 * 10, torch.zeros(6, dtype=torch.float64)
    for epoch in range(400):
        for batch in batches(part, 4, seed=0, epoch=epoch):
            total += batch.x.double().sum(0)
    p = values.double() / 255
    assert ((total / n - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()
