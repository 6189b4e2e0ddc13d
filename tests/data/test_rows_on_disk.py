"""Rows on disk are read, divided, shuffled and described as those in memory, and never all at once."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import subo
from assertions import assert_refused
from subo.data import on_disk, read_ahead
from subo.data.batches import batches
from subo.data.image_folders import read_images
from subo.data.loading import load_data, load_rows
from subo.data.on_disk import read_on_disk
from subo.data.parquet_rows import ParquetRows
from subo.data.read_ahead import by_blocks
from subo.data.rows_on_disk import RowsOnDisk, spread_positions
from subo.data.shards import NpyShards
from subo.data.splits import Split
from subo.evaluation.scores import score
from subo.evaluation.summary import measure

RNG = np.random.default_rng(0)


def shards(folder: Path, parts: list[np.ndarray]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.npy" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        np.save(path, part)
    return paths


def matrix(folder: Path, rows: int = 1000, columns: int = 3) -> Path:
    x = RNG.normal(size=(rows, 2)) @ RNG.normal(size=(2, columns)) + 0.3 * RNG.normal(size=(rows, columns))
    np.save(folder / "x.npy", x.astype(np.float32))
    return folder / "x.npy"


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks and buffers of a few rows."""
    monkeypatch.setattr("subo.data.rows_on_disk._BLOCK", 100)
    monkeypatch.setattr(read_ahead, "_BUFFER", 2000)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8", "u1", "?", "i4", "u2"])
@pytest.mark.parametrize("gap", [1, 2**16])
def test_shards_give_the_rows_of_the_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, gap: int):
    monkeypatch.setattr("subo.data.shards._GAP", gap)
    monkeypatch.setattr("subo.data.shards._SPAN", 40)
    x = RNG.integers(2, size=(23, 2, 2)).astype(dtype)
    source = NpyShards(shards(tmp_path, [x[:9], x[9:10], x[10:]]))
    assert source.shape == x.shape
    for numbers in (np.arange(23), np.array([0, 0, 3, 8, 9, 9, 10, 22]), np.array([9]), np.empty(0, dtype=int)):
        np.testing.assert_array_equal(source.rows(numbers), x[numbers])
    rows, index = RowsOnDisk(source), torch.tensor([22, 0, 9, 0])
    expected = torch.from_numpy(x.astype(np.uint8 if dtype in ("u1", "?") else np.float32))
    assert rows.dtype == expected.dtype
    assert_close(rows.index_select(0, index), expected[index])
    assert_close(rows[torch.tensor([4, 9, 20])].index_select(0, torch.tensor([2, 1])), expected[[20, 9]])


def test_a_change_is_made_to_the_rows_that_are_read(tmp_path: Path):
    rows = RowsOnDisk(NpyShards(shards(tmp_path, [np.arange(6.0).reshape(3, 2)]))).then(lambda x: x[:, :1] + 1)
    assert rows.shape == (3, 1)
    assert_close(rows[1:].index_select(0, torch.tensor([1])), torch.tensor([[5.0]]))


