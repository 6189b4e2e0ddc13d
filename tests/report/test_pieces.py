"""Records are kept in files and come back as they were, whatever they consist of."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from subo.evaluation import Calibration, Gaps, PriorEstimate, Sandwich
from subo.report.pieces import Parts, joined, read_record, write_record


@dataclass(frozen=True)
class Inner:
    """A record in another."""

    value: float
    names: tuple[str, ...]
    tensor: Tensor


@dataclass(frozen=True)
class Outer:
    """A record with everything that a record may hold."""

    inner: Inner
    other: Inner | None
    number: float | None
    flag: bool
    tensor: Tensor | None


def gaps_of(log_px: list[float], **changes: Any) -> Gaps:
    values = torch.tensor(log_px, dtype=torch.float64)
    error = torch.full_like(values, 0.1)
    found = Gaps(values, error, ("importance",) * len(values), False, values - 3, error, values - 1, error, None, None)
    return replace(found, **changes)


RECORDS = [
    Outer(Inner(float("-inf"), ("a", "inf"), torch.arange(3)), None, None, True, torch.zeros(2, 3)),
    Outer(Inner(float("nan"), (), torch.eye(2)), Inner(0.1, ("b",), torch.ones(1)), 3.5, False, None),
    gaps_of([-5.0, float("nan")]),
    Sandwich(torch.zeros(2).double(), torch.ones(2).double(), None, "importance", 10),
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_as_it_was(record: Any, tmp_path: Path):
    write_record(tmp_path / "a.safetensors", record)
    again = read_record(tmp_path / "a.safetensors", type(record))
    assert type(again) is type(record)
    first, second = Parts.of(record), Parts.of(again)
    assert repr(first.values) == repr(second.values)  # nan is not equal to itself
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert tensor.dtype == second.tensors[name].dtype
        assert_close(second.tensors[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_a_file_under_another_name_or_of_another_kind_is_not_taken(tmp_path: Path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    write_record(one, RECORDS[2])
    two.write_bytes(one.read_bytes())
    assert read_record(one, Gaps) is not None
    assert read_record(two, Gaps) is None
    assert read_record(one, PriorEstimate) is None


def test_records_are_joined_along_their_data():
    parts = [PriorEstimate(*[torch.full((n,), float(n)).double()] * 4, num_samples=7) for n in (2, 3)]
    whole = joined(parts)
    assert whole.log_px.tolist() == [2, 2, 3, 3, 3]
    assert whole.num_samples == 7
    assert joined(parts[:1]) is parts[0]


def test_joined_gaps_keep_their_origins_and_lack_what_some_lack():
    first = gaps_of([-5.0, -6.0], log_px_from=("annealed", "importance"))
    richer = torch.tensor([-7.5], dtype=torch.float64)
    second = gaps_of([-7.0], elbo_richer=richer, elbo_richer_se=0 * richer)
    found = joined([first, second])
    assert found.log_px_from == ("annealed", "importance", "importance")
    assert found.log_px.tolist() == [-5, -6, -7]
    assert found.elbo_richer.isnan().tolist() == [True, True, False]
    assert found.elbo_richer[2] == -7.5
    assert joined([first, first]).elbo_richer is None


def test_joined_calibrations_are_those_of_all_ranks():
    torch.manual_seed(0)
    ranks = torch.randint(100, (300, 2))
    whole = Calibration.of(["z1", "z2"], ranks, num_bins=10)
    found = joined([Calibration.of(["z1", "z2"], part, num_bins=10) for part in ranks.split([100, 200])])
    assert torch.equal(found.counts, whole.counts)
    assert torch.equal(found.p_values, whole.p_values)
    assert found.readings == whole.readings


def test_gaps_of_examples_without_a_finite_bound_are_nan():
    found = gaps_of([-5.0, -6.0], log_px_from=("annealed", "annealed")).spread(torch.tensor([True, False, True]))
    assert_close(found.inference, torch.tensor([3.0, torch.nan, 3.0]).double(), equal_nan=True)
    assert found.log_px_from == ("annealed", "importance", "annealed")
    assert found.elbo_richer is None
    assert Gaps.unknown(2).inference.isnan().all()
    assert len(Gaps.unknown(2).finite().elbo) == 0


def test_annealing_takes_part_where_it_is_known():
    """It is much higher for the first, unknown for the second, and lower for the third."""
    nan = torch.nan
    found = gaps_of([-5.0, -6.0, -7.0])
    chains = torch.tensor([10.0, nan, 10.0]).double()
    better = found.with_annealing(
        torch.tensor([-4.0, nan, -9.0]).double(), torch.tensor([0.1, nan, 0.1]).double(), chains
    )
    assert better.log_px.tolist() == [-4, -7]
    assert better.log_px_from == ("annealed", "importance")
    assert better.annealed
    assert better.inference.tolist() == [4, 3]
    blank = torch.full((3,), nan).double()
    assert found.with_annealing(blank, blank, blank) is found
