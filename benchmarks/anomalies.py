"""Anomalies in tables: -log p(x) of the estimator with its defaults, beside scikit-learn's detectors.

The semi-supervised protocol of Livernoche et al. (2024) on sets of ADBench (Han et al., 2022): half of the normal rows
train, the other half and all anomalies are ranked, and the area under the ROC curve is that of this ranking. Every set
gets the same setting, that of ``subo.VariationalAutoencoder()``. KNN is the distance to the 5th neighbor in columns
that are standardized by the training rows. With --table the estimator receives a frame, so that each column has the
kind that its cells suggest (counts, levels, a frequent value beside numbers). The sets are the folder adbench in
$SUBO_DATA. A set and seed whose numbers are in --out is not computed again.

    python benchmarks/anomalies.py --seeds 1 --out runs/anomalies.csv
"""

import argparse
import csv
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import subo
from subo.data import Split
from subo.data.tables.coding import encode
from subo.evaluation.own_units import log_slopes

FOLDER = Path(os.environ.get("SUBO_DATA", "data")) / "adbench"
TRAINING_ROWS, TEST_ROWS, NUM_SAMPLES = 5000, 10_000, 100
DETECTORS = "subo", "KNN", "IForest"
ABOUT = "likelihood", "epochs", "constant", "outside", "seconds"
FIELDS: list[str] = ["set", "seed", "rows", "columns", "tested", *DETECTORS, *ABOUT]


def divided(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, test rows, and which of these are anomalies.

    Of many test rows, anomalies stay up to half of `TEST_ROWS`: the area does not depend on their share.
    """
    table = np.load(FOLDER / f"{name}.npz")
    x, odd = table["X"].astype(np.float64), table["y"] == 1
    generator = np.random.default_rng(seed)
    normal, anomalies = (generator.permutation(np.flatnonzero(which)) for which in (~odd, odd))
    half = len(normal) // 2
    anomalies = anomalies[: TEST_ROWS // 2]
    tested = np.concatenate([normal[half:][: TEST_ROWS - len(anomalies)], anomalies])
    return x[normal[:half][:TRAINING_ROWS]], x[tested], odd[tested]


def by_table(
    train: np.ndarray, test: np.ndarray, seed: int, *, densities: bool, constants: bool
) -> tuple[np.ndarray, dict[str, object]]:
    """``-log p(x)`` of rows of a table of mixed columns, in the columns' own units or as it is, and what was fitted."""
    names = [f"x{column}" for column in range(train.shape[1])]
    kinds = {name: "category" for name, column in zip(names, train.T, strict=True) if constants and len({*column}) == 1}
    model = subo.VariationalAutoencoder(random_state=seed, evaluation_samples=NUM_SAMPLES, columns=kinds or None)
    frame, schema = pd.DataFrame(test, columns=names), model.fit(pd.DataFrame(train, columns=names)).schema_
    assert schema is not None
    slopes = log_slopes(model.model_, Split(encode(frame, schema))).sum(1).numpy()
    surprisal = slopes * (not densities) - model.score_samples(frame)
    found = Counter(column.kind for column in schema.modeled)
    said = ", ".join(f"{count} {kind}" for kind, count in found.most_common())
    about = {"likelihood": said, "epochs": model.n_iter_, "outside": int(np.isinf(surprisal).sum())}
    return np.nan_to_num(surprisal, nan=np.nan, posinf=np.finfo(float).max), about


def by_subo(train: np.ndarray, test: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, object]]:
    """``-log p(x)``, and what is worth knowing about the fit."""
    model = subo.VariationalAutoencoder(random_state=seed).fit(train)
    scores = subo.evaluation.score(
        model.model_, Split(torch.tensor(test).float()), num_samples=NUM_SAMPLES, seed=seed, pareto=False
    )
    surprisal = -scores.log_px.numpy()  # infinite outside the likelihood's support
    about = {"likelihood": model.likelihood_, "epochs": model.n_iter_, "outside": int(np.isinf(surprisal).sum())}
    return np.nan_to_num(surprisal, nan=np.nan, posinf=np.finfo(float).max), about


def by_knn(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    scaler = StandardScaler().fit(train)
    distances, _ = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train)).kneighbors(scaler.transform(test))
    return distances[:, -1]


def by_forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


def measured(name: str, seed: int, *, table: bool, densities: bool, constants: bool, unit: float) -> dict[str, object]:
    """The areas, in percent, of one set and seed."""
    train, test, odd = divided(name, seed)
    started = time.perf_counter()
    if table:
        surprisal, about = by_table(train / unit, test / unit, seed, densities=densities, constants=constants)
    else:
        surprisal, about = by_subo(train, test, seed)
    seconds = time.perf_counter() - started

    def area(scores: np.ndarray) -> float:
        return round(100 * float(roc_auc_score(odd, scores)), 3)

    others: dict[str, Callable[..., np.ndarray]] = {"KNN": by_knn, "IForest": by_forest}
    areas = {other: area(detector(train, test, seed)) for other, detector in others.items()}
    shape = {"rows": len(train), "columns": train.shape[1], "tested": len(test)}
    constant = int((train == train[0]).all(0).sum())
    found = {"set": name, "seed": seed, **shape, "subo": area(surprisal), **areas, **about, "constant": constant}
    return {**found, "seconds": round(seconds, 1)}


