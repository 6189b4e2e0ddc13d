"""Files of tables as frames: separators, decimal marks, missing words, and what is refused."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch

from assertions import assert_refused
from data_files import text
from subo.data.tables import parsing
from subo.data.tables.mixed import read_mixed
from subo.data.tables.options import TableOptions
from subo.data.tables.reading import read_frame


def read(tmp_path, content, name="x.csv", **options):
    return read_frame(text(tmp_path / name, content), **options)


def columns(read):
    """Cells by column, None where one is missing."""
    return {name: cells.astype(object).where(cells.notna(), None).tolist() for name, cells in read.frame.items()}


# Blocks


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "2", "3", "4", "5"],
        ["1", "2", "3.5", "4", ""],
        ["", "", "3", "", "5"],
        ["", "", "", "", ""],
        ["1", "2", "3", "x", "5"],
        ["", "", "x", "x", "y"],
        ["x", "x", "", "", "y"],
        ["x", "x", "x", "x", ""],
        ["x", "y", "z", "u", "v"],
        ["true", "false", "", "true", "false"],
        ["true", "false", "1", "0", "1"],
        ["true", "false", "x", "y", "y"],
        ["1", "2", "3", "04", "5"],
        ["1.5", "1.5", "3", "04.5", "5"],
        ["'=a", "'=a", "'=a", "b", "a"],
    ],
    ids=" ".join,
)
def test_blocks_of_rows_are_read_as_one(cells, tmp_path, monkeypatch):
    content = "n,a,b\n" + "".join(f"{number},{cell},z\n" for number, cell in enumerate(cells, 1))
    whole = read(tmp_path, content)
    assert not any(dtype == "category" for dtype in whole.frame.dtypes)
    monkeypatch.setattr(parsing, "_ROWS", 2)
    found = read(tmp_path, content)
    assert columns(found) == columns(whole)
    assert found.notes == whole.notes
    for name in ("n", "a"):
        dtypes = (whole.frame[name].dtype, found.frame[name].dtype)
        assert dtypes[0] == dtypes[1] or (str(dtypes[0]), str(dtypes[1])) == (parsing.AS_TEXT, "category")


def test_text_of_many_rows_is_a_category_where_it_repeats_and_its_type_is_that_of_text(tmp_path, monkeypatch):
    path = text(tmp_path / "x.csv", "a,b,c\n" + "".join(f"{i % 3},{'xyz'[i % 3]},t{i}\n" for i in range(30)))
    whole = read_mixed(path, options=TableOptions())
    monkeypatch.setattr(parsing, "_ROWS", 20)
    assert [str(dtype) for dtype in read_frame(path).frame.dtypes] == ["int64", "category", "str"]
    found = read_mixed(path, options=TableOptions())
    assert found.table == whole.table
    torch.testing.assert_close(found.parts[0].x, whole.parts[0].x)


@pytest.mark.parametrize("row", ["1,2", "1", "1,2,3,4"])
def test_rows_of_another_length_are_refused_in_later_blocks(row, tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "_ROWS", 2)
    with assert_refused("row 5", "under a header of 3"):
        read(tmp_path, "a,b,c\n" + "1,2,3\n" * 4 + row + "\n" + "1,2,3\n" * 4)


def test_the_bytes_tell_which_files_need_another_look(tmp_path, monkeypatch):
    refuse, again = [], []
    monkeypatch.setattr(parsing, "_refuse_widths", lambda *_: refuse.append(1))
    blocks = parsing._blocks

    def watched(*file, **options):
        again.extend([1] * ("usecols" in options))
        return blocks(*file, **options)

    monkeypatch.setattr(parsing, "_blocks", watched)
    for content, looked in [
        ("a,b\n1,\n0.5,2020-01-05\n", (0, 0)),
        ("a,b\n1,\n2\n", (1, 0)),
        ('a,b\n1,\n"2,3",\n', (1, 0)),
        ("a,b\n1,2\n3,05\n", (0, 1)),
        ("a,b\n1,2\n05,3\n", (0, 1)),
        ("a,b\n1,2\n3, 05\n", (0, 1)),
        ('a,b\n1,2\n3,"05"\n', (0, 1)),
        ("a,b\r1,2\r05,3\r", (0, 1)),
    ]:
        refuse.clear()
        again.clear()
        monkeypatch.setattr(parsing, "_BYTES", 3)
        parsing.parse(text(tmp_path / "x.csv", content), parsing.Layout(("a", "b"), ",", ".", [""]), [])
        assert (len(refuse), len(again)) == looked, content


# Separators and decimal marks


@pytest.mark.parametrize(
    "separator, word", [(",", None), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")], ids=["comma", ";", "tab", "|"]
)
def test_the_separator_is_found_and_said(separator, word, tmp_path):
    rows = [("name", "height", "n"), ("Ann", "1.5", "3"), ("Bob", "2", "4"), ("Cy", "-.25", "5")]
    found = read(tmp_path, "\n".join(map(separator.join, rows)) + "\n")
    assert columns(found) == {"name": ["Ann", "Bob", "Cy"], "height": [1.5, 2.0, -0.25], "n": [3, 4, 5]}
    assert found.notes == (() if word is None else (f"cells are separated by {word}",))
    assert [str(dtype) for dtype in found.frame.dtypes] == ["str", "float64", "int64"]


def test_tabs_of_a_tsv_and_a_separator_that_was_asked_for_go_unsaid(tmp_path):
    assert read(tmp_path, "a\tb\n1\t2\n", "x.tsv").notes == ()
    assert read(tmp_path, "a|b\n1|2\n", separator="|").notes == ()


def test_a_separator_that_was_asked_for_wins(tmp_path):
    content = "a;b,c\n1;2,3\n4;5,6\n"
    assert columns(read(tmp_path, content, separator=";", decimal=",")) == {"a": [1, 4], "b,c": [2.3, 5.6]}
    assert columns(read(tmp_path, content, separator=",")) == {"a;b": ["1;2", "4;5"], "c": [3, 6]}


def test_other_separators_inside_cells_are_text(tmp_path):
    assert columns(read(tmp_path, "a;b\nx;y,z\nu;v\n")) == {"a": ["x", "u"], "b": ["y,z", "v"]}


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_decimal_comma_is_found_and_said(separator, tmp_path):
    found = read(tmp_path, "a;b\n1,5;x\n-2,25;y\n3;z\n".replace(";", separator))
    assert columns(found) == {"a": [1.5, -2.25, 3.0], "b": ["x", "y", "z"]}
    assert found.notes[-1] == "numbers have a decimal comma"


def test_numbers_with_points_keep_the_decimal_point(tmp_path):
    found = read(tmp_path, "a;b\n1,5;1.5\n2,5;2.5\n")
    assert columns(found) == {"a": ["1,5", "2,5"], "b": [1.5, 2.5]}
    assert found.notes == ("cells are separated by semicolons",)


def test_a_decimal_mark_that_was_asked_for_wins(tmp_path):
    found = read(tmp_path, "a;b\n1,5;x\n2,5;y\n", decimal=".")
    assert columns(found)["a"] == ["1,5", "2,5"]
    found = read(tmp_path, "a;b\n1;x\n2,5;y\n", decimal=",")
    assert columns(found)["a"] == [1.0, 2.5]
    assert found.notes == ("cells are separated by semicolons",)


@pytest.mark.parametrize("mark", [";;", "", "\n", '"', "\\t"])
def test_marks_that_cannot_be_are_refused(mark, tmp_path):
    with assert_refused("the separator must be one character", repr(mark)):
        read(tmp_path, "a;b\n1;2\n", separator=mark)
    with assert_refused("the decimal mark must be one character", repr(mark)):
        read(tmp_path, "a;b\n1;2\n", decimal=mark)


# Forms of text


def test_quotes_hold_separators_quotes_and_lines(tmp_path):
    found = read(tmp_path, 'a,"b, c"\n1,"x, y"\n2,"he said ""no"""\n3,"u\nv"\n')
    assert columns(found) == {"a": [1, 2, 3], "b, c": ["x, y", 'he said "no"', "u\nv"]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_ends_of_lines_and_a_byte_order_mark(end, mark, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes((mark + "é,b\n1,x\n2,\n".replace("\n", end)).encode())
    found = read_frame(path)
    assert columns(found) == {"é": [1, 2], "b": ["x", None]}


def test_blank_lines_and_spaces_before_cells_are_nothing(tmp_path):
    assert columns(read(tmp_path, "\n a , b\n\n1, x\n 2,y\n\n")) == {"a": [1, 2], "b": ["x", "y"]}


def test_blanks_after_cells_are_nothing(tmp_path):
    found = read(tmp_path, "a,b,c,d\nx ,1 ,?,u\nx,2.5,  y  ,v \n x,NA ,z,w\n", missing=("?",))
    assert columns(found) == {"a": ["x"] * 3, "b": [1, 2.5, None], "c": [None, "y", "z"], "d": ["u", "v", "w"]}


def test_blanks_after_missing_words_and_at_the_end_of_the_file_are_nothing(tmp_path):
    found = read(tmp_path, "a,b\nx,p\nNA" + " " * 15 + ",q\nz,p ")
    assert columns(found) == {"a": ["x", None, "z"], "b": ["p", "q", "p"]}


def test_marks_that_may_separate_thousands_are_said(tmp_path):
    rows = "".join(f"{1 + i}.{100 + 7 * i};{800 - i};{i}.5;{i}.125\n{900 - i};7;8;0.250\n" for i in range(25))
    (said,) = [note for note in read(tmp_path, "a;b;c;d\n" + rows).notes if "Careful" in note]
    assert "column 'a' has numbers such as 1.100, three digits after each mark, and others without a mark" in said


def test_lines_that_end_with_a_separator_are_refused_with_the_remedy(tmp_path):
    with assert_refused("each line ends with a separator", "remove it"):
        read(tmp_path, "a;b;\n1;2;\n3;4;\n")
    with assert_refused("column 3 has no name"):
        read(tmp_path, "a;b;\n1;2;3\n3;4;5\n")


@pytest.mark.parametrize("name", ["x.csv.gz", "x.TSV.GZ"])
def test_compressed_text(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"a\tb\n1\tx\n2\ty\n"))
    assert columns(read_frame(path)) == {"a": [1, 2], "b": ["x", "y"]}
    assert read_frame(path).notes == (("cells are separated by tabs",) if "csv" in name else ())


def test_booleans_are_read_in_any_case(tmp_path):
    found = read(tmp_path, "a,b\ntrue,True\nFALSE,\n")
    assert columns(found) == {"a": [True, False], "b": [True, None]}
    assert found.frame["a"].dtype == bool


def test_the_header_may_be_counted_as_pandas_does(tmp_path):
    assert columns(read(tmp_path, "0,1\n5,6\n")) == {"0": [5], "1": [6]}


def test_formulas_that_were_made_text_are_text_again(tmp_path):
    found = read(tmp_path, "'=a,b\n'=1+1,'tis\n''@x,-5\n'-5,'\n")
    assert columns(found) == {"=a": ["=1+1", "'@x", "'-5"], "b": ["'tis", "-5", "'"]}


# Leading zeros


def test_numbers_with_leading_zeros_stay_text_and_this_is_said(tmp_path):
    found = read(tmp_path, "zip,n,share\n01234,1,0.5\n90210,0,00.5\n,2,0\n")
    assert columns(found) == {"zip": ["01234", "90210", None], "n": [1, 0, 2], "share": [0.5, 0.5, 0.0]}
    assert (found.notes, found.no_numbers) == ((), {"zip": "its numbers begin with 0"})


@pytest.mark.parametrize("rows", [999, 1000, 1500])
def test_leading_zeros_are_found_beyond_the_first_rows(rows, tmp_path):
    found = read(tmp_path, "n,zip,x\n" + "1,12345,0.5\n" * rows + "2,01234,0.25\n")
    assert columns(found)["zip"] == ["12345"] * rows + ["01234"]
    assert (found.notes, found.no_numbers) == ((), {"zip": "its numbers begin with 0"})
    assert [str(dtype) for dtype in found.frame.dtypes] == ["int64", "str", "float64"]


def test_whole_numbers_keep_all_their_digits_beside_missing_cells(tmp_path):
    found = read(tmp_path, "id,n\n100000000000000003,1e17\n,\n5,9007199254740992\n")
    assert columns(found) == {"id": ["100000000000000003", None, "5"], "n": [1e17, None, 2.0**53]}
    assert found.no_numbers == {"id": "its whole numbers have more digits than a float holds"}
    assert columns(read(tmp_path, "id\n100000000000000003\n5\n")) == {"id": [100000000000000003, 5]}


@pytest.mark.parametrize("word", ["", "NA", "?"])
def test_numbers_beyond_64_bits_keep_their_digits_and_cells_beside_them_are_missing(word, tmp_path):
    content = f"id,n\n18446744073709551616,1\n{word},2\n99999999999999999999,3\n"
    cells = columns(read(tmp_path, content, missing=("?",)))["id"]
    assert [cell if cell is None else int(cell) for cell in cells] == [1 << 64, None, 10**20 - 1]


def test_phones_keep_their_plus(tmp_path):
    found = read(tmp_path, "phone,change\n+4917101354,+12\n?,-3\n+4917101355,+2\n", missing=("?",))
    assert columns(found) == {"phone": ["+4917101354", None, "+4917101355"], "change": [12, -3, 2]}
    assert [*found.no_numbers] == ["phone"]


def test_a_missing_cell_that_may_be_a_country_is_said(tmp_path):
    assert "Namibia" in read(tmp_path, "country\nDE\nNA\nFR\n").notes[0]
    for other in ("country\nDE\nNA\n\nDEU\n", "x\nNA\nNA\n", "country\nDE\nUS\nFR\n", "flag\nYE\nNA\n"):
        assert read(tmp_path, other).notes == ()


def test_codes_are_seen_beside_words_for_missing_cells(tmp_path):
    assert read(tmp_path, "code\n10E2\n?\n11E3\n", missing=("?",)).no_numbers == {
        "code": "its cells are codes such as 10E2"
    }


@pytest.mark.parametrize("cells, code", [
    ("10E2 11E3 4", "10E2"), ("12 1e5 7", None), ("1E5 2.5 7", None), ("1e+05 2 7", None), ("1e-5 2e3 7", None),
])  # fmt: skip
def test_codes_of_digits_around_an_e_are_no_numbers(cells, code, tmp_path):
    found = read(tmp_path, "code,n\n" + "".join(f"{cell},1\n" for cell in cells.split()))
    assert found.no_numbers == ({"code": f"its cells are codes such as {code}"} if code else {})
    texts = cells.split() if code else [*map(float, cells.split())]
    assert columns(found)["code"] == texts


# Missing cells


@pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "None", "NaT"])
def test_words_that_always_stand_for_a_missing_cell(word, tmp_path):
    assert columns(read(tmp_path, f"a,b\n1,x\n{word},{word}\n3,y\n")) == {"a": [1, None, 3], "b": ["x", None, "y"]}


