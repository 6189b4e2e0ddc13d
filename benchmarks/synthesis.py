"""Synthetic rows of a table: MAGIC (19,020 x 10 numbers and the class), 90% to fit and 10% to test.

Fits ``subo.VariationalAutoencoder`` to a frame, draws as many rows as trained it, and measures, by the code below,

- Shape: 1 minus the Kolmogorov-Smirnov distance, for the class 1 minus the total variation; the mean over columns;
- Trend: 1 minus half the distance of Pearson's correlations, for a number and the class 1 minus the total variation of
  their table with the number in 10 bins of equal width; the mean over pairs of columns (SDMetrics' definitions);
- C2ST: 1 - max(0, 2 AUROC - 1) of a classifier that tells rows of the fit from synthetic ones, out of fold;
- MLE: AUROC on the test rows of a classifier that is trained on synthetic rows.

It needs the folder tables in $SUBO_DATA.

    python benchmarks/synthesis.py --seeds 2
"""

import argparse
import importlib.util
import itertools
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import subo

TABLE = Path(os.environ.get("SUBO_DATA", "data")) / "tables" / "magic.csv.gz"
CLASS, BINS, FOLDS = "class", 10, 5
MODELS: dict[str, dict[str, Any]] = {
    "subo, defaults": {},
    "subo, IWAE of 5 samples": {"bound": "iwae", "num_samples": 5},
    "subo, spline-flow prior": {"prior": "spline-flow"},
}
METRICS = "Shape", "Trend", "C2ST", "MLE"
PUBLISHED = {  # with XGBoost as classifier, on other machines
    "TVAE": (0.9540, 0.9531, 0.298, 0.918, 835),
    "TabSyn": (0.9902, 0.9918, 0.760, 0.937, 2271),
    "TabPC": (0.9902, 0.9830, 0.860, 0.932, 39),
    "independent columns": (0.9938, 0.8696, 0.005, 0.512, 0.5),
}
XGBOOST = importlib.util.find_spec("xgboost") is not None