@pytest.mark.parametrize(("count", "block", "buffer"), [(100, 1, 100), (100, 7, 20), (5, 10, 2), (64, 8, 64)])
def test_an_order_by_blocks_has_each_row_once_and_few_blocks_in_a_buffer(count: int, block: int, buffer: int):
    orders = [*by_blocks(count, block=block, buffer=buffer, generator=torch.Generator().manual_seed(0))]
    assert torch.equal(torch.cat(orders).sort().values, torch.arange(count))
    assert [len(some) for some in orders[:-1]] == [buffer] * (len(orders) - 1)
    for some in orders:
        assert len((some // block).unique()) <= buffer // block + 2


def test_with_one_block_the_order_is_uniform():
    generator = torch.Generator().manual_seed(0)
    orders = [tuple(next(by_blocks(3, block=1, buffer=3, generator=generator)).tolist()) for _ in range(6000)]
    counts = torch.tensor([orders.count(order) for order in set(orders)], dtype=torch.float64)
    assert len(counts) == 6
    assert ((counts - 1000).abs() < 5 * (6000 * 5 / 36) ** 0.5).all()


@pytest.mark.parametrize("resample", [False, True])
def test_an_epoch_reads_each_row_once_and_processes_share_it(tmp_path: Path, small_buffers: None, resample: bool):
    x = RNG.integers(2, size=(205, 3, 3)).astype(np.uint8) * RNG.integers(256, size=(205, 1, 1)).astype(np.uint8)
    rows: Any = RowsOnDisk(NpyShards(shards(tmp_path, [x[:100], x[100:]])))
    labels, size = torch.arange(205) % 4, torch.rand(205)
    known = {"labels": labels, "levels": 255, "resample": resample, "first": 7, "context": {"size": size}}
    stays, memory = Split(rows, **known), Split(torch.from_numpy(x), **known)
    whole = [*batches(stays, 20, seed=1, epoch=2)]
    index = torch.cat([batch.context["index"] for batch in whole])
    assert torch.equal(index.sort().values, torch.arange(7, 212))
    assert not torch.equal(index, torch.cat([b.context["index"] for b in batches(stays, 20, seed=1, epoch=3)]))
    for number, batch in enumerate(whole):
        at = batch.context["index"] - 7
        generator = subo.runtime.randomness.stream("batch", 1, 2, number)
        expected, context = memory.read(at, generator=generator if resample else None)
        assert_close(batch.x, expected)
        assert {*batch.context} == {*context}
        assert all(torch.equal(batch.context[name], value) for name, value in context.items())
    later = [*batches(stays, 20, seed=1, epoch=2, first=8)]
    assert len(later) == 3
    assert all(torch.equal(a.x, b.x) for a, b in zip(later, whole[8:], strict=True))
    shares = [[*batches(stays, 20, seed=1, epoch=2, rank=rank, world_size=3)] for rank in range(3)]
    for number, batch in enumerate(whole):
        for rank in range(3):
            if (share := shares[rank][number]).weight:
                assert_close(share.x, batch.x[rank::3])
    unshuffled = torch.cat([batch.x for batch in batches(replace_draws(stays), 20, seed=0, epoch=1, shuffle=False)])
    assert_close(unshuffled, replace_draws(memory).read(torch.arange(205))[0])


def numbers_of(split: Split) -> torch.Tensor:
    rows: Any = split.x
    return rows.numbers


def replace_draws(split: Split) -> Split:
    return Split(split.x, levels=split.levels)


def test_data_are_divided_as_in_memory_and_known_by_what_they_are(tmp_path: Path):
    path = matrix(tmp_path)
    stays, memory = load_data(path, on_disk=True, seed=3), load_data(path, seed=3)
    assert isinstance(stays.train.x, RowsOnDisk)
    assert stays.kind == memory.kind == "real"
    for part in ("train", "validation", "test"):
        (a, _), (b, _) = (getattr(data, part).read(torch.arange(len(getattr(data, part)))) for data in (stays, memory))
        assert torch.equal(*(x[x[:, 0].argsort()] for x in (a, b)))
    assert stays.fingerprint == load_data(path, on_disk=True, seed=3).fingerprint
    assert stays.fingerprint != load_data(path, on_disk=True, seed=4).fingerprint
    np.save(path, np.load(path) + 1)
    assert stays.fingerprint != load_data(path, on_disk=True, seed=3).fingerprint


def test_a_model_is_fitted_measured_and_resumed_bit_for_bit(tmp_path: Path, small_buffers: None):
    data = load_data(matrix(tmp_path), on_disk=True)

    def objective(seed: int) -> subo.Objective:
        return subo.make("vae", data, latent_dim=2, hidden=(8,), likelihood="gaussian", seed=seed)

    whole, broken, resumed = objective(0), objective(0), objective(1)
    options = {"batch_size": 32, "learning_rate": 1e-2}
    subo.fit(whole, data, epochs=4, **options)
    subo.fit(broken, data, epochs=2, run_dir=tmp_path / "run", **options)
    subo.fit(resumed, data, epochs=4, run_dir=tmp_path / "run", resume=True, **options)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.from_numpy(np.load(tmp_path / "x.npy"))[numbers_of(data.test)]
    options: dict[str, Any] = {"num_samples": 5, "seed": 0}
    memory = Split(x)
    (_, a), (_, b) = (measure(whole.model, split, name="test", **options) for split in (data.test, memory))
    assert_close(a.log_px, b.log_px)


def test_bits_that_are_drawn_once_stay_what_they_are_and_have_the_mean_of_the_grey_values(tmp_path: Path):
    x = np.broadcast_to(np.array([0, 64, 128, 255], dtype=np.uint8).reshape(1, 2, 2), (4000, 2, 2)).copy()
    x[:, 0, 0] = np.arange(4000) % 255 * (np.arange(4000) % 2)  # or all rows would have the same bits
    x = np.concatenate([x, RNG.integers(256, size=(4000, 2, 2)).astype(np.uint8)], 2)
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", on_disk=True, binarize="dynamic")
    assert data.train.resample
    assert (data.test.levels, data.kind) == (1, "binary")
    index = torch.arange(len(data.test))
    bits, again = data.test.read(index)[0], data.test.read(index.flip(0))[0].flip(0)
    assert torch.equal(bits, again)
    assert torch.equal(bits, load_data(tmp_path / "x.npy", on_disk=True, binarize="static").test.read(index)[0])
    assert {*bits.unique().tolist()} == {0.0, 1.0}
    grey = torch.from_numpy(x)[numbers_of(data.test)].unsqueeze(1) / 255
    error = (grey * (1 - grey)).sum() ** 0.5
    assert (bits - grey).sum().abs() < 5 * error
    rows = load_rows(tmp_path / "x.npy", on_disk=True, binarize="static", seed=1).read(index)[0]
    assert torch.equal(rows, load_rows(tmp_path / "x.npy", binarize="static", seed=1).read(index)[0])


def test_layouts_labels_and_levels_are_those_of_memory(tmp_path: Path):
    x = RNG.integers(256, size=(12, 4, 5, 3)).astype(np.uint8)
    names = np.array(["b", "a", "c"] * 4)
    shards(tmp_path / "images", [x[:5], x[5:]])
    np.save(tmp_path / "images" / "labels.npy", names)
    np.savez(tmp_path / "x.npz", x=x, labels=names)
    for source, on in ((tmp_path / "images", True), (tmp_path / "x.npz", False)):
        rows = load_rows(source, on_disk=on)
        assert (rows.event_shape, rows.levels, rows.class_names) == ((3, 4, 5), 255, ("a", "b", "c"))
        assert_close(rows.read(torch.tensor([7]))[0][0], torch.from_numpy(x[7]).movedim(2, 0) / 255)
        assert rows.labels is not None
        assert rows.labels.tolist() == [1, 0, 2] * 4
    np.save(tmp_path / "images" / "labels.npy", names.astype(object), allow_pickle=True)
    with assert_refused("labels.npy can't be read", "astype(str)"):
        load_rows(tmp_path / "images", on_disk=True)
    np.save(tmp_path / "images" / "labels.npy", names[:5])
    with assert_refused("12 integers or names", "(5,)"):
        load_rows(tmp_path / "images", on_disk=True)


def test_parts_are_in_natural_order_and_hidden_files_are_none(tmp_path: Path):
    for number, name in enumerate(("part1_2", "part1_10", "part2_1")):
        np.save(tmp_path / f"{name}.npy", np.full((2, 3), number, dtype=np.float32))
    np.save(tmp_path / ".hidden.npy", np.ones(3))
    x, _ = load_rows(tmp_path, on_disk=True).read(torch.arange(6))
    assert x[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_images_of_a_folder_are_decoded_when_they_are_read(tmp_path: Path):
    for number in range(12):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(256, size=(6, 5), dtype=np.uint8)).save(folder / f"{number}.png")
    (stays,), (memory,) = (read(tmp_path / "images").parts for read in (read_on_disk, read_images))
    assert_close(stays.read(torch.arange(12))[0], memory.read(torch.arange(12))[0])
    assert stays.names == memory.names
    assert stays.labels is not None
    assert memory.labels is not None
    assert torch.equal(stays.labels, memory.labels)
    (small,), (all_small,) = (read(tmp_path / "images", image_size=4).parts for read in (read_on_disk, read_images))
    assert_close(small.read(torch.tensor([3, 1]))[0], all_small.read(torch.tensor([3, 1]))[0])
    Image.fromarray(RNG.integers(256, size=(7, 5), dtype=np.uint8)).save(tmp_path / "images" / "a" / "12.png")
    (other,) = read_on_disk(tmp_path / "images").parts
    with assert_refused("12.png is 5 x 7", "image_size"):
        other.read(torch.arange(13))


def test_parquet_is_read_by_row_groups(tmp_path: Path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": RNG.normal(size=50), "label": ["x", "y"] * 25, "b": np.arange(50)})
    (tmp_path / "parts").mkdir()
    for number in range(2):
        frame[number * 25 : number * 25 + 25].to_parquet(tmp_path / "parts" / f"{number}.parquet", row_group_size=10)
    source = ParquetRows(sorted((tmp_path / "parts").glob("*")), apart=["label"])
    numbers = np.array([0, 9, 10, 24, 25, 25, 49])
    np.testing.assert_array_equal(source.rows(numbers), frame[["a", "b"]].to_numpy()[numbers])
    assert source.neighbors == 10
    data = load_data(tmp_path / "parts", on_disk=True)
    assert (data.feature_names, data.class_names) == (("a", "b"), ("x", "y"))
    index = torch.cat([batch.context["index"] for batch in batches(data.train, 7, seed=0, epoch=1)])
    assert torch.equal(index.sort().values, torch.arange(40))
    gone = pd.Series(["x", None, *["y"] * 23], dtype=object)
    frame[:25].assign(label=gone).to_parquet(tmp_path / "parts" / "0.parquet")
    with assert_refused("column label: a label is missing"):
        load_data(tmp_path / "parts", on_disk=True)
    frame.loc[3, "a"] = np.nan
    frame.to_parquet(tmp_path / "x.parquet")
    with assert_refused("row 4,", "NaN"):
        read_on_disk(tmp_path / "x.parquet").parts[0].read(torch.arange(50))
    frame.assign(city="Rome").to_parquet(tmp_path / "x.parquet")
    with assert_refused("'city' holds", "`on_disk`"):
        load_data(tmp_path / "x.parquet", on_disk=True)


def test_what_cannot_be_read_row_by_row_is_refused(tmp_path: Path):
    def refused(*words: str) -> None:
        with assert_refused(*words):
            load_data(tmp_path / "x.npy", on_disk=True)

    np.save(tmp_path / "x.npy", np.asfortranarray(RNG.normal(size=(5, 4))))
    refused("Fortran", "ascontiguousarray")
    np.save(tmp_path / "x.npy", np.array([["a"]]))
    refused("expected numbers")
    np.save(tmp_path / "x.npy", np.zeros(5))
    refused("(N, ...)", "(5,)")
    np.save(tmp_path / "x.npy", np.zeros((50, 4)))
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(500)
    refused("cut off")
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    refused("can't be read as a NumPy file")
    folder = shards(tmp_path / "two", [np.zeros((3, 2)), np.zeros((3, 2), dtype=np.float32)])[0].parent
    with assert_refused("1.npy holds", "float32", "float64"):
        load_data(folder, on_disk=True)
    with assert_refused("`on_disk`"):
        load_data("digits", on_disk=True)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with assert_refused("only .npy", "`on_disk`"):
        load_data(tmp_path / "x.csv", on_disk=True)


def test_a_number_that_is_not_finite_is_named_when_it_is_met(tmp_path: Path):
    x = np.zeros((50, 4))
    x[:, 0], x[31, 2] = np.arange(50), np.nan
    paths = shards(tmp_path, [x[:30], x[30:]])
    rows = RowsOnDisk(NpyShards(paths))
    with assert_refused(f"{paths[1]}, row 2,", "NaN"):
        rows.index_select(0, torch.tensor([40, 31, 0]))


def test_positions_are_spread_over_all():
    assert torch.equal(spread_positions(10, 10, block=3), torch.arange(10))
    some = spread_positions(1_000_000, 10_000, block=500)
    assert len(some) == len(some.unique()) == 10_000
    assert (some[0], some[-1]) == (0, 999_999)
    assert int(some.diff().max()) < 30_000


def test_large_files_stay_on_disk_by_themselves_and_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(400_000, 300)).flush()  # 480 MB of holes
    monkeypatch.setattr(on_disk, "free_bytes", lambda: 10**9)
    tracemalloc.start()
    data = load_data(path)
    first = next(batches(data.train, 100, seed=0, epoch=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(data.train.x, RowsOnDisk)
    assert first.x.shape == (100, 300)
    assert peak < 250e6
    monkeypatch.setattr(on_disk, "free_bytes", lambda: 10**10)
    assert not on_disk.is_large(path)


def test_rows_that_are_wanted_twice_are_read_as_from_a_tensor(tmp_path: Path):
    x = np.arange(16.0).reshape(8, 2)
    rows, tensor = RowsOnDisk(NpyShards(shards(tmp_path, [x[:5], x[5:]]))), torch.from_numpy(x).float()
    for wanted in ([0, 0, 2], [0, 1, 2, 0, 4, 5], [3, 3, 3], [7, 7, 5], [1, 3, 3, 2]):
        assert_close(rows.index_select(0, torch.tensor(wanted)), tensor[wanted])
        np.testing.assert_array_equal(
            NpyShards([tmp_path / "0.npy", tmp_path / "1.npy"]).rows(np.sort(wanted)), x[np.sort(wanted)]
        )
    with assert_refused("taken by a slice or a tensor"):
        rows[..., [1, 0]]


def test_scores_do_not_depend_on_where_rows_are_if_one_is_outside_the_support(tmp_path: Path):
    x = RNG.random((8, 3)).astype(np.float32)
    x[5, 1] = 1.2
    np.save(tmp_path / "x.npy", x)
    model = subo.make("vae", torch.rand(50, 3), likelihood="continuous-bernoulli", latent_dim=2, hidden=(8,)).model
    stays, memory = load_rows(tmp_path / "x.npy", on_disk=True), load_rows(tmp_path / "x.npy")
    a, b = (score(model, split, num_samples=5, seed=0).log_px for split in (stays, memory))
    assert a[5] == -torch.inf
    assert_close(a, b)


def test_columns_of_parquet_in_another_order_are_put_right_by_name(tmp_path: Path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(RNG.normal(size=(60, 3)), columns=list("abc"))
    frame.to_parquet(tmp_path / "x.parquet")
    meaning = load_data(tmp_path / "x.parquet", on_disk=True).meaning
    frame[["c", "a", "b"]].to_parquet(tmp_path / "y.parquet")
    rows = load_rows(tmp_path / "y.parquet", on_disk=True, meaning=meaning)
    assert_close(rows.read(torch.arange(60))[0], torch.tensor(frame.to_numpy(), dtype=torch.float32))
    frame.assign(a=1.7e9 + np.arange(60)).to_parquet(tmp_path / "x.parquet")
    with assert_refused("column 'a'", "float32"):
        load_data(tmp_path / "x.parquet", on_disk=True)


def test_values_that_the_rows_that_were_looked_at_do_not_have_are_refused_when_they_are_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("subo.data.rows_on_disk._MOST_ROWS", 50)
    for first, other, dtype in ((1, 200, np.uint8), (1, -1, np.float32), (3, 0.5, np.float32)):
        x = RNG.integers(first + 1, size=(1000, 2, 2)).astype(dtype)
        x[501, 0, 1] = other
        np.save(tmp_path / "x.npy", x)
        data = load_data(tmp_path / "x.npy", on_disk=True)
        with assert_refused("row 502, holds", "by the rows that were looked at"):
            for part in (data.train, data.validation, data.test):
                part.read(torch.arange(len(part)))


def test_numbers_for_a_run_on_pixels_are_laid_out_as_in_memory(tmp_path: Path):
    meaning = load_data("digits").meaning
    np.save(tmp_path / "x.npy", RNG.random((5, 8, 8)).astype(np.float32))
    a, b = (load_rows(tmp_path / "x.npy", on_disk=on, meaning=meaning) for on in (True, False))
    assert a.event_shape == b.event_shape == (1, 8, 8)
    assert_close(a.read(torch.arange(5))[0], b.read(torch.arange(5))[0])
