"""Defaults on small tables: held-out log p(x) beside Gaussians, mixtures of them, and probabilistic PCA.

Nine tables of numbers, five random splits each: 70% of the rows to train on, 10% to choose on, 20% to test on. subo has
no option but the seed. Of mixtures of 1, 2 and 5 Gaussians with full covariances (three starts, variances at least 1e-6
of the columns'), and of probabilistic PCA with any number of components, those with the highest log p(x) on the rows to
choose on are taken. All numbers are nats per row in the data's units; errors are those of a mean over the splits.

    python benchmarks/small_tables.py
"""

import argparse
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

import subo
from subo.evaluation import score

_NOT_NUMBERS = ("Order", "PID")


def numbers_of(name: str) -> np.ndarray:
    """The whole rows of a table's numeric columns that vary."""
    frame = pd.read_csv(Path(os.environ["SUBO_DATA"]) / "tables" / f"{name}.csv.gz").select_dtypes("number").dropna()
    frame = frame.drop(columns=[column for column in _NOT_NUMBERS if column in frame])
    return frame.loc[:, frame.nunique() > 1].to_numpy(float)


SETS: dict[str, Callable[[], Any]] = {
    "moons": lambda: datasets.make_moons(1000, noise=0.1, random_state=0)[0],
    "swiss roll": lambda: datasets.make_swiss_roll(1000, noise=0.5, random_state=0)[0],
    "iris": lambda: datasets.load_iris(return_X_y=True)[0],
    "wine": lambda: datasets.load_wine(return_X_y=True)[0],
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True, scaled=False)[0],
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True)[0],
    "credit": lambda: numbers_of("credit_data"),
    "ames": lambda: numbers_of("ames"),
    "magic": lambda: numbers_of("magic"),
}


def parts(x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to choose on and to test on."""
    order = np.random.default_rng(seed).permutation(len(x))
    test, choice = round(0.2 * len(x)), round(0.1 * len(x))
    return x[order[test + choice :]], x[order[test : test + choice]], x[order[:test]]


def simple(train: np.ndarray, choice: np.ndarray, test: np.ndarray) -> tuple[float, float, float, int]:
    """Log p(x) of one Gaussian, of the chosen probabilistic PCA and of the chosen mixture; its number of parts."""
    center, unit = train.mean(0), train.std(0)
    unit = np.where(unit > 0, unit, 1)
    a, b, c = ((part - center) / unit for part in (train, choice, test))
    mixtures = {k: GaussianMixture(k, random_state=0, n_init=3).fit(a) for k in (1, 2, 5)}
    analyses = [PCA(k).fit(a) for k in range(1, a.shape[1])]
    best = max(mixtures, key=lambda k: mixtures[k].score(b))
    analysis = max(analyses, key=lambda one: one.score(b))
    levels = mixtures[1].score(c), analysis.score(c), mixtures[best].score(c)
    one, pca, many = (float(level) - np.log(unit).sum() for level in levels)
    return one, pca, many, best


def ours(train: np.ndarray, choice: np.ndarray, test: np.ndarray, seed: int) -> tuple[float, float]:
    """Log p(x) by subo's defaults, by 1,000 samples, and the seconds of the fit."""
    splits = [subo.Split(torch.tensor(part, dtype=torch.float32)) for part in (train, choice, test)]
    data = subo.Data("rows", *splits, kind="real")
    began = time.perf_counter()
    objective = subo.make("vae", data, seed=seed)
    subo.fit(objective, data, **subo.training_settings(objective, data), seed=seed)
    seconds = time.perf_counter() - began
    held_out = subo.Split(torch.tensor(test))
    return score(objective.model.double().eval(), held_out, num_samples=1000).log_px.mean().item(), seconds


def main() -> None:
    """Prints a line for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--splits", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(
        f"{'':14s} {'rows':>6s} {'columns':>7s} {'subo':>17s} {'one Gaussian':>13s} {'PPCA':>9s} {'1, 2 or 5':>10s}  "
        f"{'of them':12s} {'subo - best of the first two, - mixture':40s} s"
    )
    for name in arguments.sets:
        x, found = SETS[name](), []
        for seed in range(arguments.splits):
            split = parts(x, seed)
            found.append((*simple(*split), *ours(*split, seed)))
        one, pca, many, chosen, level, seconds = np.array(found).T
        gains = level - (one if one.mean() >= pca.mean() else pca), level - many
        error = [np.std(values, ddof=1) / math.sqrt(len(values)) for values in (level, *gains)]
        picks = ",".join(str(int(k)) for k in chosen)
        differences = "   ".join(f"{g.mean():8.3f} +- {e:.3f}" for g, e in zip(gains, error[1:], strict=True))
        print(
            f"{name:14s} {len(x):6,} {x.shape[1]:7} {level.mean():8.3f} +- {error[0]:.3f} {one.mean():13.3f} "
            f"{pca.mean():9.3f} {many.mean():10.3f}  {picks:12s} {differences:40s} {seconds.mean():.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