def divided(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """90% to fit and 10% to test."""
    rows = table.sample(frac=1, random_state=seed, ignore_index=True)
    count = len(rows) // 10
    return rows[count:].reset_index(drop=True), rows[:count]


def classifier(seed: int) -> Any:
    """XGBoost if it is installed, else scikit-learn's gradient boosting, with their defaults."""
    if XGBOOST:
        from xgboost import XGBClassifier  # pyright: ignore[reportMissingImports]

        return XGBClassifier(random_state=seed, n_jobs=1)
    return HistGradientBoostingClassifier(random_state=seed)


def total_variation(real: pd.Series, synthetic: pd.Series) -> float:
    """Of two samples of levels."""
    shares = (levels.value_counts(normalize=True) for levels in (real, synthetic))
    return float(pd.concat(shares, axis=1).fillna(0).diff(axis=1).iloc[:, 1].abs().sum()) / 2


def shape(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    tests: list[Any] = [ks_2samp(real[name], synthetic[name]) for name in real.columns.drop(CLASS)]
    distances = [test.statistic for test in tests]
    return 1 - float(np.mean([*distances, total_variation(real[CLASS], synthetic[CLASS])]))


def trend(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    numbers = real.columns.drop(CLASS)
    off = np.abs(np.corrcoef(real[numbers], rowvar=False) - np.corrcoef(synthetic[numbers], rowvar=False)) / 2
    distances = [off[pair] for pair in itertools.combinations(range(len(numbers)), 2)]
    for name in numbers:
        edges = np.histogram_bin_edges(real[name], BINS)[1:-1]
        cells = [rows[CLASS] + np.digitize(rows[name], edges).astype(str) for rows in (real, synthetic)]
        distances.append(total_variation(*cells))
    return 1 - float(np.mean(distances))


def c2st(real: pd.DataFrame, synthetic: pd.DataFrame, seed: int) -> float:
    rows = pd.concat([real, synthetic])
    x = rows.assign(**{CLASS: rows[CLASS] == "g"}).astype(float).to_numpy()
    y = np.repeat([0, 1], [len(real), len(synthetic)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    guesses: Any = cross_val_predict(classifier(seed), x, y, cv=folds, method="predict_proba")
    return 1 - max(0.0, 2 * float(roc_auc_score(y, guesses[:, 1])) - 1)


def mle(synthetic: pd.DataFrame, test: pd.DataFrame, seed: int) -> float:
    fitted = classifier(seed).fit(synthetic.drop(columns=CLASS).to_numpy(), synthetic[CLASS] == "g")
    return float(roc_auc_score(test[CLASS] == "g", fitted.predict_proba(test.drop(columns=CLASS).to_numpy())[:, 1]))


def alike(real: pd.DataFrame, others: pd.DataFrame, seed: int) -> tuple[float, float, float]:
    return shape(real, others), trend(real, others), c2st(real, others, seed)


def metrics(train: pd.DataFrame, synthetic: pd.DataFrame, test: pd.DataFrame, seed: int) -> tuple[float, ...]:
    return *alike(train, synthetic, seed), mle(synthetic, test, seed)


def line(name: str, seed: object, numbers: Sequence[float], rest: str = "") -> None:
    print(f"{name:26}{seed!s:>4}  " + "".join(f"{number:8.4f}" for number in numbers) + rest, flush=True)


def references(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> None:
    """What real rows get, and rows whose columns know nothing of each other."""
    generator = np.random.default_rng(seed)
    independent = train.apply(lambda column: generator.choice(column, len(column)))
    line("independent columns, here", seed, metrics(train, independent, test, seed))
    line("real rows", seed, (*alike(train, test, seed), mle(train, test, seed)))


def synthesized(name: str, train: pd.DataFrame, test: pd.DataFrame, seed: int) -> tuple[float, ...]:
    """The metrics of a model, and the seconds of its fit by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    model = subo.VariationalAutoencoder(random_state=seed, **MODELS[name]).fit(train)
    seconds = time.perf_counter() - clock, time.process_time() - processor
    numbers = metrics(train, model.sample(len(train), random_state=seed), test, seed)
    log_px = model.score_samples(test)
    likely = f"{log_px.mean():11.3f} +- {log_px.std(ddof=1) / len(log_px) ** 0.5:.3f}"
    line(name, seed, numbers, f"{seconds[0]:9.0f}{seconds[1]:8.0f}{model.n_iter_:8}{likely}")
    return *numbers, *seconds


def report(found: dict[str, list[tuple[float, ...]]]) -> None:
    """Means over seeds, the published numbers, and whether subo's are above those of TVAE."""
    print("\nmean over seeds")
    means = {name: np.mean(rows, axis=0).tolist() for name, rows in found.items()}
    for name, (*numbers, clock, processor) in means.items():
        line(name, "", numbers, f"{clock:9.0f}{processor:8.0f}")
    print("published")
    for name, (*numbers, seconds) in PUBLISHED.items():
        line(name, "", numbers, f"{seconds:9g}")
    print()
    goals = dict(zip(METRICS, PUBLISHED["TVAE"], strict=False))
    for name, (*numbers, _, processor) in means.items():
        below = [metric for metric, number in zip(METRICS, numbers, strict=True) if number <= goals[metric]]
        verdict, soon = f"NO, not in {', '.join(below)}" if below else "yes", "yes" if processor < 60 else "NO"
        print(f"{name}: above TVAE in all four: {verdict}; fit in under 60 s of processor: {soon}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()

    table = pd.read_csv(TABLE)
    used = "XGBoost" if XGBOOST else "scikit-learn's HistGradientBoostingClassifier"
    print(f"$ python benchmarks/synthesis.py {shlex.join(sys.argv[1:])}")
    print(f"classifier: {used}; {torch.get_num_threads()} thread; seconds of fit by the clock and of the processor;")
    print("log p(x) of the test rows by 1,000 samples, with its standard error over rows;")
    print("real rows: test rows beside those of the fit, and a classifier that is trained on the latter\n")
    print("                          seed     Shape   Trend    C2ST     MLE    clock     CPU  epochs   log p(x)")
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in options.models}
    for seed in range(options.seeds):
        train, test = divided(table, seed)
        references(train, test, seed)
        for name, rows in found.items():
            rows.append(synthesized(name, train, test, seed))
    report(found)


if __name__ == "__main__":
    main()
