"""Missing cells: how far best guesses are from the hidden cells, and how often intervals hold the mean they are for.

*error*: The tables and hidden cells of HI-VAE (Nazabal et al., 2020), and its measure: of numbers the root mean square
error divided by the column's range, of nominal columns the share of wrong levels, of ordinal ones the mean distance
between levels divided by their number; then the mean over columns. All methods see only the observed cells, and the
kinds of columns that come with the tables. Of Adult, subo sees all rows, KNN 1,000 and the iterative imputers 5,000.

*coverage*: Nominal 95% intervals for the means of columns half of whose cells are missing completely at random, by 20
filled tables and Rubin's rules, beside those of the observed cells alone. In *synthetic*, 500 rows are drawn anew for
each mask from a mixture of two Gaussians, and the target is the mean of the population: 95% is exact for complete data.
In *wine*, the target is the mean of the complete table, as in published rows. The rows are the same whatever is hidden,
so that intervals that add a complete table's variance, as Rubin's rules do, are too wide for it: *strict* ones count
the variance between the filled tables alone. For the nominal coverage a method must also know how uncertain its own
parameters are: *refits* are draws from models that were fitted to bootstrap samples of the rows, pooled as nested ones.

    python benchmarks/imputation.py error --tables Breast Wine Adult
    python benchmarks/imputation.py synthetic [--epochs 100]
    python benchmarks/imputation.py wine

With --keep FILE each finished piece is added to that file, and those that are there are not computed again.
"""

import argparse
import json
import math
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student_t
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

import subo

KINDS = {"cat": "category", "pos": "positive", "count": "count", "ordinal": "ordinal", "real": "real"}
PUBLISHED = "MICE .44, VAEAC .47, MIWAE .71, not-MIWAE .57, U-VAE .80"
DRAWS, REFITS, LEVEL, SYNTHETIC_ROWS = 20, 5, 0.95, 500


@dataclass(frozen=True, eq=False)
class Table:
    """Cells of a table, numbers and codes of levels, and the kind of each column."""

    name: str
    cells: np.ndarray
    kinds: list[str]

    def frame(self, hidden: np.ndarray) -> pd.DataFrame:
        """The table as people have it, without the hidden cells."""
        names = pd.Index([f"x{number + 1}" for number in range(self.cells.shape[1])])
        return pd.DataFrame(np.where(hidden, np.nan, self.cells), columns=names)

    def levels(self, column: int) -> np.ndarray:
        cells = self.cells[:, column]
        return np.unique(cells[~np.isnan(cells)])


def hivae(name: str) -> Table:
    folder = Path(os.environ["SUBO_DATA"], "hivae", name)
    cells = pd.read_csv(folder / "data.csv.gz", header=None).to_numpy(float)
    return Table(name, cells, [KINDS[kind] for kind in pd.read_csv(folder / "data_types.csv.gz")["type"]])


def hidden_cells(table: Table, percent: int) -> np.ndarray:
    path = Path(os.environ["SUBO_DATA"], "hivae", table.name, f"Missing{percent}_1.csv.gz")
    rows, columns = pd.read_csv(path, header=None).to_numpy().T - 1
    hidden = np.zeros(table.cells.shape, bool)
    hidden[rows, columns] = True
    return hidden


def autoencoder(
    table: Table, frame: pd.DataFrame, num_samples: int, seed: int, given: bool = True, epochs: Any = "auto"
) -> subo.VariationalAutoencoder:
    """A fit by the defaults. A column with a 0 cannot be log-normal: of such ones subo decides the kind."""
    asked = dict(zip(frame.columns, table.kinds, strict=True)) if given else {}
    asked = {name: kind for name, kind in asked.items() if kind != "positive" or frame[name].min() > 0}
    vae = subo.VariationalAutoencoder(columns=asked, evaluation_samples=num_samples, epochs=epochs, random_state=seed)
    return vae.fit(frame)


Fill = Callable[[Table, pd.DataFrame], np.ndarray]


