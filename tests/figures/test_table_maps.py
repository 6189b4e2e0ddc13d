"""Maps of tables: associations against SciPy, and what the pictures show."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import contingency, f_oneway, rankdata, spearmanr

from subo import figures
from subo.errors import InputError
from subo.figures.table_maps import association

RNG = np.random.default_rng(0)
NUMBER = RNG.normal(size=200).round(1)
OTHER = NUMBER**3 + RNG.normal(size=200)
LEVEL = (NUMBER + RNG.normal(size=200) > 0).astype(float) + (RNG.random(200) < 0.3)
SECOND = np.where(RNG.random(200) < 0.5, LEVEL, RNG.integers(3, size=200))


def test_two_numbers_have_the_absolute_rank_correlation():
    exact = abs(spearmanr(NUMBER, OTHER).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    assert association(NUMBER, OTHER, levels=(False, False)) == pytest.approx(exact)
    assert association(NUMBER, -OTHER, levels=(False, False)) == pytest.approx(exact)


def test_two_columns_of_levels_have_the_v_of_cramer():
    table = contingency.crosstab(LEVEL, SECOND).count  # pyright: ignore[reportAttributeAccessIssue]
    exact = contingency.association(table, method="cramer")
    assert association(LEVEL, SECOND, levels=(True, True)) == pytest.approx(exact)


def test_a_number_and_levels_have_the_correlation_ratio_of_ranks():
    groups = [rankdata(NUMBER)[level == LEVEL] for level in np.unique(LEVEL)]
    statistic = f_oneway(*groups).statistic
    between, within = len(groups) - 1, len(LEVEL) - len(groups)
    exact = np.sqrt(statistic * between / (statistic * between + within))
    assert association(NUMBER, LEVEL, levels=(False, True)) == pytest.approx(exact)
    assert association(LEVEL, NUMBER, levels=(True, False)) == pytest.approx(exact)


def test_missing_cells_are_left_out_and_constant_columns_have_none():
    gappy = NUMBER.copy()
    gappy[:50] = np.nan
    exact = association(NUMBER[50:], OTHER[50:], levels=(False, False))
    assert association(gappy, OTHER, levels=(False, False)) == exact
    assert np.isnan(association(np.ones(200), OTHER, levels=(False, False)))
    assert np.isnan(association(np.full(200, np.nan), OTHER, levels=(False, False)))


def texts(figure: Figure) -> str:
    return " ".join(axes.get_title(loc="left") for axes in figure.axes)


def test_pairs_are_shown_in_data_in_samples_and_their_difference():
    data = {"number": NUMBER, "level": LEVEL, "other": OTHER}
    shuffled = {**data, "other": RNG.permutation(OTHER)}
    figure = figures.associations(data, shuffled, levels=["level"])
    real, drawn, away = (axes.images[0].get_array() for axes in figure.axes[:3])
    assert real is not None
    assert drawn is not None
    assert away is not None
    assert real[0, 2] == pytest.approx(association(NUMBER, OTHER, levels=(False, False)))
    assert away[2, 0] == pytest.approx(drawn[2, 0] - real[2, 0])
    assert away[1, 0] == 0
    assert "samples - data" in texts(figure)
    with pytest.raises(InputError, match="the same columns"):
        figures.associations(data, {"number": NUMBER})


def test_missing_cells_lie_together_by_pattern():
    missing = np.zeros((100, 3), dtype=bool)
    missing[::3, 1] = True
    missing[1, 0] = True
    figure = figures.missing_cells(missing, names=["a", "b", "c"])
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert not shown[:65].any(), "the complete rows, which are the most, come first"
    assert (shown[65:99] == [0, 1, 0]).all()
    assert "11.7% of all, in 3 patterns; 65% of rows complete" in texts(figure)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["a 1%", "b 34%", "c"]


def test_odd_cells_are_dark():
    figure = figures.odd_cells(
        [["1", "x"], ["2", ""]],
        np.array([[0.1, 2.5], [3.0, np.nan]]),
        names=["n", "l"],
        rows=["row 5", "row 7"],
        log_px=[-9.5, -8.0],
    )
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "x", "2", ""]
    assert [text.get_color() == "white" for text in axes.texts] == [False, True, True, False]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["row 5: -9.5 nats", "row 7: -8.0 nats"]
