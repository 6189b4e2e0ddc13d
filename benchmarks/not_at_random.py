"""Cells that are missing where they are above their column's mean: what a model p(s | x) of this is worth.

The protocol of Ipsen, Mattei and Frellsen (2021, section 4.1): of half of the columns, chosen for each seed, every cell
above the column's mean is missing. Methods see the observed cells, and are measured by the root mean square error of
best guesses for the missing ones, in standard deviations of the complete columns, which are standardized first.

*wine* has the eleven numbers of 600 rows of Wine (hivae/), *mixture* 600 rows of a mixture of two Gaussians in six
columns. *soft* hides cells with the probability of a normal distribution function of slope 2, *random* 50% of them
whatever they are: there the model of the missing cells can only cost.

    python benchmarks/not_at_random.py --seeds 5
"""

import argparse
import os
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

import subo

HIDING = ("above", "soft", "random")


def wine() -> np.ndarray:
    folder = Path(os.environ["SUBO_DATA"], "hivae", "Wine")
    cells = pd.read_csv(folder / "data.csv.gz", header=None).to_numpy(float)[:, :11]
    return cells[np.random.default_rng(0).permutation(len(cells))[:600]]


def mixture() -> np.ndarray:
    rng = np.random.default_rng(1)
    means, factors = rng.normal(0, 1.5, (2, 6)), rng.normal(0, 1, (2, 6, 2))
    part = (rng.random(600) < 0.35).astype(int)
    noise = 0.4 * rng.normal(size=(600, 6))
    return means[part] + np.einsum("ijk,ik->ij", factors[part], rng.normal(size=(600, 2))) + noise


def hidden_cells(x: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    columns = rng.permutation(x.shape[1])[: x.shape[1] // 2]
    share = {"above": x > 0, "soft": norm.cdf(2 * x), "random": np.full(x.shape, 0.5)}[how]
    hidden = rng.random(x.shape) < share
    hidden[:, np.setdiff1d(np.arange(x.shape[1]), columns)] = False
    return hidden


def by_subo(frame: pd.DataFrame, seed: int, missing_model: str, epochs: Any) -> np.ndarray:
    kinds = dict.fromkeys(frame.columns, "real")
    vae = subo.VariationalAutoencoder(
        columns=kinds, missing_model=missing_model, evaluation_samples=200, epochs=epochs, random_state=seed
    )
    return vae.fit(frame).impute(frame).to_numpy()


def filled_by(method: str, frame: pd.DataFrame, seed: int, epochs: Any) -> np.ndarray:
    if method == "column means":
        return frame.fillna(frame.mean()).to_numpy()
    if method == "iterative, linear":
        return np.asarray(IterativeImputer(random_state=seed).fit_transform(frame))
    return by_subo(frame, seed, "self" if method.endswith("self") else "none", epochs)


METHODS = ("column means", "iterative, linear", "subo", "subo, missing_model=self")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tables", nargs="+", default=["wine", "mixture"])
    parser.add_argument("--hiding", nargs="+", choices=HIDING, default=HIDING)
    parser.add_argument("--epochs", type=lambda text: text if text == "auto" else int(text), default="auto")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"$ python benchmarks/not_at_random.py {shlex.join(sys.argv[1:])}")
    print(f"root mean square error of missing cells +- standard error over {options.seeds} seeds")
    for name in options.tables:
        complete = {"wine": wine, "mixture": mixture}[name]()
        x = (complete - complete.mean(0)) / complete.std(0)
        for how in options.hiding:
            errors: dict[str, list[float]] = {method: [] for method in METHODS}
            seconds: dict[str, float] = dict.fromkeys(METHODS, 0.0)
            for seed in range(options.seeds):
                hidden = hidden_cells(x, how, np.random.default_rng(seed))
                names = pd.Index([f"x{number}" for number in range(x.shape[1])])
                frame = pd.DataFrame(np.where(hidden, np.nan, x), columns=names)
                for method in METHODS:
                    started = time.perf_counter()
                    guess = filled_by(method, frame, seed, options.epochs)
                    seconds[method] += time.perf_counter() - started
                    errors[method].append(float(np.sqrt(np.square(guess - x)[hidden].mean())))
            print(f"\n{name}, {len(x):,} rows x {x.shape[1]}, missing: {how}")
            for method, found in errors.items():
                error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
                each = " ".join(f"{value:.2f}" for value in found)
                print(f"{method:26}{np.mean(found):8.3f} +- {error:.3f}{seconds[method]:8.0f} s   {each}", flush=True)
            change = np.subtract(errors[METHODS[3]], errors[METHODS[2]])
            if len(change) > 1:
                error = change.std(ddof=1) / np.sqrt(len(change))
                print(f"{'  its difference, paired':26}{change.mean():8.3f} +- {error:.3f}", flush=True)


if __name__ == "__main__":
    main()