class Coding:
    """Levels of nominal columns but the first as indicators, all else as numbers; standardized, for scikit-learn.

    With an indicator of the first level, too, each would follow exactly from the others, which are missing where it is.
    """

    def __init__(self, table: Table):
        self.table = table

    def encoded(self, frame: pd.DataFrame) -> np.ndarray:
        parts = []
        for j, kind in enumerate(self.table.kinds):
            cells = frame.to_numpy()[:, [j]]
            indicators = np.where(np.isnan(cells), np.nan, cells == self.table.levels(j)[1:])
            parts.append(indicators if kind == "category" else cells)
        self.widths = [part.shape[1] for part in parts]
        x = np.hstack(parts)
        self.center, self.unit = np.nanmean(x, 0), np.maximum(np.nanstd(x, 0), 1e-9)
        return (x - self.center) / self.unit

    def decoded(self, x: np.ndarray) -> np.ndarray:
        parts = np.split(x * self.unit + self.center, np.cumsum(self.widths)[:-1], 1)
        columns = []
        for j, (kind, part) in enumerate(zip(self.table.kinds, parts, strict=True)):
            levels = self.table.levels(j)
            if kind == "category":
                columns.append(levels[np.hstack([1 - part.sum(1, keepdims=True), part]).argmax(1)])
            elif kind == "ordinal":
                columns.append(part[:, 0].round().clip(levels[0], levels[-1]))
            else:
                columns.append(part[:, 0])
        return np.stack(columns, 1)


def by_means(table: Table, frame: pd.DataFrame) -> np.ndarray:
    filled = frame.fillna(frame.mean())
    leveled = [name for name, kind in zip(frame, table.kinds, strict=True) if kind in ("category", "ordinal")]
    filled[leveled] = frame[leveled].fillna(frame[leveled].mode().iloc[0])  # pyright: ignore[reportCallIssue, reportArgumentType]
    return filled.to_numpy()


def by_subo(table: Table, frame: pd.DataFrame, *, num_samples: int, given: bool) -> np.ndarray:
    return autoencoder(table, frame, num_samples, 0, given).impute(frame).to_numpy()


def by_medians(table: Table, frame: pd.DataFrame, *, num_samples: int) -> np.ndarray:
    """The best guesses of the same fit, but of ordinal columns the median of draws: it minimizes the mean distance."""
    vae = autoencoder(table, frame, num_samples, 0)
    medians = np.median(np.stack([draw.to_numpy() for draw in vae.impute(frame, draws=100)]), 0)
    return np.where([kind == "ordinal" for kind in table.kinds], medians.round(), vae.impute(frame).to_numpy())


def by_sklearn(table: Table, frame: pd.DataFrame, *, imputer: Any, most_rows: int) -> np.ndarray:
    coding = Coding(table)
    x = coding.encoded(frame)
    rows = np.random.default_rng(0).permutation(len(x))[:most_rows]
    return coding.decoded(imputer.fit(x[rows]).transform(x))


def methods(table: Table, num_samples: int) -> dict[str, Fill]:
    large = len(table.cells) > 10_000
    most, neighbors = (5000, 1000) if large else (len(table.cells), len(table.cells))
    settings: dict[str, Any] = {"min_samples_leaf": 5, "max_features": "sqrt", "random_state": 0}
    trees = ExtraTreesRegressor(10, **settings)
    return {
        "mean or most frequent level": by_means,
        "KNN, k = 5": partial(by_sklearn, imputer=KNNImputer(n_neighbors=5), most_rows=neighbors),
        "iterative, linear": partial(by_sklearn, imputer=IterativeImputer(random_state=0), most_rows=most),
        "iterative, extra trees": partial(
            by_sklearn, imputer=IterativeImputer(trees, max_iter=5, random_state=0), most_rows=most
        ),
        "subo": partial(by_subo, num_samples=num_samples, given=True),
        "subo, medians of ordinals": partial(by_medians, num_samples=num_samples),
        "subo, kinds as it takes them": partial(by_subo, num_samples=num_samples, given=False),
    }


def errors(table: Table, filled: np.ndarray, hidden: np.ndarray) -> list[float]:
    """HI-VAE's error of each column."""
    result = []
    for j, kind in enumerate(table.kinds):
        rows = hidden[:, j] & ~np.isnan(table.cells[:, j])
        true, guess, levels = table.cells[rows, j], filled[rows, j], table.levels(j)
        if kind == "category":
            result.append(float((true != guess).mean()))
        elif kind == "ordinal":
            result.append(float(np.abs(true - guess).mean() / len(levels)))
        else:
            result.append(float(np.sqrt(np.square(true - guess).mean()) / (levels[-1] - levels[0])))
    return result


def measured(table: Table, frame: pd.DataFrame, hidden: np.ndarray, fill: Fill) -> dict[str, Any]:
    return {"errors": errors(table, fill(table, frame), hidden)}


