"""Results show themselves: the numbers of a record, aligned, escaped, as JSON and as a data frame."""

import json
import math
from dataclasses import asdict, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from subo import Objective, Split, compare, evaluate, fit, probabilistic_pca
from subo.evaluation import Comparison, Evaluation, Gaps
from subo.evaluation.numbers import LIKELY, LOSS, Number
from subo.evaluation.results import Result, Table, rows_of
from subo.files.nonfinite import decoded
from subo.report import Depth, Findings, evaluate_fully
from subo.runtime.digits import in_digits
from subo.training.history import History


class Cells(HTMLParser):
    """The cells of a table, and whether every tag is closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def data(count: int = 20) -> torch.Tensor:
    return torch.linspace(-1, 1, 5 * count).reshape(count, 5).double()


def evaluation(**changes: Any) -> Evaluation:
    return replace(evaluate(probabilistic_pca(5, 2).double(), data(), num_samples=10), **changes)


def comparison() -> Comparison:
    models = {name: probabilistic_pca(5, 2).double() for name in ("one", "<b>two</b>")}
    with torch.no_grad():
        models["<b>two</b>"].likelihood.log_scale.fill_(0.4)
    return compare(models, data(), num_samples=10)


def gaps() -> Gaps:
    log_px = torch.tensor([-4.0, -5.0, -math.inf]).double()
    elbo = torch.tensor([-6.0, -6.0, -7.0]).double()
    error = torch.full((3,), 0.1).double()
    origins = ("importance", "annealed", "importance")
    return Gaps(log_px, error, origins, True, elbo, error, elbo + 0.5, error, None, None, num_samples=50)


def history() -> History:
    objective = Objective(probabilistic_pca(5, 2))
    return fit(objective, data(40).float(), validation=data(10).float(), epochs=25)


def findings() -> Findings:
    depth = Depth(num_samples=20, intensive_data=2, temperatures=2, chains=2, gap_steps=2, calibration_data=100)
    return evaluate_fully(probabilistic_pca(5, 2).double(), Split(data()), depth=depth)


MAKERS = [evaluation, comparison, gaps, history, findings]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def result(request: pytest.FixtureRequest) -> Result:
    torch.manual_seed(0)
    return request.param()


def test_text_and_html_hold_the_same_cells(result: Result):
    table = result.table()
    lines = repr(result).splitlines()
    assert lines[0] == table.title
    assert not any(line != line.rstrip() for line in lines)
    cells = [[cell.strip() for cell in row] for row in Cells(result._repr_html_()).rows]
    assert len(cells) == len(table.rows) + 1 == len(lines) - 1 - len(table.notes)
    for row, line in zip(cells, lines[1:], strict=False):
        assert all(cell in line for cell in row)


def test_a_dictionary_is_json_and_holds_plain_values(result: Result):
    record = result.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_frame_has_the_records(result: Result):
    frame = result.to_frame()
    records = result.records()
    assert len(frame) == len(records) > 0
    for name in records[0]:
        for value, record in zip(frame[name], records, strict=True):
            missing = record[name] is None or record[name] != record[name]
            assert (value is None or value != value) if missing else value == record[name]


def test_an_evaluations_values_are_those_of_its_fields():
    found = evaluation(log_px=-22.3841, log_px_se=0.2612, num_samples=1000)
    assert decoded(found.to_dict()) == json.loads(json.dumps(asdict(found)))
    assert found.to_dict()["at_floor"] is None
    line = next(line for line in repr(found).splitlines() if line.startswith("log p(x)"))
    assert line.split() == ["log", "p(x)", "-22.38", "±", "0.26", "nats", "importance", "sampling", "1,000"]
    (row,) = found.records()
    assert row["log_px"] == found.log_px
    assert (row["rate"], row["rate_se"]) == (found.rate, found.rate_se)


def test_infinite_means_are_shown_and_explained():
    changes: dict[str, Any] = {"log_px": -math.inf, "log_px_se": math.nan, "num_not_finite": 2}
    found = evaluation(**changes, log_px_finite=-3.0, log_px_finite_se=0.5)
    assert found.to_dict()["log_px"] == "-inf"
    assert found.to_dict()["log_px_se"] == "nan"
    assert found.records()[0]["log_px"] == -math.inf
    text = repr(found)
    assert "-inf" in next(line for line in text.splitlines() if line.startswith("log p(x)"))
    assert "log p(x) of 2 of 20 examples is not finite" in text
    assert "-3.00 +- 0.50" in text


def test_a_comparisons_differences_are_in_its_table():
    torch.manual_seed(0)
    found = comparison()
    difference = found.rows[1].log_px_difference
    assert difference is not None
    table = found.table()
    assert table.rows[0][-2:] == ("", "")
    mean, error = table.rows[1][-2].split(" ± ")
    assert float(mean) == pytest.approx(difference.mean, abs=10 ** -len(mean.split(".")[1]))
    assert float(error) == pytest.approx(difference.standard_error, abs=10 ** -len(error.split(".")[1]))
    assert found.to_dict()["rows"][0]["log_px_difference"] is None
    assert "<b>two</b>" in repr(found)
    assert "b" not in Cells(found._repr_html_()).tags
    assert any("<b>two</b>" in row for row in Cells(found._repr_html_()).rows)


def test_means_over_seeds_are_told_below_a_comparison():
    torch.manual_seed(0)
    models = {f"run {seed}": probabilistic_pca(5, 2).double() for seed in range(3)}
    found = compare(models, data(), num_samples=10, settings={"two": ["run 0", "run 1"], "one": ["run 2"]})
    mean, alone = found.over_seeds
    two, one = found.table().notes
    assert two.startswith("Mean of 2 runs as two")
    assert " ± ".join(in_digits(mean.log_px.mean, mean.log_px.standard_error)) in two
    assert one.count("±") == 1, "a single run has no error over seeds"
    assert in_digits(alone.elbo.mean, None)[0] in one


def test_gaps_are_shown_over_finite_examples_and_listed_for_all():
    found = gaps()
    gap = next(line for line in repr(found).splitlines() if line.startswith("inference gap"))
    assert "1.50 ± 0.50    nats  with the better log p(x)" in gap
    assert gap.split()[-2:] == ["50", "2"]
    assert "Left out: 1 of 3 examples" in repr(found)
    frame = found.to_frame()
    assert frame["log_px_from"].tolist() == list(found.log_px_from)
    np.testing.assert_array_equal(frame["inference"], found.inference)
    assert found.to_dict()["inference"] == [2.0, 1.0, "-inf"]
    assert found.to_dict()["elbo_richer"] is None


def test_a_history_shows_its_first_last_and_best_epoch():
    torch.manual_seed(0)
    found = history()
    shown = [row[0] for row in found.table().rows]
    assert {"1", "25", str(found.best_epoch)} <= set(shown)
    assert 9 <= len(shown) <= 12
    frame = found.to_frame()
    assert frame["train_elbo"].tolist() == [epoch.train.elbo for epoch in found.epochs]
    assert frame["validation_rate"].tolist() == [epoch.validation.rate for epoch in found.epochs if epoch.validation]
    record = found.to_dict()
    assert record["epochs"][3]["train"]["bound"] == found.epochs[3].train.bound
    assert record["best_epoch"] == found.best_epoch


@pytest.mark.slow
def test_findings_are_shown_under_their_questions():
    torch.manual_seed(0)
    found = findings()
    lines = repr(found).splitlines()
    assert [lines.index(section) for section in ("How likely", "What the latents carry")]
    numbers = found.numbers()
    assert [row["name"] for row in found.to_dict()["numbers"]] == [number.name for number in numbers]
    assert found.to_frame()["value"].tolist() == [number.value for number in numbers]


def test_values_stand_above_each_other_and_sections_over_their_lines():
    numbers = [
        Number(LIKELY, "a", -123.456, 1.234, "nats", "one way", 10, 1000),
        Number(LIKELY, "b", 0.5, 0.25, "nats", "another"),
        Number(LOSS, "c", 3.0, None, "", ""),
    ]
    assert Table("t", ("", "value", "unit", "how", "K", "n"), rows_of(numbers, sections=True)).text().splitlines() == [
        "t",
        "                           value  unit  how       K      n",
        "How likely",
        "  a                -123.5 ± 1.2   nats  one way  10  1,000",
        "  b                  0.50 ± 0.25  nats  another",
        "Where the loss is",
        "  c                     3",
    ]


def test_a_column_without_a_value_is_left_out():
    assert Table("t", ("", "value", "unit"), (("a", "1", ""),)).text().splitlines()[1].split() == ["value"]
