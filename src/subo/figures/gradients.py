"""Signal and noise of gradient estimators."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from numpy import ndarray

from subo.figures.style import BLUE, CLASS_COLORS, INK, PALE, as_text, legend_below, set_labels

__all__ = ["gradient_variances", "signal_to_noise_curves"]

_NAMES = {"phi": "φ, the posterior's parameters", "theta": "θ, the model's parameters"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def signal_to_noise_curves(
    num_samples: Sequence[int],
    curves: Mapping[str, Mapping[str, Shaped[ndarray, "3 K"]]],
    *,
    biased: Collection[str] = (),
) -> Figure:
    """Signal-to-noise ratio of gradients against the number of samples K, both on logarithmic axes.

    Args:
        num_samples: The values of K.
        curves: For each part, ``phi`` and ``theta``, every estimator's ratios and the ends of their 95% intervals; NaN
            where it has none. Where the interval reaches 0, the signal is lost in the noise and is left out.
        biased: Estimators to be dashed: a strong signal of another gradient than the bound's is no gain.

    Returns:
        One panel per part, on a common scale.
    """
    names = list(dict.fromkeys(name for of_part in curves.values() for name in of_part))
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels, seen = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0], [1.0]
    for axes, (part, of_part) in zip(panels, curves.items(), strict=True):
        axes.set_xscale("log")
        axes.set_yscale("log")
        for i, name in enumerate(names):
            ratios, low, high = of_part.get(name, np.full((3, len(num_samples)), np.nan))
            shown = np.isfinite(ratios) & np.isfinite(high) & (low > 0)
            seen += [*low[shown], *high[shown]]
            axes.errorbar(
                num_samples,
                np.where(shown, ratios, np.nan),
                np.where(shown, np.stack([ratios - low, high - ratios]), np.nan).clip(min=0),
                color=CLASS_COLORS[i % len(CLASS_COLORS)],
                marker=_MARKERS[i % len(_MARKERS)],
                ls=(0, (4, 2)) if name in biased else "-",
                ms=5,
                lw=1.6,
                elinewidth=1,
                label=_label(name, biased),
            )
        axes.set_xticks(num_samples, [str(count) for count in num_samples])
        axes.xaxis.set_minor_locator(NullLocator())
        set_labels(axes, _NAMES.get(part, part), "samples K", "signal-to-noise ratio" if axes is panels[0] else "")
        axes.grid(axis="y", color=PALE, lw=0.6)
    panels[0].set_ylim(*_decades(seen))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    legend_below(figure)
    return figure


def gradient_variances(variances: Mapping[str, Mapping[str, float]], *, biased: Collection[str] = ()) -> Figure:
    """Variance per parameter of gradients, one bar per estimator, on a logarithmic axis.

    Args:
        variances: For each part, ``phi`` and ``theta``, every estimator's variance; without a bar if not positive.
        biased: Estimators whose bars are hatched.

    Returns:
        One panel per part, on a common scale and with the estimators in the same order.
    """
    names = list(dict.fromkeys(name for of_part in variances.values() for name in of_part))
    found = {part: {n: v for n, v in of_part.items() if 0 < v < np.inf} for part, of_part in variances.items()}
    low, high = _decades([value for of_part in found.values() for value in of_part.values()] or [1.0])
    figure = Figure(figsize=(11, 1.6 + 0.34 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(variances), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (part, of_part) in zip(panels, found.items(), strict=True):
        axes.set_xscale("log")
        for i, name in enumerate(names):
            value = of_part.get(name, low)  # a logarithmic axis has no zero for bars to stand on
            style = {"hatch": "///", "color": PALE, "edgecolor": BLUE} if name in biased else {"color": BLUE}
            axes.barh(i, value - low, left=low, height=0.66, **style)
            text = f"{variances[part][name]:.2g}" if name in variances[part] else "–"
            axes.text(value, i, f" {text}", va="center", fontsize=9, color=INK)
        axes.set_yticks(range(len(names)), [_label(name, biased) for name in names])
        set_labels(axes, _NAMES.get(part, part), "variance per parameter", "")
        axes.tick_params(axis="y", length=0)
    panels[0].set_xlim(low, high * (high / low) ** 0.1)
    panels[0].xaxis.set_minor_formatter(NullFormatter())
    panels[0].invert_yaxis()
    return figure


def _label(name: str, biased: Collection[str]) -> str:
    return f"{as_text(name)} (biased)" if name in biased else as_text(name)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around positive values."""
    low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
    return float(10**low), float(10 ** max(high, low + 1))