@pytest.mark.parametrize("word", ["?", "null", "#N/A", "n/a", "-999", "."])
def test_other_words_are_text_unless_they_are_given(word, tmp_path):
    content = f"a,b\n1,x\n2,{word}\n"
    assert columns(read(tmp_path, content)) == {"a": [1, 2], "b": ["x", word]}
    assert columns(read(tmp_path, content, missing=("other", word))) == {"a": [1, 2], "b": ["x", None]}


def test_words_for_missing_cells_leave_numbers(tmp_path):
    found = read(tmp_path, "a,b,c\n1,-999,x\n?,2.5,?\n-999.0,3,-999\n", missing=("?", "-999"))
    assert columns(found) == {"a": [1, None, None], "b": [None, 2.5, 3.0], "c": ["x", None, None]}
    assert [str(dtype) for dtype in found.frame.dtypes] == ["float64", "float64", "str"]


def test_a_column_without_any_cell(tmp_path):
    assert columns(read(tmp_path, "a,b\n1,\n2,\n")) == {"a": [1, 2], "b": [None, None]}


# What is refused


@pytest.mark.parametrize(
    "content, facts",
    [
        ("a,b\n1,2\n3\n", ("row 2 (line 3)", "1 cell under a header of 2")),
        ("a,b\n1,2\n\n3,4,5\n", ("row 2 (line 4)", "3 cells under a header of 2")),
        ("a,b\n1,2,3\n4,5,6\n", ("row 1 (line 2)", "3 cells under a header of 2")),
        ("a,b,c\n1,2,3\n3\n4,5,6\n", ("row 2 (line 3)", "1 cell under a header of 3")),
        ("a;b\n1;2,5\n3;2;1\n", ("row 2 (line 3)", "3 cells under a header of 2")),
        ('a,b\n"x\n2,3\n', ("row 1 (line 3)", "1 cell under a header of 2")),
        ("a\n1,5\n2,5\n", ("row 1 (line 2)", "2 cells under a header of 1")),
        ("", ("is empty", "expected a header")),
        ("\n\n", ("is empty", "expected a header")),
        ("a,b\n", ("is empty", "no rows")),
        ("a,b,a\n1,2,3\n", ("two columns have the name 'a'", "a, b, a")),
        ("a, a\n1,2\n", ("two columns have the name 'a'",)),
        ("# by X\na,b\n1,2\n", ("row 1 (line 2): 2 cells", "or the first line, '# by X', is no header: remove it")),
        ("-1.5,-1.5,v\n2.5,1.5,w\n", ("the name '-1.5': rename one", "if the first line is a row, put names above it")),
        (",a\n0,1\n", ("column 1 has no name", "index=False")),
        ("a,\n0,1\n", ("column 2 has no name",)),
        ("1.5,2\n3,4\n", ("first line holds numbers",)),
        ("1,0\n3,4\n", ("first line holds numbers",)),
    ],
)
def test_text_that_is_no_table(content, facts, tmp_path):
    with assert_refused(tmp_path / "x.csv", *facts):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("-1.70,0.78,v", "though it holds numbers such as -1.70: if it is a row, put names above it"),
        ("a,1e-5,b", "though it holds numbers such as 1e-5: if"),
        ('"1,5",a,b', "though it holds numbers such as 1,5: if"),
        ("# by X,Monday,c", "though it begins with '# by X': if it is a comment, remove it"),
    ],
)
def test_a_header_that_may_be_none_is_said(header, words, tmp_path):
    assert words in read(tmp_path, f"{header}\nx,y,z\n").notes[0]


