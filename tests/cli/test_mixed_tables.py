"""The commands on a table as people have them: text, dates, truth values, missing cells."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from command_line import assert_refused, run
from subo import figures
from subo.data.tables.coding import decode
from subo.evaluation.own_units import log_slopes
from subo.experiments.experiment import open_run
from subo.runs.run import Run

pytestmark = pytest.mark.slow

FIT = ["--epochs", 3, "--hidden", "16", "--latent-dim", 2, "--evaluation-samples", 50]


def people(rows: int = 150, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.normal(45, 12, rows).round(1)
    frame = pd.DataFrame(
        {
            "id": np.arange(1000, 1000 + rows),
            "age": age,
            "income": np.exp(rng.normal(8, 0.8, rows)).round(),
            "city": rng.choice(["Oslo", "Rome", "=Bern"], rows, p=[0.5, 0.3, 0.2]),
            "smoker": rng.choice(["yes", "no"], rows),
            "visits": rng.poisson(3 + (age > 45) * 20),
            "debt": np.where(rng.random(rows) < 0.4, 0.0, np.exp(rng.normal(5, 1, rows)).round(2)),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, rows), "D"),
        }
    )
    for column in ("age", "income", "city", "since"):
        frame.loc[rng.random(rows) < 0.1, column] = None
    return frame


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("people")
    data = folder / "people.csv"
    people().to_csv(data, index=False)
    assert run("fit", data, "--out", folder / "run", *FIT, "--quiet") == 0
    return folder / "run", data


def test_fit_says_what_it_takes_each_column_for(tmp_path: Path, capsys: pytest.CaptureFixture):
    with gzip.open(tmp_path / "people.csv.gz", "wt") as file:
        people().to_csv(file, index=False, sep=";")
    options = ["--columns", "visits=real, smoker=category", "--out", tmp_path / "run", *FIT]
    assert run("fit", tmp_path / "people.csv.gz", *options) == 0
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    kinds = {name: said[name].split()[1] for name in people().columns}
    assert kinds == {
        "id": "drop", "age": "real", "income": "positive", "city": "category", "smoker": "category", "visits": "real",
        "debt": "spike", "since": "date",
    }  # fmt: skip
    assert "an identifier" in said["id"]
    assert "as asked for" in said["visits"]
    assert "0, or log-normal" in said["debt"]
    missing = f"{people().age.isna().mean():.1%}"
    assert missing in said["age"]


def test_a_run_keeps_the_schema_and_takes_it_from_a_file(fitted: tuple[Path, Path], tmp_path: Path):
    run_dir, data = fitted
    table = Run(run_dir).read_config().data.meaning.table
    assert table is not None
    assert [column.name for column in table.modeled] == list(people().columns)[1:]
    table.save(tmp_path / "schema.json")
    stored = json.loads((tmp_path / "schema.json").read_text())
    stored["columns"][1]["kind"] = "positive"
    stored["columns"][1]["log"] = True
    (tmp_path / "schema.json").write_text(json.dumps(stored))
    out = tmp_path / "run"
    assert run("fit", data, "--columns", tmp_path / "schema.json", "--out", out, *FIT, "--quiet") == 0
    again = Run(out).read_config().data.meaning.table
    assert again is not None
    assert again.columns[1].kind == "positive"
    assert again.columns[2:] == table.columns[2:]
    of_run = tmp_path / "again"
    assert run("fit", data, "--columns", out / "config.json", "--out", of_run, *FIT, "--quiet") == 0
    assert Run(of_run).read_config().data.meaning.table == again


def test_a_value_that_has_no_density_is_named_by_its_column(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    fresh = people(20, seed=3)
    fresh.loc[[4, 6], "visits"] = -2
    fresh.loc[4, "income"] = 0
    fresh.to_csv(tmp_path / "new.csv", index=False)
    out, cells = tmp_path / "s.csv", tmp_path / "c.csv"
    assert run("score", fitted[0], tmp_path / "new.csv", "--out", out, "--cells", cells, "--num-samples", 20) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the first is number 5 (counted from 1), in columns 'income' (1), 'visits' (2): their log p(x)" in said
    assert pd.read_csv(out).log_px[4] == -np.inf
    assert pd.read_csv(out).odd_columns[4] == "income (0); visits (0)"
    of_cells = pd.read_csv(cells).drop(columns="row")
    assert [of_cells.income[4], of_cells.visits[4]] == [-np.inf] * 2
    assert of_cells.notna().to_numpy().tolist() == fresh.drop(columns="id").notna().to_numpy().tolist()


def test_samples_say_what_they_lack(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run("sample", fitted[0], "-n", 9, "--out", tmp_path / "s.csv") == 0
    assert "left out, as in the fit: id" in capsys.readouterr().out


def test_samples_below_zero_are_said_where_no_training_row_is(tmp_path: Path, capsys: pytest.CaptureFixture):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"low": rng.random(60).round(3), "free": rng.normal(size=60), "high": 50 + rng.random(60)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    options = ["--columns", "low=real,free=real,high=real", "--out", tmp_path / "run", *FIT, "--quiet"]
    assert run("fit", tmp_path / "t.csv", *options) == 0
    capsys.readouterr()
    assert run("sample", tmp_path / "run", "-n", 1000, "--out", tmp_path / "s.csv") == 0
    said = " ".join(capsys.readouterr().out.split())
    share = (pd.read_csv(tmp_path / "s.csv").low < 0).mean()
    assert 0 < share < 0.6
    assert f"some samples are below 0, where no training row is: low ({share:.2g} of them). A fit" in said
    assert "no cell of the samples is empty" not in said
    (tmp_path / "t.csv").unlink()
    assert run("sample", tmp_path / "run", "-n", 1000, "--out", tmp_path / "s.csv") == 0
    assert "below 0" not in capsys.readouterr().out


def test_samples_far_beyond_the_data_and_without_gaps_are_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": np.exp(2 * rng.normal(size=60)).round(3), "even": rng.uniform(50, 51, 60)})
    frame.loc[:14, "even"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    options = ["--columns", "size=positive,even=real", "--out", tmp_path / "run", *FIT, "--quiet"]
    assert run("fit", tmp_path / "t.csv", *options) == 0
    capsys.readouterr()
    assert run("sample", tmp_path / "run", "-n", 1000, "--out", tmp_path / "s.csv") == 0
    said, drawn = " ".join(capsys.readouterr().out.split()), pd.read_csv(tmp_path / "s.csv")
    experiment = open_run(tmp_path / "run")
    table, train = experiment.config.data.meaning.table, experiment.data().train
    assert table is not None
    highest = decode(train.x, table)["size"].max()
    assert drawn["size"].max() > 1.5 * highest
    assert f"size up to {drawn['size'].max():.7g} (data up to {highest:.7g})" in said
    share = float(train.x.isnan().double().mean())
    assert f"no cell of the samples is empty, while {share:.2g} of the training cells are" in said
    assert run("sample", tmp_path / "run", "-n", 1000, "--missing", "--out", tmp_path / "s.csv") == 0
    assert "no cell of the samples is empty" not in capsys.readouterr().out


def test_a_test_row_has_one_p_value_in_whatever_part_it_is_scored(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    """That of its rank among the other test rows: 1/15 .. 15/15, though its score has other noise in another part."""
    run_dir, source = fitted
    parts = {}
    for part in ("test", "all"):
        options = ["--part", part, "--num-samples", 20, "--out", tmp_path / f"{part}.csv"]
        assert run("score", run_dir, source, *options) == 0
        parts[part] = pd.read_csv(tmp_path / f"{part}.csv", keep_default_na=False).set_index("row")
        said = " ".join(capsys.readouterr().out.split())
        assert ("120 of the 150 are the run's training examples" in said) == (part == "all")
    test, same = parts["test"], parts["all"].loc[parts["test"].index]
    assert (test.log_px != same.log_px).any()
    assert test.p_value.tolist() == same.p_value.tolist()
    assert sorted(test.p_value) == pytest.approx([(i + 1) / 15 for i in range(15)])
    assert sorted(test.p_value) == test.p_value[test.log_px_scaled.sort_values().index].tolist()
    experiment = open_run(run_dir)
    slopes = log_slopes(experiment.objective.model, experiment.data().test).sum(1)
    assert (test.log_px - test.log_px_scaled).to_numpy() == pytest.approx(slopes.numpy(), abs=1e-4)


def test_score_has_p_values_and_names_odd_columns(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run_dir, _ = fitted
    fresh = people(60, seed=1)
    fresh.loc[7, "visits"] = 4000
    fresh.loc[9, "city"] = "Paris"
    fresh = fresh[[*fresh.columns[::-1]]].assign(extra=1)
    fresh.to_csv(tmp_path / "new.csv", index=False)
    out, cells = tmp_path / "s.csv", tmp_path / "c.csv"
    options = ["--out", out, "--cells", cells, "--alpha", 0.1, "--num-samples", 200]
    assert run("score", run_dir, tmp_path / "new.csv", *options) == 0
    said = capsys.readouterr().out
    assert "column 'extra' is left out" in said
    assert "never seen ('Paris')" in said
    assert "no cell that its kind allows is named as odd, since among 15 other test rows none ranks below 0.062" in said
    table = pd.read_csv(out, keep_default_na=False)
    held_out = 15
    assert table.p_value[7] == pytest.approx(1 / (held_out + 1))
    assert table.odd[7] == 1
    assert (table.odd == (table.p_value <= 0.1)).all()
    assert f"{int(table.odd.sum())} of 60 are marked as odd" in said
    of_cells = pd.read_csv(cells)
    assert list(of_cells.columns) == ["row", *list(people().columns)[1:]]
    assert list(of_cells["row"]) == list(range(1, 61))
    assert "--out" in assert_refused(capsys, "score", run_dir, tmp_path / "new.csv", "--out", out, "--cells", out)
    assert of_cells.visits.idxmin() == 7
    assert (of_cells.city.isna() == fresh.city.isna().to_numpy()).all()
    assert of_cells.city[9] == pytest.approx(of_cells.city.min())


def test_impute_reads_its_table_once_for_each_use(
    fitted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read, times = pd.read_csv, []
    run_dir, data = fitted

    def counted(path: Path, **options: object) -> pd.DataFrame:
        times.append(path)
        return read(path, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    assert run("score", run_dir, data, "--out", tmp_path / "s.csv") == 0
    monkeypatch.setattr(pd, "read_csv", counted)
    for part in ("all", "validation"):
        out = tmp_path / f"{part}.csv"
        times.clear()
        assert run("impute", run_dir, data, "--out", out, "--num-samples", 50, "--part", part) == 0
        assert times == [data] * 3  # for the cells, for their text, and for the rows that were trained on


def test_impute_fills_what_is_missing_and_nothing_else(fitted: tuple[Path, Path], tmp_path: Path):
    run_dir, data = fitted
    before = pd.read_csv(data)
    for options, tables in (([], 1), (["--draws", 3], 3)):
        out = tmp_path / f"filled{tables}.csv"
        assert run("impute", run_dir, data, "--out", out, "--num-samples", 50, *options) == 0
        after = pd.read_csv(out)
        assert list(after.columns) == (["draw"] if tables > 1 else []) + list(before.columns)
        assert len(after) == tables * len(before)
        assert not after.isna().any().any()
        after["city"] = after.city.str.lstrip("'")  # a formula is quoted
        for number in range(tables):
            part = after.iloc[number * len(before) : (number + 1) * len(before)].reset_index(drop=True)
            for name in before.columns:
                known = before[name].notna()
                assert (part[name][known] == before[name][known]).all()
        assert set(after.city) == {"Oslo", "Rome", "=Bern"}
        assert pd.to_datetime(after.since).between("2015-01-01", "2030-01-01").all()
    draws = pd.read_csv(tmp_path / "filled3.csv")
    gone = before.income.isna().to_numpy()
    first, second = (draws[draws.draw == number].income.to_numpy()[gone] for number in (1, 2))
    assert (first != second).mean() > 0.9


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_samples_are_such_a_table(ending: str, fitted: tuple[Path, Path], tmp_path: Path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    run_dir, _ = fitted
    out = tmp_path / f"s.{ending}"
    assert run("sample", run_dir, "-n", 200, "--out", out) == 0
    readers = {"csv": pd.read_csv, "tsv": lambda path: pd.read_csv(path, sep="\t"), "parquet": pd.read_parquet}
    table = readers[ending](out)
    assert list(table.columns) == list(people().columns)[1:]
    assert set(table.city.str.lstrip("'")) == {"Oslo", "Rome", "=Bern"}
    assert set(table.smoker) == {"yes", "no"}
    assert (table.income > 0).all()
    assert (table.debt >= 0).all()
    assert 0.2 < (table.debt == 0).mean() < 0.6
    assert (table.visits == table.visits.round()).all()
    assert run("sample", run_dir, "--out", tmp_path / "s.png") == 0


def test_other_tables_are_refused_with_what_is_wrong(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run_dir, data = fitted
    out = ["--out", tmp_path / "s.csv"]
    frame = pd.read_csv(data)
    frame.rename(columns={"income": "salary"}).to_csv(tmp_path / "renamed.csv", index=False)
    message = assert_refused(capsys, "score", run_dir, tmp_path / "renamed.csv", *out)
    assert "'income' of the fit is missing" in message
    assert "'salary' is not in the fit, perhaps renamed" in message
    frame.assign(age=["old"] * len(frame)).to_csv(tmp_path / "text.csv", index=False)
    assert "column 'age', row 1: 'old' is not a number" in assert_refused(
        capsys, "impute", run_dir, tmp_path / "text.csv", *out
    )
    assert "is not a table of mixed" not in message
    assert "drop" in assert_refused(capsys, "fit", data, "--columns", "age=colour", "--out", tmp_path / "r", *FIT)
    assert "no column 'agee'" in assert_refused(
        capsys, "fit", data, "--columns", "agee=real", "--out", tmp_path / "r", *FIT
    )
    assert "has no effect" in assert_refused(
        capsys, "fit", data, "--columns", "age=real", "--likelihood", "gaussian", "--out", tmp_path / "r", *FIT
    )
    assert "needs --alpha" in assert_refused(capsys, "score", run_dir, data, *out, "--fdr")
    assert not (tmp_path / "s.csv").exists()
    assert not (tmp_path / "r").exists()


def test_a_row_without_cells_scores_zero_and_is_named(
    fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    run_dir, data = fitted
    lines = Path(data).read_text().splitlines()
    (tmp_path / "x.csv").write_text("\n".join([*lines[:3], "1," + "," * 6]) + "\n")
    assert run("score", run_dir, tmp_path / "x.csv", "--out", tmp_path / "s.csv", "--num-samples", 500) == 0
    assert "no cell of row 3 is observed" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "s.csv").iloc[2]
    assert abs(found.log_px) < 5 * found.standard_error + 1e-6


def test_without_the_data_there_are_scores_and_no_p_values(tmp_path: Path, capsys: pytest.CaptureFixture):
    data = tmp_path / "people.csv"
    people(60).to_csv(data, index=False)
    assert run("fit", data, "--out", tmp_path / "run", *FIT, "--quiet") == 0
    moved = data.rename(tmp_path / "moved.csv")
    out = ["--out", tmp_path / "s.csv", "--num-samples", 20]
    assert run("score", tmp_path / "run", moved, *out) == 0
    assert "No p-values" in capsys.readouterr().out
    assert "p_value" not in pd.read_csv(io.StringIO((tmp_path / "s.csv").read_text())).columns
    assert "ranks among" in assert_refused(capsys, "score", tmp_path / "run", moved, *out, "--alpha", 0.1)


def test_a_map_is_colored_by_a_column(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    folder, data = fitted
    for number, column in enumerate(("city", "income", "since")):
        assert run("encode", folder, data, "--out", tmp_path / f"{number}.png", "--color", column) == 0
    pictures = {path.read_bytes() for path in tmp_path.glob("*.png")}
    assert len(pictures) == 3
    said = assert_refused(capsys, "encode", folder, data, "--out", tmp_path / "a.png", "--color", "town")
    assert "there is no column 'town' to color by; there are id, age, income" in said
    assert "colors a map" in assert_refused(
        capsys, "encode", folder, data, "--out", tmp_path / "a.csv", "--color", "age"
    )


def test_columns_that_the_fit_left_out_color_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Each part's rows have their own cells: text as levels, numbers and dates as numbers, missing ones as such."""
    frame = people().assign(source="web", hours=np.arange(150) % 7 + 1, since=people().since.dt.strftime("%d.%m.%Y"))
    frame.to_csv(tmp_path / "people.csv", index=False)
    given = ["--columns", "city=drop, since=drop, debt=drop", "--size-factor", "hours", "--out", tmp_path / "run"]
    assert run("fit", tmp_path / "people.csv", *FIT, *given, "--quiet") == 0
    fresh = people(40, seed=2).assign(source=["web", "shop"] * 20, hours=2, extra=np.arange(40) / 3)
    fresh.to_csv(tmp_path / "new.csv", index=False)
    seen, drawn = {}, figures.latent_plane

    def latent_plane(means: np.ndarray, labels: np.ndarray, *, meaning: str, **options: Any) -> Figure:
        seen[meaning] = labels
        return drawn(means, labels, meaning=meaning, **options)

    monkeypatch.setattr(figures, "latent_plane", latent_plane)
    rows = open_run(tmp_path / "run").data().test.rows
    assert rows is not None
    test = frame.iloc[rows.numpy() - 1]
    out = ["--out", tmp_path / "plane.png"]
    for column in ("city", "since", "debt", "id", "hours"):
        assert run("encode", tmp_path / "run", tmp_path / "people.csv", *out, "--part", "test", "--color", column) == 0
    assert [*seen["city"]] == [*test.city.fillna("missing")]
    days = (pd.to_datetime(test.since, format="%d.%m.%Y") - pd.Timestamp(0)).dt.days.to_numpy()
    np.testing.assert_array_equal(seen["since"], days)
    for column in ("debt", "id", "hours"):
        np.testing.assert_array_equal(seen[column], test[column])
    for column in ("source", "extra"):
        assert run("encode", tmp_path / "run", tmp_path / "new.csv", *out, "--color", column) == 0
    assert [*seen["source"]] == [*fresh.source]
    np.testing.assert_allclose(seen["extra"], fresh.extra)
    fresh.assign(extra=np.inf).to_csv(tmp_path / "new.csv", index=False)
    said = assert_refused(capsys, "encode", tmp_path / "run", tmp_path / "new.csv", *out, "--color", "extra")
    assert "column 'extra', row 1: inf is not a finite number" in said