def results(names: list[str], seeds: int, out: Path, **ways: Any) -> Iterator[dict[str, str]]:
    """The numbers of each seed and set, kept in a file as they come."""
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = list(csv.DictReader(out.open())) if out.exists() else []
    done = {(row["set"], int(row["seed"])): row for row in kept}
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not kept:
            writer.writeheader()
        for seed in range(seeds):
            for name in names:
                if (name, seed) not in done:
                    writer.writerow(measured(name, seed, **ways))
                    file.flush()
                    done[name, seed] = list(csv.DictReader(out.open()))[-1]
                yield done[name, seed]


def notes(row: dict[str, str]) -> str:
    """What sets a fit apart from the others."""
    found = [] if row["likelihood"] == "student-t" else [row["likelihood"]]
    found += [f"{row['constant']} constant columns"] if int(row["constant"]) else []
    found += [f"{row['outside']} test rows outside the support"] if int(row["outside"]) else []
    return "; ".join(found + (["over 90 s"] if float(row["seconds"]) > 90 else []))


def report(rows: list[dict[str, str]]) -> None:
    """Means over sets, each the mean of its seeds, with standard errors over sets."""
    areas: dict[str, list[list[float]]] = {}
    for row in rows:
        areas.setdefault(row["set"], []).append([float(row[key]) for key in DETECTORS])
    table = np.array([np.mean(seeds, axis=0) for seeds in areas.values()])

    def mean(values: np.ndarray) -> str:
        return f"{values.mean():6.2f} +- {values.std(ddof=1) / len(values) ** 0.5:.2f}"

    print(f"\nmean over {len(table)} sets, with standard errors over sets")
    for number, detector in enumerate(DETECTORS):
        print(f"{detector:22}{mean(table[:, number])}")
    for number, detector in enumerate(DETECTORS[1:], start=1):
        difference = table[:, 0] - table[:, number]
        above = f"median {np.median(difference):.2f}, above 0 on {(difference > 0).sum()} of {len(table)} sets"
        print(f"subo minus {detector:11}{mean(difference)}   {above}")
    for number, detector in enumerate(DETECTORS[1:], start=1):
        above = table[:, 0].mean() > table[:, number].mean()
        print(f"subo's mean above that of {detector}: {'yes' if above else 'NO'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", help="names, separated by commas; by default all")
    parser.add_argument("--out", type=Path, help="runs/anomalies.csv, or runs/anomalies_table.csv, by default")
    parser.add_argument("--table", action="store_true", help="columns of the kinds that their cells suggest")
    parser.add_argument("--densities", action="store_true", help="with --table rank by log p(x) in the data's units")
    parser.add_argument("--unit", type=float, default=1.0, help="with --table the unit in which numbers are given")
    parser.add_argument("--constants", action="store_true", help="with --table constant columns are of one level")
    options = parser.parse_args()
    ways = {name: getattr(options, name) for name in ("table", "densities", "constants", "unit")}
    out = options.out or Path("runs/anomalies_table.csv" if options.table else "runs/anomalies.csv")

    warnings.filterwarnings("ignore", "X: all training data have one value")  # the output says how many columns
    all_of = sorted((path.stem for path in FOLDER.glob("*.npz")), key=lambda name: int(name.split("_")[0]))
    names = options.sets.split(",") if options.sets else all_of
    chosen = f" --sets {options.sets}" if options.sets else ""
    print(
        f"$ python benchmarks/anomalies.py --seeds {options.seeds}{chosen}"
        + "".join(f" --{name}" for name in ("table", "densities", "constants") if ways[name])
        + f" --unit {options.unit:g}" * (options.unit != 1)
    )
    print(f"area under the ROC curve in percent; {torch.get_num_threads()} thread; at most {TRAINING_ROWS:,} training "
          f"rows and {TEST_ROWS:,} test rows, drawn by the seed;\nanomalies are kept up to half of the test rows; "
          f"log p(x) by {NUM_SAMPLES} samples; seconds are subo's, fit and scores\n")  # fmt: skip
    print("set              seed   rows  columns  tested    subo     KNN  IForest  epochs  seconds  notes")
    rows = []
    for row in results(names, options.seeds, out, **ways):
        rows.append(row)
        subo_, knn, forest = (float(row[key]) for key in DETECTORS)
        print(f"{row['set']:17}{row['seed']:>4} {row['rows']:>6} {row['columns']:>8} {row['tested']:>7} {subo_:7.2f} "
              f"{knn:7.2f} {forest:8.2f} {row['epochs']:>7} {float(row['seconds']):8.0f}  {notes(row)}".rstrip(),
              flush=True)  # fmt: skip
    report(rows)


if __name__ == "__main__":
    main()
