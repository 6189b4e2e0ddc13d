"""Tables: what a spreadsheet would run is text, numbers are numbers, and names come back."""

import csv
import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from subo import InputError
from subo.data.loading import load_data, load_rows
from subo.data.saving import save_array, save_sequences
from subo.files.tables import name_in, write_table

FORMULAS = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\nx", "\rx", "＝1", "=HYPERLINK(A1)", "'=x", "''-y"]
PLAIN = ["income", "-1.5", "+3", "1e-5", "'tis", "a=b", " =x", "", "-inf"]


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_text_that_a_spreadsheet_would_run_is_quoted_and_comes_back(tmp_path: Path):
    write_table(tmp_path / "a.csv", [*FORMULAS, *PLAIN], [[*FORMULAS, *PLAIN]])
    for line in cells(tmp_path / "a.csv"):
        assert line == ["'" + text for text in FORMULAS] + PLAIN
        assert [name_in(cell) for cell in line] == [*FORMULAS, *PLAIN]


def test_numbers_are_numbers_and_what_is_not_known_is_empty(tmp_path: Path):
    write_table(tmp_path / "a.csv", ["a"], [[-1.5], [-3], [None], [float("nan")], [-np.inf], [np.float32(-0.1)]])
    assert [line for (line,) in cells(tmp_path / "a.csv")[1:]] == ["-1.5", "-3", "", "nan", "-inf", "-0.1"]


def test_every_table_of_arrays_quotes_names_and_no_number(tmp_path: Path):
    x = torch.tensor([[-1.5, 2.0], [-0.25, 4.0]])
    save_array(tmp_path / "a.csv", x, names=["=a", "b"], of={"name": ["@file.png", "-3.png"]})
    assert cells(tmp_path / "a.csv") == [
        ["name", "'=a", "b"],
        ["'@file.png", "-1.5", "2.0"],
        ["'-3.png", "-0.25", "4.0"],
    ]
    save_sequences(tmp_path / "s.csv", x, [1, 1], names=["=a", "b"], of=["=1.npy", "2.npy"])
    assert cells(tmp_path / "s.csv")[:2] == [["sequence", "step", "'=a", "b"], ["'=1.npy", "1", "-1.5", "2.0"]]


def test_a_written_table_is_read_with_the_names_it_had(tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.savetxt(tmp_path / "data.csv", x, delimiter=",", header="=a,b", comments="")
    meaning = load_data(tmp_path / "data.csv", table=None).meaning
    names = meaning.feature_names
    assert names == ("=a", "b")
    save_array(tmp_path / "again.csv", x, names=names)
    assert cells(tmp_path / "again.csv")[0] == ["'=a", "b"]
    rows = load_rows(tmp_path / "again.csv", meaning=meaning)
    np.testing.assert_allclose(rows.x.numpy(), x.astype(np.float32))


def test_a_name_that_is_no_text_is_spelled(tmp_path: Path):
    save_array(tmp_path / "a.csv", np.zeros((1, 1)), of={"name": ["caf\udce9.png"]})
    assert cells(tmp_path / "a.csv")[1] == [r"caf\udce9.png", "0.0"]
    save_array(tmp_path / "a.csv", np.zeros((1, 1)), of={"name": ["\r=1.png"]})
    assert cells(tmp_path / "a.csv")[1] == ["'\r=1.png", "0.0"]


def test_a_full_disk_is_named_with_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    save_array(tmp_path / "a.npy", np.ones(3))
    monkeypatch.setattr("os.fsync", full)
    for name in ("a.npy", "a.csv"):
        with pytest.raises(InputError, match=rf"cannot write .*{name}: No space left on device. Free some space"):
            save_array(tmp_path / name, np.zeros(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.load(tmp_path / "a.npy").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("200000 requested and 76768 written"),
    ],
)
def test_other_libraries_words_for_a_full_disk_are_known(error: Exception, tmp_path: Path):
    from subo.files.whole import replacing

    with (
        pytest.raises(InputError, match=r"cannot write .*a\.bin: No space left on device"),
        replacing(tmp_path / "a.bin"),
    ):
        raise error