def test_a_fit_draws_its_table(fitted: tuple[Path, Path]):
    drawn = {path.name for path in (fitted[0] / "figures").iterdir()}
    assert {"columns.png", "pairs.png", "missing.png", "oddest.png", "latent_plane.png"} <= drawn


def test_a_model_is_compared_with_one_without_latents(fitted: tuple[Path, Path], capsys: pytest.CaptureFixture):
    folder, _ = fitted
    baseline = json.loads((folder / "evaluation.json").read_text())["baseline"]
    assert baseline["name"] == "one Gaussian for numbers, other columns by themselves"
    assert run("show", folder) == 0
    said = capsys.readouterr().out
    assert f"{baseline['log_px']:.3f} +- {baseline['log_px_se']:.3f}" in said
    assert "is not clearly higher than that of one Gaussian" in said, "after three epochs"


def test_samples_lack_cells_as_the_data_do(fitted: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    folder, data = fitted
    assert run("sample", folder, "-n", 2000, "--missing", "--out", tmp_path / "gaps.csv") == 0
    assert run("sample", folder, "-n", 2000, "--out", tmp_path / "whole.csv") == 0
    gaps, whole = (pd.read_csv(tmp_path / name, keep_default_na=True) for name in ("gaps.csv", "whole.csv"))
    original = pd.read_csv(data)
    assert not whole.isna().any().any()
    for column in whole:
        share = original[column].isna().mean()
        assert gaps[column].isna().mean() == pytest.approx(share, abs=5 * (0.25 / 120) ** 0.5 / 2 if share else 0)
    kept = gaps.notna()
    assert (gaps.where(kept) == whole.where(kept)).where(kept, True).all().all(), "the other cells are the same"


@pytest.mark.slow
def test_regret_is_a_second_score(fitted: tuple[Path, Path], tmp_path: Path):
    folder, _ = fitted
    few = people(150).head(6)
    few.loc[0, ["age", "debt"]] = [400.0, 1e7]
    few.to_csv(tmp_path / "few.csv", index=False)
    options = ["--regret", "--num-samples", 20, "--out", tmp_path / "scores.csv"]
    assert run("score", folder, tmp_path / "few.csv", *options) == 0
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert scores["regret"].idxmax() == 0
    assert scores["regret_p_value"][0] == scores["regret_p_value"].min() == pytest.approx(1 / 16)