class Kept:
    """Finished pieces, in a file if there is one."""

    def __init__(self, path: Path | None):
        self.path, self.pieces = path, {}
        if path is not None and path.exists():
            self.pieces = {piece["key"]: piece for piece in map(json.loads, path.read_text().splitlines())}

    def piece(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A piece, computed if it is not there, with its seconds."""
        if key not in self.pieces:
            started = time.perf_counter()
            self.pieces[key] = {"key": key, **compute(), "seconds": time.perf_counter() - started}
            if self.path is not None:
                with self.path.open("a") as file:
                    print(json.dumps(self.pieces[key]), file=file, flush=True)
        return self.pieces[key]


def of_errors(options: argparse.Namespace, kept: Kept) -> None:
    print("error by HI-VAE's measure, mean over columns, and of the columns of each kind")
    for name in options.tables:
        table = hivae(name)
        kinds = [kind for kind in KINDS.values() if kind in table.kinds]
        heads = "".join(f"{f'{kind} ({table.kinds.count(kind)})':>15}" for kind in kinds)
        print(f"\n{f'{name}, {len(table.cells):,} rows':30}{'hidden':>8}{'error':>8}{heads}{'seconds':>9}")
        for percent in options.percent:
            hidden = hidden_cells(table, percent)
            frame = table.frame(hidden)
            for method, fill in methods(table, options.num_samples).items():
                if method in options.without:
                    continue
                key = f"{name} {percent} {method} {options.num_samples if 'subo' in method else ''}"
                found = kept.piece(key, partial(measured, table, frame, hidden, fill))
                of = np.array(found["errors"])
                means = [of[[kind == own for own in table.kinds]].mean() for kind in kinds]
                cells = "".join(f"{mean:15.4f}" for mean in means)
                print(f"{method:30}{percent:7}%{of.mean():8.4f}{cells}{found['seconds']:9.1f}", flush=True)


def population(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """500 rows of a mixture of two correlated Gaussians in five columns, and their mean in the population."""
    shape = np.random.default_rng(1)  # the same for every mask
    means = shape.normal(0, 1.5, (2, 5))
    factors = shape.normal(0, 1, (2, 5, 2))
    part = (rng.random(SYNTHETIC_ROWS) < 0.35).astype(int)
    noise = 0.6 * rng.normal(size=(SYNTHETIC_ROWS, 5))
    x = means[part] + np.einsum("ijk,ik->ij", factors[part], rng.normal(size=(SYNTHETIC_ROWS, 2))) + noise
    return x, 0.65 * means[0] + 0.35 * means[1]


def tables_of_subo(
    table: Table, frame: pd.DataFrame, num_samples: int, seed: int, *, epochs: Any, refits: int | None
) -> np.ndarray:
    vae = autoencoder(table, frame, num_samples, seed, given=table.name != "synthetic", epochs=epochs)
    return np.stack([draw.to_numpy() for draw in vae.impute(frame, draws=DRAWS, refits=refits)])


def tables_of_mice(table: Table, frame: pd.DataFrame, num_samples: int, seed: int) -> np.ndarray:
    draws = (IterativeImputer(sample_posterior=True, random_state=DRAWS * seed + k) for k in range(DRAWS))
    return np.stack([np.asarray(draw.fit_transform(frame.to_numpy())) for draw in draws])


def intervals(method: str, fill: Callable[..., np.ndarray], *given: Any) -> dict[str, Any]:
    return pooled_intervals(fill(*given), REFITS if method == REFITTED else None)


def pooled_intervals(filled: np.ndarray, refits: int | None) -> dict[str, Any]:
    """Means, and half-widths by Rubin's rules (`rubin`) and by the variance between the tables alone (`strict`)."""
    estimates, variances = filled.mean(1), filled.var(1, ddof=1) / filled.shape[1]
    result: dict[str, Any] = {"mean": estimates.mean(0).tolist(), "rubin": [], "strict": []}
    for j in range(filled.shape[2]):
        whole = subo.pooled(estimates[:, j], variances[:, j], complete_degrees=filled.shape[1] - 1, refits=refits)
        between = subo.pooled(estimates[:, j], np.zeros(len(filled)), refits=refits)
        result["rubin"].append(whole.interval(LEVEL)[1] - whole.mean)
        result["strict"].append(between.interval(LEVEL)[1] - between.mean)
    return result


def observed_intervals(frame: pd.DataFrame) -> dict[str, Any]:
    """Those of the observed cells alone; `strict` ones by the correction for finite populations."""
    count = frame.notna().sum().to_numpy()
    reach = student_t.ppf((1 + LEVEL) / 2, count - 1) * frame.std().to_numpy() / np.sqrt(count)
    strict = reach * np.sqrt(1 - count / len(frame))
    return {"mean": frame.mean().tolist(), "rubin": reach.tolist(), "strict": strict.tolist()}


REFITTED = f"subo, {REFITS} refits"


def of_coverage(what: str, options: argparse.Namespace, kept: Kept) -> None:
    target = "population" if what == "synthetic" else "complete table"
    print(
        f"coverage of nominal {LEVEL:.0%} intervals for the {target}'s means, half of the cells missing, {DRAWS} draws"
    )
    fills = {
        "subo": partial(tables_of_subo, epochs=options.epochs, refits=None),
        REFITTED: partial(tables_of_subo, epochs=options.epochs, refits=REFITS),
        "MICE (linear)": tables_of_mice,
    }
    fills = {method: fill for method, fill in fills.items() if method not in options.without}
    found: dict[str, list[dict[str, Any]]] = {"observed cells alone": [], **{method: [] for method in fills}}
    truths = []
    for mask in range(options.masks):
        rng = np.random.default_rng([mask, 7])
        if what == "synthetic":
            x, truth = population(rng)
            table = Table("synthetic", x, ["real"] * x.shape[1])
        else:
            table = hivae("Wine")
            truth = table.cells.mean(0)
        frame = table.frame(rng.random(table.cells.shape) < 0.5)
        truths.append(truth)
        found["observed cells alone"].append({**observed_intervals(frame), "seconds": 0.0})
        for method, fill in fills.items():
            epochs = "" if options.epochs == "auto" else f", {options.epochs} epochs"
            key = f"{what} {mask} {method} {f'{options.num_samples}{epochs}' if 'subo' in method else ''}"
            piece = kept.piece(key, partial(intervals, method, fill, table, frame, options.num_samples, mask))
            found[method].append(piece)
            held = [f"{int(held_by(piece, truth, kind).sum())}/{len(truth)}" for kind in ("rubin", "strict")]
            print(
                f"  mask {mask + 1:2}  {method:16}{' '.join(held)}{piece['seconds']:8.1f} s",
                file=sys.stderr,
                flush=True,
            )
    for kind in ("rubin",) if what == "synthetic" else ("rubin", "strict"):
        name = "by Rubin's rules" if kind == "rubin" else "strict: by the variance between filled tables alone"
        print(f"\n{name}\n{'':24}coverage  binomial error  over masks   width  errors / claimed  seconds  each column")
        for method, pieces in found.items():
            print(f"{method:24}{summary(pieces, np.stack(truths), kind, found['observed cells alone'])}", flush=True)
    if what == "wine":
        print(f"\npublished, 11 other tables, 5 seeds, half of the cells missing: {PUBLISHED}")


def held_by(piece: dict[str, Any], truth: np.ndarray, kind: str) -> np.ndarray:
    return np.abs(np.array(piece["mean"]) - truth) <= np.array(piece[kind])


def summary(pieces: list[dict[str, Any]], truths: np.ndarray, kind: str, alone: list[dict[str, Any]]) -> str:
    """Coverage with its errors; the width in that of the observed cells; the size of errors in what is claimed."""
    held = np.stack([held_by(piece, truth, kind) for piece, truth in zip(pieces, truths, strict=True)])
    share, of_masks = held.mean(), held.mean(1)
    binomial = math.sqrt(share * (1 - share) / held.size)
    masks = of_masks.std(ddof=1) / math.sqrt(len(held)) if len(held) > 1 else math.nan
    reach, means = (np.array([piece[name] for piece in pieces]) for name in (kind, "mean"))
    width = (reach / np.array([piece[kind] for piece in alone])).mean()
    ratio = np.sqrt(np.square(1.96 * (means - truths) / reach).mean())
    seconds = np.mean([piece["seconds"] for piece in pieces])
    columns = " ".join(f"{100 * column:.0f}" for column in held.mean(0))
    return f"{share:8.1%}{binomial:16.1%}{masks:12.1%}{width:8.2f}{ratio:18.2f}{seconds:9.1f}  {columns}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("error", "synthetic", "wine"))
    parser.add_argument("--tables", nargs="+", default=["Breast", "Wine", "Adult"])
    parser.add_argument("--percent", nargs="+", type=int, default=[10, 30, 50])
    parser.add_argument("--without", nargs="+", default=[], help="methods to leave out")
    parser.add_argument("--masks", type=int, default=20)
    parser.add_argument("--epochs", type=lambda text: text if text == "auto" else int(text), default="auto")
    parser.add_argument("--num-samples", type=int, default=1000, help="samples of z for each row")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of imputers that have not converged, and rows without observed cells
    print(f"$ python benchmarks/imputation.py {shlex.join(sys.argv[1:])}")
    kept = Kept(options.keep)
    if options.part == "error":
        of_errors(options, kept)
    else:
        of_coverage(options.part, options, kept)


if __name__ == "__main__":
    main()
