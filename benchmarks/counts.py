"""Counts of genes in cells: held-out log p(x | total) by subo, beside scvi-tools with the same sizes.

559 cells x 3,000 genes, divided at random into 80% to train, 10% to validate and 10% to test on. Both libraries fit a
VAE with a standard normal prior, 10 latents, one hidden layer of 128 units (ReLU) in encoder and decoder, a dispersion
for each gene and the row's total as offset, with batches of 128, for 400 epochs, which are scvi-tools' defaults for so
few cells. All other settings are each library's own defaults; no test cell takes part in any choice. subo keeps the
weights of the epoch with the best bound on the validation cells and stops when that no longer rises, as it always does;
scvi-tools keeps the last ones, or stops early by the same cells (``early_stopping=True``), and both are shown.
log p(x | total) of a cell is estimated by importance sampling with
1,000 samples of q(z|x) for both (scvi-tools: ``get_marginal_ll``), in nats.

scvi-tools runs in its own environment, whose interpreter is --scvi; without it, subo runs alone. The cells are
cells/cells.npz in $SUBO_DATA. What is in --out is not computed again.

    python -m venv scvi && scvi/bin/pip install scvi-tools
    python benchmarks/counts.py --seeds 3 --scvi scvi/bin/python --out runs/counts
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(os.environ.get("SUBO_DATA", "data")) / "cells" / "cells.npz"
LIKELIHOODS = {"nb": "negative-binomial", "zinb": "zero-inflated-negative-binomial"}
SCVI = {"scvi": False, "scvi, early stopping": True}
HIDDEN, LATENTS, EPOCHS, BATCH, SAMPLES = 128, 10, 400, 128, 1000


def cells() -> Any:
    """The counts, ``(559, 3000)``, sparse."""
    from scipy.sparse import csr_matrix

    file = np.load(FILE)
    return csr_matrix((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"])).astype(np.float32)


def parts(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the cells to train, to validate and to test on."""
    order, tenth = np.random.default_rng(seed).permutation(count), count // 10
    return order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]


def by_subo(likelihood: str, seed: int) -> dict[str, Any]:
    """log p(x | total) of the test cells, and what is worth knowing about the fit."""
    import torch

    import subo
    from subo.data import Data, Split
    from subo.data.size_factors import with_sizes

    x = cells()
    splits, _ = with_sizes([Split(x[rows]) for rows in parts(x.shape[0], seed)], "observed", where="cells")
    data = Data("cells", *splits, kind="whole")
    start = time.perf_counter()
    sizes: dict[str, Any] = {"hidden": (HIDDEN,), "latent_dim": LATENTS, "activation": "relu", "prior": "normal"}
    objective = subo.make("vae", data, likelihood=LIKELIHOODS[likelihood], size_factor="observed", seed=seed, **sizes)
    settings = subo.training_settings(objective, data, epochs=EPOCHS, batch_size=BATCH)
    history = subo.fit(objective, data, seed=seed, **settings)
    seconds = time.perf_counter() - start
    scores = subo.evaluation.score(objective.model, data.test, num_samples=SAMPLES, seed=seed, pareto=False)
    about = {"epochs": len(history.epochs), "kept": history.best_epoch, "seconds": seconds}
    return {
        "log_px": scores.log_px.double().tolist(),
        **about,
        "version": f"subo {subo.__version__}, torch {torch.__version__}",
    }


def by_scvi(likelihood: str, seed: int, early: bool) -> dict[str, Any]:
    """The same by scvi-tools; runs in its environment."""
    import warnings

    warnings.filterwarnings("ignore")
    import anndata
    import scvi  # pyright: ignore[reportMissingImports] (there)
    import torch

    x = cells()
    train, validation, test = parts(x.shape[0], seed)
    scvi.settings.seed = seed
    torch.set_num_threads(1)
    data = anndata.AnnData(x)
    scvi.model.SCVI.setup_anndata(data)
    sizes = {"n_hidden": HIDDEN, "n_latent": LATENTS, "n_layers": 1}
    model = scvi.model.SCVI(data, gene_likelihood=likelihood, **sizes)
    start = time.perf_counter()
    model.train(
        max_epochs=EPOCHS,
        batch_size=BATCH,
        accelerator="cpu",
        early_stopping=early,
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        datasplitter_kwargs={"external_indexing": [train, validation, test]},
    )
    seconds = time.perf_counter() - start
    model.module.eval()
    with torch.no_grad():
        found = model.get_marginal_ll(
            data, indices=test, n_mc_samples=SAMPLES, return_mean=False, n_mc_samples_per_pass=50
        )
    log_px = np.asarray(found, dtype=float).ravel()
    epochs = len(model.history["elbo_validation"])
    about = {"epochs": epochs, "kept": epochs, "seconds": seconds}
    return {"log_px": log_px.tolist(), **about, "version": f"scvi-tools {scvi.__version__}, torch {torch.__version__}"}


def results(folder: Path, seeds: int, scvi: Path | None) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Every fit, from its file in the folder where there is one."""
    for seed in range(seeds):
        for likelihood in LIKELIHOODS:
            for name in ("subo", *SCVI):
                file = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{likelihood}-{seed}.json"
                if not file.exists():
                    if name == "subo":
                        file.write_text(json.dumps(by_subo(likelihood, seed)))
                    elif scvi is None:
                        continue
                    else:
                        job = ["--job", likelihood, str(seed), str(int(SCVI[name])), str(file)]
                        subprocess.run([scvi, __file__, *job], check=True, stdout=subprocess.DEVNULL)
                yield name, likelihood, seed, json.loads(file.read_text())


def show(found: list[tuple[str, str, int, dict[str, Any]]]) -> None:
    """Prints the table: means over cells with their standard errors, and differences cell by cell."""
    known = {(name, likelihood, seed): np.array(result["log_px"]) for name, likelihood, seed, result in found}
    print("; ".join(sorted({result["version"] for *_, result in found})))
    head = f"\n{'':28s}{'seed':>5s}{'log p(x | total)':>22s}{'minus subo':>20s}"
    print(f"{head}{'epochs':>8s}{'kept':>6s}{'seconds':>9s}")
    for name, likelihood, seed, result in sorted(found, key=lambda row: (row[1], row[2])):
        x = known[name, likelihood, seed]
        less = "" if name == "subo" else _mean(x - known["subo", likelihood, seed])
        numbers = f"{result['epochs']:8d}{result['kept']:6d}{result['seconds']:9.0f}"
        print(f"{name:22s}{likelihood:6s}{seed:5d}{_mean(x):>22s}{less:>20s}{numbers}")
    print("\nall seeds")
    for likelihood in LIKELIHOODS:
        for name in ("subo", *SCVI):
            own = {seed: x for (*which, seed), x in known.items() if which == [name, likelihood]}
            if own:
                less = [x - known["subo", likelihood, seed] for seed, x in own.items()]
                beside = "" if name == "subo" else _mean(np.concatenate(less))
                print(f"{name:22s}{likelihood:11s}{_mean(np.concatenate([*own.values()])):>22s}{beside:>20s}")


def _mean(x: np.ndarray) -> str:
    return f"{x.mean():.1f} +- {x.std(ddof=1) / len(x) ** 0.5:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scvi", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/counts"))
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        kind, number, early, place = given.job
        Path(place).write_text(json.dumps(by_scvi(kind, int(number), bool(int(early)))))
        sys.exit()
    given.out.mkdir(parents=True, exist_ok=True)
    show([*results(given.out, given.seeds, given.scvi)])
