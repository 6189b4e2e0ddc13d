"""Data in memory: streams, splits, and the policies of binarization."""

import math

import numpy as np
import pytest
import torch

from assertions import assert_refused
from subo.data.batches import batches
from subo.data.dataset import Data, split
from subo.data.quantization import binarized
from subo.data.splits import Split
from subo.data.values import Kind, check_values, kind_of
from subo.runtime.randomness import stream


def all_of(part):
    return torch.arange(len(part))


def grey_data(n=40, event=(1, 4, 4)):
    """Pixels of all values from 0 to 255, and the value i as first pixel of example i."""
    x = torch.randint(256, (n, *event), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    train, validation, test = split(x, levels=255, labels=torch.arange(n) % 7, seed=2)
    return Data("grey", train, validation, test, kind="grey", seed=2)


# Streams


def test_a_stream_depends_on_its_key_alone():
    torch.manual_seed(0)
    first = torch.rand(4, generator=stream("order", 1, 2))
    torch.manual_seed(1)
    assert torch.equal(first, torch.rand(4, generator=stream("order", 1, 2)))
    assert torch.equal(first, torch.rand(4, generator=stream("order", np.int64(1), np.uint8(2))))


def test_streams_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(batches(binarized(grey_data(), "dynamic", seed=0).train, 8, seed=0, epoch=0))
    assert torch.equal(expected, torch.rand(1))


def test_streams_of_small_keys_differ():
    keys = [(seed,) for seed in range(15)]
    keys += [(seed, epoch) for seed in range(15) for epoch in range(15)]
    keys += [(seed, epoch, b) for seed in range(15) for epoch in range(15) for b in range(15)]
    seeds = {stream(purpose, *key).initial_seed() for purpose in ("order", "batch") for key in keys}
    assert len(seeds) == 2 * len(keys)


# Split


def test_read_divides_pixels_by_their_levels():
    part = Split(torch.arange(17, dtype=torch.uint8).reshape(17, 1), levels=16, labels=torch.arange(17) + 100)
    index = torch.tensor([16, 0, 3])
    x, context = part.read(index)
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == [1.0, 0.0, 3 / 16]
    assert context["index"].tolist() == [16, 0, 3]
    assert context["label"].tolist() == [116, 100, 103]


def test_read_gives_values_as_they_are_without_levels():
    x = torch.tensor([[-1.5, 2.0], [3e30, 0.1]])
    part = Split(x)
    values, context = part.read(torch.tensor([1, 0]))
    assert torch.equal(values, x[[1, 0]])
    assert set(context) == {"index"}
    values.zero_()
    assert torch.equal(part.x, torch.tensor([[-1.5, 2.0], [3e30, 0.1]]))  # a batch is no view of the data


def test_len_event_shape_take():
    part = Split(torch.arange(24).reshape(4, 3, 2), levels=5, labels=torch.arange(4), resample=True)
    assert len(part) == 4
    assert part.event_shape == (3, 2)
    some = part.take(torch.tensor([2, 0]))
    assert torch.equal(some.x, part.x[[2, 0]])
    assert some.labels is not None
    assert some.labels.tolist() == [2, 0]
    assert (some.levels, some.resample) == (5, True)


def test_resampling_without_a_generator_is_refused():
    part = Split(torch.zeros(3, 2, dtype=torch.uint8), levels=255, resample=True)
    with assert_refused("generator"):
        part.read(torch.tensor([0]))


@pytest.mark.parametrize("levels", [1, 3, 16, 255])
def test_the_frequency_of_ones_is_x_over_levels(levels):
    n = 4000
    if levels == 1:
        values = torch.tensor([0.0, 0.001, 0.25, 0.5, 0.9, 0.999, 1.0])
    else:
        values = torch.arange(levels + 1, dtype=torch.uint8)
    part = Split(values.repeat(n, 1), levels=levels, resample=True)
    x, _ = part.read(all_of(part), generator=stream("test", 1))
    once = part.drawn(stream("test", 2))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert once.x.dtype == torch.uint8
    assert (once.levels, once.resample) == (1, False)
    p = values.double() / levels
    for frequency in (x.double().mean(0), once.x.double().mean(0)):
        assert ((frequency - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()  # for p of 0 and 1: equal


def test_bits_of_neighboring_pixels_and_data_are_uncorrelated():
    part = Split(torch.full((200, 100), 8, dtype=torch.uint8), levels=16, resample=True)
    x, _ = part.read(all_of(part), generator=stream("test", 3))
    s = 2 * x.double() - 1
    for products in (s[:, 1:] * s[:, :-1], s[1:] * s[:-1]):
        assert abs(products.mean().item()) < 5 / math.sqrt(products.numel())


# Splitting


@pytest.mark.parametrize(
    "n, fractions, sizes",
    [
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (1797, (0.8, 0.1, 0.1), (1439, 179, 179)),
        (100, (0.42, 0.29, 0.29), (42, 29, 29)),
        (100, (0.01, 0.0, 0.99), (1, 1, 98)),
        (100, (0.01, 0.99, 0.0), (1, 98, 1)),
        (4, (0.0, 0.5, 0.5), (1, 1, 2)),
    ],
)
def test_every_datum_lands_in_one_part(n, fractions, sizes):
    parts = split(torch.arange(n)[:, None], labels=torch.arange(n), fractions=fractions, levels=9)
    assert tuple(map(len, parts)) == sizes
    assert torch.equal(torch.cat([part.x for part in parts]).flatten().sort().values, torch.arange(n))
    for part in parts:
        assert part.labels is not None
        assert torch.equal(part.x[:, 0], part.labels)
        assert part.levels == 9
        assert part.rows is not None
        assert torch.equal(part.x[:, 0], part.rows - 1)


def test_the_seed_decides_the_split():
    x = torch.arange(50)[:, None]
    first, again, other = split(x, seed=1), split(x, seed=1), split(x, seed=2)
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].x, other[0].x)
    assert not torch.equal(torch.cat([part.x for part in first]), x)


@pytest.mark.parametrize("n, found", [(0, "no rows"), (1, "one row"), (2, "2 rows")])
def test_too_few_rows_are_refused(n, found):
    with assert_refused("here.npy", "three rows", found):
        split(torch.zeros(n, 2), where="here.npy")


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with assert_refused("sum to 1", str(fractions)):
        split(torch.zeros(9, 2), fractions=fractions)


# Binarization


def test_static_draws_every_split_once():
    data = grey_data()
    bits = binarized(data, "static", seed=5)
    assert (bits.kind, bits.binarize, bits.seed) == ("binary", "static", 5)
    for before, after in (
        (data.train, bits.train),
        (data.validation, bits.validation),
        (data.test, bits.test),
    ):
        assert after.x.dtype == torch.uint8
        assert (after.levels, after.resample) == (1, False)
        assert after.x.unique().tolist() == [0, 1]
        assert after.labels is before.labels
        assert (after.x[before.x == 0] == 0).all()
        assert (after.x[before.x == 255] == 1).all()
    assert torch.equal(bits.train.x, binarized(data, "static", seed=5).train.x)
    assert not torch.equal(bits.train.x, binarized(data, "static", seed=6).train.x)
    assert data.train.levels == 255  # what came in is as it was


def test_static_draws_of_equal_splits_differ():
    part = Split(torch.full((9, 50), 128, dtype=torch.uint8), levels=255)
    bits = binarized(Data("same", part, part, part, kind="grey"), "static", seed=0)
    assert not torch.equal(bits.train.x, bits.validation.x)
    assert not torch.equal(bits.validation.x, bits.test.x)


def test_dynamic_resamples_train_and_shares_the_other_draws_with_static():
    data = grey_data()
    static, dynamic = binarized(data, "static", seed=5), binarized(data, "dynamic", seed=5)
    assert (dynamic.kind, dynamic.binarize, dynamic.seed) == ("binary", "dynamic", 5)
    assert dynamic.train.resample
    assert torch.equal(dynamic.train.x, data.train.x)
    assert torch.equal(dynamic.validation.x, static.validation.x)
    assert torch.equal(dynamic.test.x, static.test.x)
    assert not dynamic.validation.resample
    assert not dynamic.test.resample


def test_none_changes_nothing():
    data = grey_data()
    assert binarized(data, "none", seed=9) is data


@pytest.mark.parametrize("policy", ["static", "dynamic"])
def test_only_grey_values_are_binarized(policy):
    grey = grey_data()
    bits = binarized(grey, "static", seed=0)
    with assert_refused("grey: the data are binary already: use binarize none"):
        binarized(bits, policy, seed=0)
    for kind in ("whole", "real"):
        data = Data("table.csv", grey.train, grey.validation, grey.test, kind=kind)
        with assert_refused("table.csv", "only grey", kind, "binarize none"):
            binarized(data, policy, seed=0)


# What the values are


@pytest.mark.parametrize(
    "values, levels, kind",
    [
        ([0.0, 1.0, 1.0], 1, "binary"),
        ([0.0, 0.0, 0.0], 1, "binary"),
        ([0.0, 0.5, 1.0], 1, "grey"),
        ([0.2, 0.3, 0.4], 1, "grey"),
        ([0.0, 1.0, 2.0], 1, "whole"),
        ([0.0, 0.5, 2.0], 1, "real"),
        ([-1.0, 0.0, 1.0], 1, "real"),
        ([-0.5, 0.0, 0.5], 1, "real"),
        ([0, 1, 1], 1, "binary"),
        ([0, 1, 7], 1, "whole"),
        ([0.0, 3.0, 2.0**24], 1, "whole"),
        ([0.0, 3.0, 2.0**25], 1, "real"),  # where float32 has no others
        ([0, 255, 255], 255, "binary"),
        ([0, 1, 1], 255, "grey"),
        ([0, 16, 3], 16, "grey"),
    ],
)
def test_kind_of(values, levels, kind):
    integers = all(isinstance(value, int) for value in values)
    x = torch.tensor(values, dtype=torch.uint8 if integers else torch.float32)
    assert kind_of(x[:, None], levels=levels) == kind
    assert kind_of(*x[:, None].split(1), levels=levels) == kind


def test_finite_values_pass():
    check_values(torch.tensor([[0.0, -3e38]]), where="x")
    check_values(torch.tensor([[0, 255]], dtype=torch.uint8), where="x")


def test_values_that_are_not_finite_are_counted_and_located():
    x = torch.zeros(4, 3)
    x[2, 1], x[3, 0], x[3, 2] = math.nan, math.inf, -math.inf
    with assert_refused("table.csv", "3 of 12 are", "nan", "row 3, column 'b' (counting from 1)"):
        check_values(x, where="table.csv", names=("a", "b", "c"))
    with assert_refused("row 3, column 2 "):
        check_values(x, where="table.npy")
    with assert_refused("1 of 3 is", "-inf", "row 1, column 3"):
        check_values(torch.tensor([[0.0, 1.0, -math.inf]]), where="x")
    images = torch.zeros(4, 1, 5, 6)
    images[1, 0, 4, 2] = math.inf
    with assert_refused("1 of 120", "inf", "row 2, element (1, 5, 3)"):
        check_values(images, where="images")


# Data


def test_describe_says_how_splits_were_binarized():
    data = grey_data()
    for policy in ("none", "static", "dynamic"):
        about = binarized(data, policy, seed=4).describe()
        assert about["name"] == "grey"
        assert about["event_shape"] == (1, 4, 4)
        assert about["sizes"] == {"train": 32, "validation": 4, "test": 4}
        assert about["kind"] == ("grey" if policy == "none" else "binary")
        assert about["binarize"] == policy
        assert about["seed"] == (2 if policy == "none" else 4)
        assert len(about["fingerprint"]) == 16
        assert ("at every read" in about["binarization"]) == (policy == "dynamic")
        assert ("with seed 4" in about["binarization"]) == (policy != "none")
        for part in about["sizes"] if policy != "none" else ():
            assert part in about["binarization"]
        assert about["meaning"].kind == "grey"  # of what is read, before bits are drawn
        assert about["meaning"].levels == 255


def test_data_are_shown_in_one_line():
    data = grey_data()
    assert repr(data) == "Data(grey: 32 train, 4 validation, 4 test, of shape (1, 4, 4), grey)"
    assert repr(binarized(data, "dynamic", seed=4)).endswith("binary, binarize dynamic)")
    assert repr(data.test) == "Split(4 of shape (1, 4, 4), uint8, levels 255, labels)"
    assert repr(binarized(data, "dynamic", seed=4).train).endswith("bits drawn at every read)")
    assert repr(Split(torch.zeros(1200, 3))) == "Split(1,200 of shape (3,), float32)"


def test_columns_with_one_value_are_named():
    x = torch.arange(30.0).reshape(10, 3) - 5
    x[:, [0, 2]] = 7.5

    def named(names, kind: Kind = "real"):
        return Data("x", *split(x), kind=kind, feature_names=names).constant_features()

    assert named(("a", "b", "c")) == ("a", "c")
    assert named(None) == ("1", "3")
    assert named(None, kind="binary") == ()  # a bit may be 0 everywhere
    assert Data("x", *split(x[..., None, None]), kind="real").constant_features() == ()


def test_the_fingerprint_tells_data_apart():
    def prints(x, labels=None, levels=1):
        part = Split(x, labels=labels, levels=levels)
        return Data("x", part, part.take(torch.tensor([0])), part, kind="real").fingerprint

    x = torch.arange(12.0).reshape(4, 3)
    changed = x.clone()
    changed[3, 2] += 1
    assert prints(x) == prints(x.clone())
    assert prints(x.T.contiguous().T) == prints(x)  # the layout in memory doesn't matter
    others = [
        prints(changed),
        prints(x.reshape(4, 3, 1)),
        prints(x.double()),
        prints(x, levels=2),
        prints(x, torch.zeros(4, dtype=torch.long)),
        prints(x, torch.ones(4, dtype=torch.long)),
    ]
    assert len({prints(x), *others}) == 7


def test_the_fingerprint_covers_every_split_and_their_order():
    data = grey_data()
    swapped = Data("grey", data.train, data.test, data.validation, kind="grey", seed=2)
    assert swapped.fingerprint != data.fingerprint
    for part in ("train", "validation", "test"):
        again = grey_data()
        getattr(again, part).x[-1, 0, 3, 3] ^= 1
        assert again.fingerprint != data.fingerprint
