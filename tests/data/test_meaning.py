"""What values mean is the run's: an example is read alike alone and in any company, and what cannot be is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from assertions import assert_refused
from command_line import assert_refused as assert_command_refused
from command_line import run
from data_files import labels_of, saved, text, zipped
from subo.cli.sample import _range_of
from subo.data.conforming import with_num_labels
from subo.data.content_noise import uniform_by_content
from subo.data.dataset import Data, split
from subo.data.loading import load_data, load_rows
from subo.data.meaning import Meaning
from subo.data.splits import Split
from subo.experiments.experiment import open_run
from subo.report.pictures import shading

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(40, 4, 4), dtype=np.uint8)
PIXELS[0] = np.eye(4, dtype=np.uint8)  # a picture of the levels 0 and 1
PIXELS[1] = 0
COLORS = RNG.integers(256, size=(40, 4, 4, 3), dtype=np.uint8)
COLORS[0] = COLORS[0, :, :, :1]  # a grey one
NUMBERS = np.concatenate([np.zeros((1, 3)), np.ones((1, 3)), RNG.normal(size=(38, 3))])
CLASSES = np.array(["rose", "lily", "daisy"])
ROWS = range(40)


def table(rows: Sequence[int], labels: np.ndarray | None = None) -> str:
    """Numbers in columns; labels in the second."""
    lines = ["a,b,c" if labels is None else "a,label,b,c"]
    for row in rows:
        a, b, c = map(str, NUMBERS[row])
        lines.append(",".join([a, b, c] if labels is None else [a, labels[row % 3], b, c]))
    return "\n".join(lines) + "\n"


def pictures(folder: Path, arrays: np.ndarray, rows: Sequence[int], classes: Sequence[str] = ("",)) -> Path:
    """Images, grey where they have no color; named by their row."""
    for row in rows:
        place = folder / "images" / classes[row % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        array = arrays[row]
        grey = array.ndim == 3 and bool((array == array[..., :1]).all())
        Image.fromarray(array[..., 0] if grey else array).save(place / f"{row:03d}.png")
    return folder / "images"


def walks(rows: Sequence[int]) -> dict[str, Any]:
    return {f"walk {row}": NUMBERS[: 1 + row % 4] + row for row in rows}


FORMATS: dict[str, Callable[[Path, Sequence[int]], Path]] = {
    "bytes": lambda folder, rows: saved(folder / "x.npy", PIXELS[rows]),
    "bytes, channels last": lambda folder, rows: saved(folder / "x.npy", COLORS[rows]),
    "floats, channels last": lambda folder, rows: saved(folder / "x.npy", COLORS[rows] / 7),
    "numbers": lambda folder, rows: saved(folder / "x.npy", NUMBERS[rows]),
    "table": lambda folder, rows: text(folder / "x.csv", table(rows)),
    "table, classes": lambda folder, rows: text(folder / "x.csv", table(rows, CLASSES)),
    "archive, classes": lambda folder, rows: zipped(
        folder / "x.npz", x=PIXELS[rows], labels=CLASSES[np.array(rows) % 3]
    ),
    "archive, large labels": lambda folder, rows: zipped(
        folder / "x.npz", x=PIXELS[rows], y=np.array(rows) % 3 + 75_000
    ),
    "grey images": lambda folder, rows: pictures(folder, PIXELS, rows),
    "grey and color images": lambda folder, rows: pictures(folder, COLORS, rows),
    "images, classes": lambda folder, rows: pictures(folder, PIXELS, rows, ["dog", "cat", "emu/old"]),
    "sequences": lambda folder, rows: zipped(folder / "x.npz", **walks(rows)),
}
POLICIES: list[tuple[str, dict[str, Any]]] = [
    *((form, {}) for form in FORMATS),
    ("grey images", {"image_size": 2}),
    *((form, {"binarize": "static"}) for form in ("bytes", "images, classes")),
    ("bytes", {"binarize": "dynamic"}),
    ("bytes", {"dequantize": True}),
]


@pytest.mark.parametrize("form, policy", POLICIES)
def test_an_example_is_read_alike_alone_and_in_any_company(form, policy, tmp_path):
    def read(rows: Sequence[int]) -> Split:
        folder = tmp_path / "-".join(map(str, rows[:3]))
        folder.mkdir()
        drawn = {name: value for name, value in policy.items() if name != "image_size"}
        return load_rows(FORMATS[form](folder, rows), meaning=meaning, **drawn)

    fitted = load_data(FORMATS[form](tmp_path, list(ROWS)), **policy)
    meaning = fitted.meaning
    whole = read(list(ROWS))
    assert whole.event_shape == fitted.train.event_shape
    places = list(ROWS) if whole.names is None else [int("".join(filter(str.isdigit, name))) for name in whole.names]
    for rows in ([0], [1], [33], [0, 20]):
        some, expected = read(rows), whole.take(torch.tensor(sorted(places.index(row) for row in rows)))
        (x, context), (y, other) = (part.read(torch.arange(len(rows))) for part in (some, expected))
        assert torch.equal(x, y)
        assert context.keys() == other.keys()
        if whole.labels is not None:
            assert torch.equal(labels_of(some), labels_of(expected))
            assert some.class_names == fitted.class_names


def test_the_run_keeps_what_was_decided_and_reads_its_own_data_by_it():
    policies: list[dict[str, Any]] = [{}, {"binarize": "static"}, {"binarize": "dynamic"}, {"dequantize": True}]
    for policy in policies:
        data = load_data("digits", **policy)
        again = load_data("digits", meaning=data.meaning, **policy)
        assert again.fingerprint == data.fingerprint
        assert again.meaning == data.meaning
        assert (data.meaning.kind, data.meaning.levels, data.meaning.pixels) == ("grey", 16, True)
        assert data.meaning.whole == ("dequantize" in policy)
        assert data.meaning.class_names == tuple("0123456789")


def test_a_dark_picture_scores_alone_what_it_scores_beside_others(tmp_path):
    small = ["--hidden", 8, "--latent-dim", 2, "--epochs", 1, "--evaluation-samples", 2, "--quiet"]
    fitted = tmp_path / "run"
    assert run("fit", saved(tmp_path / "x.npy", PIXELS), "--out", fitted, *small) == 0
    for name, rows in (("alone", [0]), ("among", [0, 7, 9])):
        saved(tmp_path / f"{name}.npy", PIXELS[rows])
        for command in ("encode", "score"):
            out = tmp_path / f"{command}-{name}.npy"
            assert run(command, fitted, tmp_path / f"{name}.npy", "--out", out) == 0
    encoded, scored = (
        [np.load(tmp_path / f"{command}-{name}.npy")[0] for name in ("alone", "among")]
        for command in ("encode", "score")
    )
    np.testing.assert_allclose(encoded[0], encoded[1], rtol=1e-5, atol=1e-6)
    assert scored[0] == pytest.approx(scored[1], abs=0.5)  # Monte Carlo; it was off by a hundred nats


# What cannot be what was fitted to


GREY = Meaning("grey", (1, 4, 4), levels=255, pixels=True)
REAL = Meaning("real", (3,), feature_names=("a", "b", "c"))


@pytest.mark.parametrize(
    "array, meaning, facts",
    [
        (PIXELS, Meaning("binary", (1, 4, 4), levels=1, pixels=True), ("the value 255", "levels 0 to 1")),
        (PIXELS, Meaning("grey", (1, 4, 4), levels=16, pixels=True), ("the value 255", "levels 0 to 16")),
        (PIXELS, Meaning("real", (4, 4)), ("numbers as they were", "8-bit pixels", "float32")),
        (PIXELS.astype(float), GREY, ("8-bit pixels", "scaled to", "0 to 255")),
        (PIXELS / 255, replace(GREY, whole=True), ("whole numbers", "0 to 255")),
        (NUMBERS, replace(GREY, sequential=True, pixels=False), ()),
        (NUMBERS[None], Meaning("real", (3,), sequential=True), ("fitted to sequences", "single data")),
    ],
)
def test_other_values_are_refused(array, meaning, facts, tmp_path):
    path = saved(tmp_path / "x.npy", array)
    if not facts:  # one array (T, D) is one sequence
        assert load_rows(path, meaning=meaning).lengths is not None
        return
    with assert_refused(path, *facts):
        load_rows(path, meaning=meaning)


def test_numbers_and_booleans_for_pixels_are_what_the_model_is_shown(tmp_path):
    parts = load_rows(saved(tmp_path / "x.npy", (PIXELS / 255).astype(np.float32)), meaning=GREY)
    bytes_ = load_rows(saved(tmp_path / "y.npy", PIXELS), meaning=GREY)
    torch.testing.assert_close(*(part.read(torch.arange(40))[0] for part in (parts, bytes_)))
    bits = load_rows(saved(tmp_path / "z.npy", PIXELS > 99), meaning=GREY)
    assert torch.equal(bits.read(torch.arange(40))[0], torch.from_numpy(PIXELS > 99).float()[:, None])
    noisy = load_rows(tmp_path / "z.npy", meaning=replace(GREY, whole=True), dequantize=True)
    assert torch.equal(noisy.x.floor(), 255 * torch.from_numpy(PIXELS > 99).float()[:, None])


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.float32])
def test_whole_numbers_for_pixels_are_their_levels(kind, tmp_path):
    levels, notes = replace(GREY, whole=True), list[str]()
    numbers, bytes_ = saved(tmp_path / "x.npy", PIXELS.astype(kind)), saved(tmp_path / "y.npy", PIXELS)
    for noisy in (True, False):
        options: dict[str, Any] = {"meaning": levels, "note": notes.append, "dequantize": noisy}
        came, expected = (load_rows(path, **options) for path in (numbers, bytes_))
        assert torch.equal(came.x, expected.x)
        assert came.levels == expected.levels
    assert notes == []
    load_rows(saved(tmp_path / "z.npy", PIXELS[:1].astype(kind)), meaning=levels, note=notes.append)
    assert "Write bits as booleans" in notes[0]


def test_images_are_brought_to_the_runs_channels_or_refused(tmp_path):
    colors = pictures(tmp_path / "colors", COLORS, [3])
    with assert_refused("003.png", "colors", "fitted to grey"):
        load_rows(colors, meaning=GREY)
    grey = np.repeat(PIXELS[5][..., None], 3, axis=2)  # a color image without color
    (tmp_path / "grey").mkdir()
    Image.fromarray(grey).save(tmp_path / "grey" / "a.png")
    assert np.array_equal(load_rows(tmp_path / "grey", meaning=GREY).x[0, 0], PIXELS[5])
    with assert_refused("fitted to images of 9 x 8", "4 x 4", "`image_size`"):
        load_rows(tmp_path / "grey", meaning=replace(GREY, event_shape=(1, 8, 9)))


def test_columns_that_are_not_the_runs_are_named(tmp_path):
    path = text(tmp_path / "x.csv", "c,a,more,b\n1,2,3,4\n")
    with assert_refused(path, "the column 'more' was not in the fit", "3 columns"):
        load_rows(path, meaning=REAL)
    path = text(tmp_path / "x.csv", "c,d,e\n1,2,3\n")
    with assert_refused("the columns 'd', 'e' were not in the fit", "the columns 'a', 'b' are missing"):
        load_rows(path, meaning=REAL)
    path = text(tmp_path / "x.csv", "c,a,b\n1,2,3\n")
    assert load_rows(path, meaning=REAL).x.tolist() == [[2.0, 3.0, 1.0]]


# Random numbers


def test_bits_and_noise_that_belong_to_an_example_are_uniform_and_its_own():
    x = torch.arange(4000.0).reshape(500, 2, 4)
    u = uniform_by_content(x, "test", 0)
    assert u.dtype == torch.float64
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    flat = u.flatten(1) - 0.5
    for a, b in ((flat[:, 1:], flat[:, :-1]), (flat[1:], flat[:-1])):  # of neighbors, in the example and in the file
        assert abs(12 * (a * b).mean().item()) < 5 / np.sqrt(a.numel())
    order = torch.randperm(500)
    assert torch.equal(uniform_by_content(x[order], "test", 0), u[order])
    assert torch.equal(uniform_by_content(x[7:8].double(), "test", 0), u[7:8])
    for other in (uniform_by_content(x, "test", 1), uniform_by_content(x, "bits", 0)):
        assert abs(np.corrcoef(other.flatten(), u.flatten())[0, 1]) < 5 / np.sqrt(4000)
    nearly = x.clone()
    nearly[0, 0, 0] = 1e-30  # one element, by next to nothing: all numbers of the example are others
    changed = uniform_by_content(nearly, "test", 0) != u
    assert changed[0].all()
    assert not changed[1:].any()
    zeros = torch.zeros(1, 3)
    assert torch.equal(uniform_by_content(-zeros, "test", 0), uniform_by_content(zeros, "test", 0))


# Classes


def test_classes_go_by_name_and_unknown_ones_come_last(tmp_path):
    known = replace(GREY, class_names=("bee", "cat", "dog"))
    rows = load_rows(pictures(tmp_path, PIXELS, range(9), ["dog", "ant", "cat"]), meaning=known)
    assert rows.class_names == ("bee", "cat", "dog", "ant")
    assert labels_of(rows).tolist() == [3, 3, 3, 1, 1, 1, 2, 2, 2]  # of the folders ant, cat, dog
    older = replace(GREY, class_names=None)  # which stored no names: integers are what they are
    path = zipped(tmp_path / "x.npz", x=PIXELS[:3], labels=np.array([7, 2, 7]))
    assert labels_of(load_rows(path, meaning=older)).tolist() == [7, 2, 7]
    assert labels_of(load_rows(path)).tolist() == [1, 0, 1]


def test_numbers_of_classes_that_some_data_lack():
    x = torch.zeros(12, 2)
    parts = split(x, labels=torch.tensor([0, 1, 2] * 4))
    data = Data("x", *parts, kind="real", class_names=("0", "2", "4"))
    wider = with_num_labels(data, 5)
    assert wider.class_names == ("0", "1", "2", "3", "4")
    assert torch.equal(labels_of(wider.train), 2 * labels_of(data.train))
    assert with_num_labels(data, 4) is data  # 4 is none of them
    assert with_num_labels(data, None) is data


def test_a_class_is_told_by_its_name(tmp_path, capsys):
    small = ["--hidden", 8, "--latent-dim", 1, "--epochs", 2, "--evaluation-samples", 2, "--quiet"]
    fitted, both = tmp_path / "run", pictures(tmp_path / "both", PIXELS, range(30), ["cat", "dog"])
    assert run("fit", both, "--condition", "labels", "--out", fitted, *small) == 0
    assert open_run(fitted).config.data.meaning.class_names == ("cat", "dog")
    assert run("encode", fitted, both, "--out", tmp_path / "both.csv") == 0
    dogs = pictures(tmp_path / "dogs", PIXELS, range(1, 30, 2), ["dog"])
    assert run("encode", fitted, dogs, "--out", tmp_path / "dogs.csv") == 0
    both_rows, dog_rows = (
        [line.split(",") for line in (tmp_path / f"{name}.csv").read_text().splitlines()] for name in ("both", "dogs")
    )
    assert both_rows[0] == dog_rows[0] == ["row", "name", "label", "z1"]
    assert [row[:3] for row in both_rows[15:17]] == [["15", "cat/028.png", "cat"], ["16", "dog/001.png", "dog"]]
    assert [row[1:3] for row in dog_rows[1:]] == [row[1:3] for row in both_rows[16:]]
    means = [np.array([row[3] for row in rows], float) for rows in (dog_rows[1:], both_rows[16:])]
    np.testing.assert_allclose(*means, rtol=1e-5)
    cats = pictures(tmp_path / "cats", PIXELS, range(1, 30, 2), ["cat"])  # the label matters
    assert run("encode", fitted, cats, "--out", tmp_path / "cats.npy") == 0
    assert abs(np.load(tmp_path / "cats.npy")[:, 0] - means[0]).max() > 1e-3
    cows = pictures(tmp_path / "cows", PIXELS, range(3), ["cow"])
    capsys.readouterr()
    assert "label cow, but the model knows the classes cat, dog" in refused(capsys, "score", fitted, cows, tmp_path)
    assert run("sample", fitted, "--label", "dog", "-n", 5, "--out", tmp_path / "dogs.npy") == 0
    assert "5 samples of class dog" in capsys.readouterr().out
    assert "classes cat, dog of this run, not 1" in refused(capsys, "sample", fitted, "--label", "1", tmp_path)
    assert run("show", fitted) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "classes cat, dog" in shown
    assert "at random by seed 0" in shown
    assert "as stored" not in shown


def refused(capsys: pytest.CaptureFixture, *argv: object) -> str:
    *command, folder = argv
    return " ".join(assert_command_refused(capsys, *command, "--out", Path(str(folder)) / "x.npy").split())


def test_black_and_white_are_the_runs_levels_whatever_a_picture_holds():
    samples = torch.tensor([[[[0.2, 1.4]]], [[[-0.3, 0.5]]]])
    grey = _range_of(samples, GREY)
    assert (grey.min(), grey.max(), grey.ndim) == (0, 1, 4)
    np.testing.assert_array_equal(shading(grey)(samples[:1]), samples[:1])  # and cut at white by the picture
    assert shading(_range_of(samples, replace(GREY, whole=True)))(samples * 0 + 51).max() == pytest.approx(0.2)
    assert _range_of(samples, REAL) is samples