@pytest.mark.parametrize("header", ["0,1,2", "2019,2020,city", "x1,1a,2E", "#id,e5,-", "1-2,3.4.5,a"])
def test_names_of_numbers_are_names(header, tmp_path):
    assert read(tmp_path, f"{header}\nx,y,z\n").notes == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_that_a_file_is_of_another_encoding_is_said(encoding, tmp_path):
    (tmp_path / "x.csv").write_bytes(("\ufeff" * (encoding != "utf-16") + "a,b\n1,2\n").encode(encoding))
    with assert_refused("x.csv begins with the byte-order mark of UTF-16", "save it as UTF-8"):
        read_frame(tmp_path / "x.csv")


def test_a_short_row_after_the_first_thousand_is_refused(tmp_path):
    with assert_refused("row 1501 (line 1502)", "1 cell under a header of 2"):
        read(tmp_path, "a,b\n" + "1,2\n" * 1500 + "3\n4,5\n")


def damaged(content):
    whole = bytearray(gzip.compress(content))
    whole[20] ^= 0xFF
    return bytes(whole)


LONG = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i % 977) for i in range(500))


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.csv.gz", b"a,b\n1,2\n"),
        ("x.csv.gz", gzip.compress(LONG)[:-200]),
        ("x.csv.gz", damaged(LONG)),
        ("x.csv", "a,é\n1,2\n".encode("utf-16")),
        ("x.csv", "a,é\n1,2\n".encode("latin-1")),
        ("x.csv", LONG * 300 + b"\xe9,1\n"),
        ("x.parquet", b"PAR1 and no more"),
        ("x.feather", b"ARROW"),
        ("x.parquet", b""),
    ],
)
def test_bytes_that_are_no_such_file(name, content, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with assert_refused(tmp_path / name):
        read_frame(tmp_path / name)


# Parquet and Feather


@pytest.fixture(params=["parquet", "feather"])
def arrow(request, tmp_path):
    """Writes a frame and reads it."""
    pytest.importorskip("pyarrow")

    def written(frame, **options):
        path = tmp_path / f"x.{request.param}"
        (frame.to_parquet if request.param == "parquet" else frame.to_feather)(path)
        return read_frame(path, **options)

    return written


def test_frames_keep_their_types(arrow):
    frame = pd.DataFrame(
        {
            "i": [1, 2, 3],
            "f": [0.5, np.nan, -2.0],
            "b": [True, False, True],
            "s": ["01", None, "x"],
            "d": pd.to_datetime(pd.Series(["2020-01-05T00:00", None, "2021-02-03T10:30"])),
            "c": pd.Categorical(["u", "v", None]),
            "n": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    found = arrow(frame)
    pd.testing.assert_frame_equal(found.frame, frame)
    assert found.notes == ()


def test_missing_words_are_taken_from_frames_too(arrow):
    frame = pd.DataFrame(
        {
            "i": [1, -999, 3],
            "f": [-999.0, 0.5, 2.0],
            "n": pd.array([-999, None, 3], dtype="Int64"),
            "s": ["?", "x", "-999"],
            "c": pd.Categorical(["u", "?", "u"]),
            "e": ["", "NA", "x"],
            "kept": [-99, 9, 99],
            "b": [True, False, True],
        }
    )
    found = arrow(frame, missing=("?", "-999"))
    assert columns(found) == {
        "i": [1, None, 3],
        "f": [None, 0.5, 2.0],
        "n": [None, None, 3],
        "s": [None, "x", None],
        "c": ["u", None, "u"],
        "e": [None, None, "x"],
        "kept": [-99, 9, 99],
        "b": [True, False, True],
    }
    assert [str(found.frame[name].dtype) for name in ("i", "n", "c", "kept", "b")] == [
        "float64", "Int64", "category", "int64", "bool"
    ]  # fmt: skip
    assert columns(arrow(frame))["i"] == [1, -999, 3]
    assert columns(arrow(frame))["s"] == ["?", "x", "-999"]


def test_a_frame_without_rows_is_refused(arrow):
    with assert_refused("is empty", "no rows"):
        arrow(pd.DataFrame({"a": pd.Series([], dtype="float64")}))


def test_an_index_with_a_name_is_a_column_and_one_without_stays_it(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2], "7": [3, 4]}, index=pd.Index(["u", "v"], name="id"))
    frame.to_parquet(tmp_path / "x.parquet")
    assert columns(read_frame(tmp_path / "x.parquet")) == {"id": ["u", "v"], "a": [1, 2], "7": [3, 4]}
    frame.rename_axis(index=None).to_parquet(tmp_path / "x.parquet")
    found = read_frame(tmp_path / "x.parquet").frame
    assert (list(found), list(found.index)) == (["a", "7"], ["u", "v"])
    frame.rename_axis(index="a").to_parquet(tmp_path / "x.parquet")
    with assert_refused("two columns have the name 'a'"):
        read_frame(tmp_path / "x.parquet")
