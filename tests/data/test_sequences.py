"""Sequences in memory and in files: padded batch by batch, nothing lost, and the numbers per step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from assertions import assert_refused, assert_within
from data_files import needs
from subo import InputError
from subo.data.batches import batches
from subo.data.dataset import split
from subo.data.loading import load_data, load_rows
from subo.data.meaning import Meaning
from subo.data.named_sets import read_named
from subo.data.saving import save_sequences
from subo.data.sequences import padded, positions, unpadded
from subo.data.splits import Split
from subo.data.support import check_support
from subo.evaluation import compare, evaluate, score
from subo.evaluation.scores import latents_at_a_time, rows_at_a_time
from subo.recipes import deep_markov
from subo.recipes.for_data import examples_of

LENGTHS = (3, 1, 4, 2)


def ragged(seed: int = 0, width: int = 2, lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, width)).astype(np.float32) for length in lengths]


def of(sequences: list[np.ndarray], **options) -> Split:
    lengths = torch.tensor([len(s) for s in sequences])
    return Split(torch.from_numpy(np.concatenate(sequences)), lengths=lengths, **options)


def test_a_batch_is_padded_to_its_own_longest_sequence():
    sequences = ragged()
    x, context = of(sequences).read(torch.tensor([3, 0, 1]))
    assert x.shape == (3, 3, 2)
    assert context["mask"].tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    for row, index in enumerate((3, 0, 1)):
        assert_close(x[row, : LENGTHS[index]].numpy(), sequences[index])
    assert (x[~context["mask"]] == 0).all()
    assert context["index"].tolist() == [3, 0, 1]


def test_positions_and_padding_are_inverse():
    steps = torch.arange(10.0).unsqueeze(1)
    rows, mask = positions(torch.tensor(LENGTHS), torch.tensor([2, 0]))
    assert rows.tolist() == [4, 5, 6, 7, 0, 1, 2]
    back = unpadded(padded(steps[rows], mask), mask)
    assert [part.flatten().tolist() for part in back] == [[4, 5, 6, 7], [0, 1, 2]]


def test_every_sequence_comes_once_an_epoch_and_whole():
    sequences = ragged(lengths=tuple(range(1, 12)))
    whole = of(sequences)
    seen = {}
    for batch in batches(whole, 4, seed=0, epoch=3):
        assert batch.x.shape[1] == int(batch.context["mask"].sum(1).max())  # never padded beyond the batch
        parts = unpadded(batch.x, batch.context["mask"])
        seen |= dict(zip(batch.context["index"].tolist(), parts, strict=True))
    assert sorted(seen) == list(range(11))
    assert all(np.array_equal(seen[i].numpy(), s) for i, s in enumerate(sequences))


@pytest.mark.parametrize("num, size", [(21, 20), (101, 100), (59, 10), (7, 20)])
def test_sequences_of_all_lengths_count_the_same_in_the_mean_over_epochs(num: int, size: int):
    """In a batch of B data each counts 1/B: what the last, smaller one holds must not depend on the lengths."""
    whole, epochs = of(ragged(width=1, lengths=tuple(range(1, num + 1)))), 400
    counts = torch.zeros(epochs, num, dtype=torch.float64)
    for epoch in range(epochs):
        for batch in batches(whole, size, seed=0, epoch=epoch):
            counts[epoch, batch.context["index"]] = 1 / len(batch.x)
    longer, shorter = counts[:, num // 2 :].mean(1), counts[:, : num // 2].mean(1)
    assert_within(longer - shorter, 0.0)


def test_examples_are_of_many_sequences_beside_a_long_one():
    whole = of(ragged(lengths=(*[5] * 199, 5000)))
    assert examples_of(whole, seed=0).shape == (5995, 2)  # by padded steps only two would have been taken
    assert examples_of(of(ragged(lengths=(3000,) * 9)), seed=0).shape == (12_000, 2)
    assert len(examples_of(of(ragged()), seed=0)) == sum(LENGTHS)


@pytest.mark.parametrize("length, rows", [(100, 3000), (2000, 150), (10**6, 1)])
def test_long_sequences_are_scored_a_few_samples_at_a_time(length: int, rows: int):
    model = deep_markov((1,), likelihood="gaussian").model
    split = Split(torch.zeros(length, 1), lengths=torch.tensor([length]))
    assert latents_at_a_time(model, split) == rows_at_a_time(model, split) == rows


def test_batches_of_no_sequences_are_refused():
    with assert_refused("batch_size is 0"):
        next(batches(of(ragged()), 0, seed=0, epoch=0))


def test_sequences_meet_others_of_their_length_in_an_order_of_chance():
    lengths = torch.randint(1, 100, (205,), generator=torch.Generator().manual_seed(0))
    whole = of(ragged(lengths=tuple(lengths.tolist())))
    first, again, second = (list(batches(whole, 10, seed=0, epoch=epoch)) for epoch in (0, 0, 1))
    orders = [torch.cat([batch.context["index"] for batch in epoch]) for epoch in (first, again, second)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert sorted(orders[0].tolist()) == list(range(205))
    assert [len(batch.x) for batch in first] == [10] * 20 + [5]
    spread = torch.stack(
        [lengths[batch.context["index"]].max() - lengths[batch.context["index"]].min() for batch in first]
    )
    assert spread.float().mean() < 40  # of ten at random: 80
    lengthened = torch.tensor([batch.x.shape[1] for batch in first]).float().diff().sign()
    assert {-1.0, 1.0} <= set(lengthened[:5].tolist())  # not from short to long
    resumed = list(batches(whole, 10, seed=0, epoch=0, first=7))
    assert torch.equal(resumed[0].context["index"], first[7].context["index"])


def test_what_data_are_called_goes_with_them(tmp_path: Path):
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", np.full((i + 1, 2), i, dtype=np.float32))
    data = load_data(tmp_path)
    for part in (data.train, data.validation, data.test):
        assert part.lengths is not None
        assert part.names == tuple(f"{int(value)}.npy" for value in part.x[part.lengths.cumsum(0) - 1, 0])
    assert load_rows(tmp_path).names == tuple(f"{i}.npy" for i in range(12))
    assert load_rows(tmp_path, part="test").names == data.test.names
    np.savez(tmp_path / "a.npz", *ragged())
    assert load_rows(tmp_path / "a.npz").names is None
    np.savez(tmp_path / "b.npz", bach=ragged()[0], telemann=ragged()[1])
    assert load_rows(tmp_path / "b.npz").names == ("bach", "telemann")
    with pytest.raises(InputError, match="3 rows of a source for 2 examples"):
        Split(torch.zeros(5, 1), lengths=torch.tensor([2, 3]), rows=torch.arange(3))
    with pytest.raises(InputError, match="1 names for 2 examples"):
        Split(torch.zeros(2, 3), names=("a",))


def test_taking_and_splitting_keep_sequences_whole():
    whole = of(ragged(lengths=(2,) * 5 + (3,) * 5), labels=torch.arange(10))
    part = whole.take(torch.tensor([9, 0]))
    assert part.lengths is not None
    assert part.lengths.tolist() == [3, 2]
    assert_close(part.x, torch.cat([whole.x[-3:], whole.x[:2]]))
    parts = split(whole.x, lengths=whole.lengths, labels=whole.labels, seed=1)
    assert [len(p) for p in parts] == [8, 1, 1]
    for p in parts:
        assert p.labels is not None
        assert p.lengths is not None
        assert p.lengths.tolist() == [2 if label < 5 else 3 for label in p.labels.tolist()]
    assert sum(p.num_steps for p in parts) == 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rolls").mkdir()
    for i, sequence in enumerate(ragged(lengths=(5, 2, 7, 3, 4, 6, 1, 2, 9, 8))):
        np.save(tmp_path / "rolls" / f"{i:02d}.npy", sequence)
    return tmp_path / "rolls"


def test_a_folder_and_an_archive_hold_the_same_sequences(folder: Path, tmp_path: Path):
    archive = tmp_path / "rolls.npz"
    np.savez(archive, *[np.load(file) for file in sorted(folder.glob("*.npy"))])
    by_folder, by_archive = load_rows(folder), load_rows(archive)
    assert by_folder.lengths is not None
    assert by_folder.lengths.tolist() == [5, 2, 7, 3, 4, 6, 1, 2, 9, 8]
    assert by_archive.lengths is not None
    assert torch.equal(by_folder.lengths, by_archive.lengths)
    assert torch.equal(by_folder.x, by_archive.x)
    data = load_data(folder)
    assert data.sequential
    assert data.kind == "real"
    assert data.describe()["steps"]["train"] == data.train.num_steps
    assert data.train.num_steps + data.validation.num_steps + data.test.num_steps == 47
    changed = load_data(archive)
    assert changed.fingerprint == data.fingerprint


def test_the_fingerprint_tells_where_sequences_end(tmp_path: Path):
    x = np.arange(24.0, dtype=np.float32).reshape(12, 2)
    np.savez(tmp_path / "a.npz", x[:3], x[3:7], x[7:])
    np.savez(tmp_path / "b.npz", x[:4], x[4:7], x[7:])
    assert load_data(tmp_path / "a.npz").fingerprint != load_data(tmp_path / "b.npz").fingerprint


def test_what_is_written_can_be_read(tmp_path: Path):
    sequences = ragged()
    save_sequences(tmp_path / "s.npz", np.concatenate(sequences), LENGTHS)
    back = load_rows(tmp_path / "s.npz")
    assert torch.equal(back.x, torch.from_numpy(np.concatenate(sequences)))
    save_sequences(tmp_path / "s.csv", np.concatenate(sequences), LENGTHS)
    table = np.genfromtxt(tmp_path / "s.csv", delimiter=",", names=True)
    assert table.dtype.names == ("sequence", "step", "x0", "x1")
    assert table["sequence"].tolist() == [1, 1, 1, 2, 3, 3, 3, 3, 4, 4]
    assert table["step"].tolist() == [1, 2, 3, 1, 1, 2, 3, 4, 1, 2]
    assert np.array_equal(table["x1"].astype(np.float32), np.concatenate(sequences)[:, 1])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([np.ones((2, 3)), np.ones((2, 4)), np.ones((1, 3))], ["arr_0 has 3", "arr_1 has 4", "transposed"]),
        ([np.ones((2, 3)), np.ones((0, 3)), np.ones((1, 3))], ["arr_1 is empty", "at least one step"]),
        ([np.ones((2, 3)), np.full((2, 3), np.inf), np.ones((1, 3))], ["arr_1", "NaN or infinite"]),
        ([np.full((2, 3), np.nan)] * 3, ["all values are NaN", "none is observed"]),
        ([np.ones((2, 3)), np.ones((2, 3))], ["at least three sequences", "2 sequences"]),
    ],
)
def test_bad_sequences_are_refused_by_name(tmp_path: Path, arrays: list[np.ndarray], words: list[str]):
    np.savez(tmp_path / "bad.npz", *arrays)
    with pytest.raises(InputError) as refused:
        load_data(tmp_path / "bad.npz")
    assert all(word in str(refused.value) for word in words), refused.value


def test_sequences_are_not_binarized(folder: Path):
    policies: list[dict[str, Any]] = [{"binarize": "static"}, {"dequantize": True}]
    for options in policies:
        with pytest.raises(InputError, match="sequences are neither"):
            load_data(folder, **options)


@needs("jsb-chorales")
def test_chorales():
    train, validation, test = read_named("jsb-chorales")
    assert [len(part) for part in (train, validation, test)] == [229, 76, 77]
    assert test.num_steps == 4725
    assert train.event_shape == (88,)
    assert set(train.x.unique().tolist()) == {0, 1}


def test_numbers_per_step_are_ratios_of_sums():
    data = of([s.astype(np.float64) for s in ragged(lengths=(4, 9, 2, 6, 3, 7))])
    objective = deep_markov(
        (2,), likelihood="gaussian", latent_dim=2, reader_hidden=4, transition_hidden=4, hidden=(4,)
    )
    result = evaluate(objective.model.double(), data, num_samples=20)
    step = result.per_step
    assert step is not None
    assert step["num_steps"] == 31
    assert step["log_px"] == pytest.approx(result.log_px * 6 / 31)
    assert step["elbo"] == pytest.approx(-(step["rate"] + step["distortion"]))
    assert result.bits_per_dim == pytest.approx(-step["log_px"] / (2 * np.log(2)))
    assert result.latent_dim == 2
    assert 0 < step["log_px_se"] < 5


def test_data_of_another_width_are_refused():
    model = deep_markov((2,), likelihood="gaussian", latent_dim=2, reader_hidden=4).model
    with pytest.raises(InputError, match=r"\(\d, 2\), but these have the shape \(\d, 3\)"):
        check_support(model, of(ragged(width=3)))


def test_bits_per_dimension_are_those_of_all_numbers_wherever_they_are_told():
    data = of(ragged(lengths=(4, 9, 2, 6, 3, 7)))
    models = {
        name: deep_markov((2,), likelihood="gaussian", latent_dim=1, reader_hidden=3, hidden=(3,)).model
        for name in "ab"
    }
    alone = evaluate(models["a"], data, num_samples=10)
    row = compare(models, data, num_samples=10).rows[0]
    assert row.bits_per_dim.mean == pytest.approx(alone.bits_per_dim)
    # The error of a ratio of sums, by leaving out one sequence at a time.
    log_px, sizes = score(models["a"], data, num_samples=10).log_px, data.elements.double()
    left = [-(log_px.sum() - v) / (np.log(2) * (sizes.sum() - n)) for v, n in zip(log_px, sizes, strict=True)]
    jackknife = (5 / 6 * ((torch.stack(left) - torch.stack(left).mean()) ** 2).sum()).sqrt().item()
    assert row.bits_per_dim.standard_error == pytest.approx(jackknife, rel=0.4)


def test_one_array_is_one_sequence_where_sequences_are_wanted(tmp_path: Path):
    save_sequences(tmp_path / "one.npz", np.ones((5, 2), np.float32), [5])
    assert load_rows(tmp_path / "one.npz").lengths is None
    one = load_rows(tmp_path / "one.npz", meaning=Meaning("real", (2,), sequential=True))
    assert one.lengths is not None
    assert one.lengths.tolist() == [5]


def test_lengths_that_are_not_those_of_the_steps_are_refused():
    for lengths, words in ((torch.tensor([3, 2]), "sum to 5"), (torch.tensor([6, 0]), "one of the lengths is 0")):
        with pytest.raises(InputError, match=words):
            Split(torch.zeros(6, 2), lengths=lengths)


def test_files_come_in_the_order_in_which_people_count(tmp_path: Path):
    (tmp_path / "rolls").mkdir()
    names = ["01.npy", "1.npy", "2.npy", "2²7.npy", "10.npy"]
    for name in reversed(names):
        np.save(tmp_path / "rolls" / name, np.zeros((2, 1)))
    assert load_rows(tmp_path / "rolls").names == tuple(names)


def test_a_split_is_made_of_a_list_of_sequences():
    split = Split.from_sequences([np.arange(3.0), torch.arange(3.0, 5.0)])
    assert split.x[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert split.lengths is not None
    assert split.lengths.tolist() == [3, 2]
    with pytest.raises(InputError, match="no sequences"):
        Split.from_sequences([])
    with pytest.raises(InputError, match="sequence 0 has 2 numbers per step and sequence 1 has 3"):
        Split.from_sequences([np.zeros((4, 2)), np.zeros((4, 3))])
