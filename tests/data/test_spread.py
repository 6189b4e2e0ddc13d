"""Centers and units: those of the data where nothing lies far, and of the others where something does."""

import pytest
import torch

from subo.data.spread import center_and_units, far_rows


@pytest.mark.parametrize("event", [(3,), (1, 4, 5)], ids=["vectors", "images"])
def test_without_far_values_they_are_mean_and_standard_deviation(event):
    torch.manual_seed(0)
    x = 5 + 2 * torch.randn(500, *event)
    center, unit, fine = center_and_units(x, torch.Size(event))
    dims = 0 if len(event) == 1 else None
    torch.testing.assert_close(center, x.mean(dims))
    torch.testing.assert_close(unit, x.std(dims, correction=0))
    assert torch.equal(unit, fine)
    assert not far_rows(x).any()


@pytest.mark.parametrize(
    "column",
    [torch.randn(3000), torch.randn(3000).abs() * (torch.rand(3000) < 0.2), (torch.rand(3000) < 0.03).float()],
    ids=["normal", "mostly 0", "rarely 1"],
)
def test_one_far_cell_moves_them_by_little(column):
    clean, spoilt = column[:, None].clone(), column[:, None].clone()
    spoilt[7] = 1e6
    for before, after in zip(
        center_and_units(clean, torch.Size([1])), center_and_units(spoilt, torch.Size([1])), strict=True
    ):
        assert (after - before).abs() < 0.05 * center_and_units(clean, torch.Size([1]))[1]
    assert far_rows(spoilt).nonzero().tolist() == [[7]]


@pytest.mark.parametrize("event", [(1,), (1, 8, 8)], ids=["vectors", "images"])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_pixels_that_are_not_black_are_no_far_values(event: tuple[int, ...], share: float):
    """As in dequantized pictures of digits: most values lie within [0, 1), and the others up to 256."""
    torch.manual_seed(0)
    x = torch.rand(4000, *event) + 255 * (torch.rand(4000, *event) < share)
    center, unit, _ = center_and_units(x, torch.Size(event))
    torch.testing.assert_close(center.squeeze(), x.mean())
    torch.testing.assert_close(unit.squeeze(), x.std(correction=0))
    assert not far_rows(x).any()


def test_far_rows_of_many_are_those_by_the_units_of_all(monkeypatch: pytest.MonkeyPatch):
    """In every hundredth row, which is looked at first, a column is nearly constant: by its units all would be far."""
    torch.manual_seed(0)
    x = torch.randn(10_000, 3)
    x[::100, 1] = 1e-7 * torch.randn(100)
    x[7777, 2] = 1e6
    whole = far_rows(x)
    monkeypatch.setattr("subo.data.spread._SPREAD", 300)
    monkeypatch.setattr("subo.data.spread._ROWS", 100)
    assert whole.nonzero().tolist() == far_rows(x).nonzero().tolist() == [[7777]]
    assert not far_rows(x[:7000]).any()


@pytest.mark.parametrize("event", [(2,), (1, 2, 1)], ids=["vectors", "images"])
def test_rows_are_taken_from_the_whole_file(event, monkeypatch):
    monkeypatch.setattr("subo.data.spread._SORTED", 1000)
    torch.manual_seed(0)
    x = torch.randn(10_000, *event)
    x[:1000] /= 100
    unit = center_and_units(x, torch.Size(event))[1]
    torch.testing.assert_close(unit, x.std(0 if len(event) == 1 else None, correction=0))


@pytest.mark.parametrize("num, moved", [(500, 0.1006), (3000, 0.0168), (5000, 0.0101)])
def test_a_far_cell_moves_the_unit_by_about_fifty_over_the_rows(num, moved):
    torch.manual_seed(0)
    x = torch.randn(num, 50)
    spoilt = x.clone()
    spoilt[7] = 1e6
    before, after = (center_and_units(data, torch.Size([50]))[1] for data in (x, spoilt))
    assert (after / before - 1).mean() == pytest.approx(moved, rel=0.05)


def test_a_shift_and_a_factor_go_through_them():
    torch.manual_seed(0)
    x = torch.distributions.StudentT(1.5).sample((1000, 2))
    (center, unit, _), (moved, scaled, _) = (
        center_and_units(x, torch.Size([2])),
        center_and_units(4 * x + 8, torch.Size([2])),
    )
    torch.testing.assert_close(moved, 4 * center + 8)
    torch.testing.assert_close(scaled, 4 * unit)


@pytest.mark.parametrize("value", [0.1, -3.0, 0.0, 2020.0, 1e-30])
def test_a_constant_has_a_unit_of_its_own_size_and_a_likelihood_of_a_thousandth(value):
    x = torch.full((7, 1), value)  # whose standard deviation in float32 need not be 0
    center, unit, fine = center_and_units(x, torch.Size([1]))
    assert center == torch.tensor(value)
    assert unit == pytest.approx(abs(value) if abs(value) > 1e-30 else 1)
    assert fine == pytest.approx(unit.item() / 1000)
