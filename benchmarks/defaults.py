"""The defaults of images and sequences beside fixed settings of before, after the same time of training.

    python benchmarks/defaults.py --minutes 2 --seeds 0 1

    python benchmarks/defaults.py --minutes 1 --seeds 0 --members "digits, bits" "digits, levels" "2,000 of mnist, bits"
        "2,000 of fashion-mnist, bits"
    python benchmarks/defaults.py --minutes 3 --seeds 0 --members chorales

*before*: 10 latents, two layers of 200 with tanh, batches of 100, Adam with a constant step of 0.001. *defaults*: what
`subo fit` chooses. Each training has one thread and its minutes by the clock, two trainings at a time; the step size of
the defaults falls to 0 in that time. Bits are drawn anew at each visit (dynamic), or pixels are dequantized (levels)
and described by a Gaussian. Chorales have the networks of the recipe both times, and *before* batches of 100 and that
step size; their numbers are per chorale. log p(x) of the first 1,000 validation and 1,000 test images by importance
sampling; differences are paired, by images and seeds. Tables are in `small_tables.py`.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch

import subo
from subo.evaluation.scores import score

BEFORE: dict[str, Any] = {"latent_dim": 10, "hidden": (200, 200), "activation": "tanh"}
BEFORE_TRAINING: dict[str, Any] = {"batch_size": 100, "learning_rate": 1e-3, "decay": "constant"}
MEMBERS = {
    "mnist, bits": ("mnist", {"binarize": "dynamic"}),
    "fashion-mnist, bits": ("fashion-mnist", {"binarize": "dynamic"}),
    "fashion-mnist, levels": ("fashion-mnist", {"dequantize": True}),
    "digits, bits": ("digits", {"binarize": "dynamic"}),
    "digits, levels": ("digits", {"dequantize": True}),
    "2,000 of mnist, bits": ("mnist", {"binarize": "dynamic"}),
    "2,000 of fashion-mnist, bits": ("fashion-mnist", {"binarize": "dynamic"}),
    "chorales": ("jsb-chorales", {}),
}
FEW = 2000
PARTS = ("validation", "test")


def measured(member: str, way: str, seed: int, minutes: float, num_samples: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    name, options = MEMBERS[member]
    data = subo.load_data(name, **options)
    if member.startswith(f"{FEW:,}"):
        train, validation = (
            split.take(torch.arange(n)) for split, n in ((data.train, FEW), (data.validation, FEW // 4))
        )
        data = replace(data, train=train, validation=validation)
    likelihood = "gaussian" if data.dequantize else "auto"
    model = BEFORE if way == "before" and not data.sequential else {}
    recipe = "deep-markov" if data.sequential else "vae"
    objective = subo.make(recipe, data, likelihood=likelihood, seed=seed, **model)
    settings = {**BEFORE_TRAINING, "minutes": minutes, "epochs": None}
    if way == "defaults":
        settings = subo.training_settings(objective, data, minutes=minutes)
    history = subo.fit(objective, data, seed=seed, **settings)
    held_out = {part: getattr(data, part) for part in PARTS}
    few = {part: split.take(torch.arange(min(1000, len(split)))) for part, split in held_out.items()}
    scores = {part: score(objective.model, split, num_samples=num_samples).log_px for part, split in few.items()}
    return {**scores, "epochs": len(history.epochs), "stopped by": history.stopped_by}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--members", nargs="+", default=list(MEMBERS))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.minutes:g} minutes each, one thread, K = {arguments.num_samples}")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for member in arguments.members:
            tasks = {
                (way, seed): pool.submit(measured, member, way, seed, arguments.minutes, arguments.num_samples)
                for seed in arguments.seeds
                for way in ("before", "defaults")
            }
            found = {key: task.result() for key, task in tasks.items()}
            print(f"{member}: log p(x), nats", flush=True)
            for part in PARTS:
                ways = {
                    way: torch.stack([found[way, seed][part] for seed in arguments.seeds]).double()
                    for way in ("before", "defaults")
                }
                gain = ways["defaults"] - ways["before"]
                error = gain.mean(0).std() / len(gain[0]) ** 0.5
                print(
                    f"  {part:10} before {ways['before'].mean():9.2f}, defaults {ways['defaults'].mean():9.2f}: "
                    f"gain {gain.mean():6.2f} +- {error:.2f} over images; by seed "
                    f"{', '.join(f'{value:.2f}' for value in gain.mean(1))}",
                    flush=True,
                )
            epochs = {way: [found[way, seed]["epochs"] for seed in arguments.seeds] for way in ("before", "defaults")}
            print(f"  epochs     before {epochs['before']}, defaults {epochs['defaults']}", flush=True)


if __name__ == "__main__":
    main()
