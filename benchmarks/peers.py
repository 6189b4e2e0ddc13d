"""subo beside pythae, Pyro, plain PyTorch loops and JAX on MNIST: an epoch, log p(x), and nats after equal time.

Everything is in seconds of the processor (`time.process_time`), which other programs disturb less than the clock; data
are read in the process itself. Bits are drawn at each visit.

a. An epoch of 60,000 images: the same 784-200-200-50, tanh, batches of 100, Adam at 1e-3, ELBO of one sample. Rounds in
   turns; of each call of two epochs the second counts. *loop on tensors* is the careful one of step.py; *DataLoader* is
   the PyTorch tutorial's (sigmoid, binary cross-entropy, plain Adam), of tensors in memory; pythae is its
   TrainingPipeline, and draws the bits of a batch in the model's `forward`; Pyro is `SVI`, fed by tensors, with
   Trace_ELBO as in its example and with the closed KL (TraceMeanField_ELBO); JAX is one jitted scan over the batches.
b. log p(x) by K samples with the same weights: subo's `log_marginal` (with Pareto's k-hat), pythae's `get_nll` at its
   own batch size and larger ones, Pyro's `vectorized_importance_weights`, and the decoder's matrix products alone.
c. -log p(x) of test images by subo's importance sampling, after so many seconds of training with each one's own
   settings (see OWN): 50,000 images; pythae and subo keep the best epoch by the 10,000 for validation.

    pip install ".[peers]"
    SUBO_DATA=folder-with-mnist python benchmarks/peers.py --rounds 4 --seconds 120
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

import subo
from peer_jax import train_jax
from peer_trainers import (
    Plain,
    Setting,
    as_subo,
    imported,
    layers_of,
    pyro_pair,
    pythae_model,
    train_loader,
    train_pyro,
    train_pythae,
    train_subo,
    train_tensors,
)
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.scores import latents_at_a_time, score

TRAINERS: dict[str, Callable[..., Any]] = {
    "subo": train_subo,
    "loop on tensors": train_tensors,
    "DataLoader": train_loader,
    "pythae": train_pythae,
    "Pyro, Trace_ELBO": train_pyro,
    "Pyro, closed KL": partial(train_pyro, loss="TraceMeanField_ELBO"),
    "JAX scan": train_jax,
}
SAME = Setting()
OWN = {  # and where they come from
    "subo, as it is": (Setting(), "subo.make and training_settings: 784-500-500-50, SiLU, 250, Adam 3e-3, cosine"),
    "pythae": (
        Setting((512,), 10, nn.ReLU, 200),
        "README: 784-512-10, ReLU, 200, AdamW 1e-3 (0.05; 0.91, 0.995), ReduceLROnPlateau; bce",
    ),
    "Pyro, Trace_ELBO": (
        Setting((400,), 50, nn.Softplus, 256, half=1.0),
        "examples/vae: 784-400-50, softplus, 256, Adam 1e-3",
    ),
    "DataLoader": (Setting((400,), 20, nn.ReLU, 128), "PyTorch's examples/vae: 784-400-20, ReLU, 128, Adam 1e-3"),
    "JAX scan": (Setting((500,), 20, nn.ReLU, 128), "Flax's examples/vae: 784-500-20, ReLU, 128, Adam 1e-3"),
}


def processor(function: Callable[[], object]) -> tuple[float, object]:
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def absent(peers: list[str], data: dict[str, Split]) -> dict[str, str]:
    """Why a peer can't be measured, found by an epoch of 200 images."""
    tiny = {"train": data["train"].take(torch.arange(200))}
    reasons = {}
    for peer in peers:
        try:
            TRAINERS[peer](SAME, tiny, 1, lambda: None)
        except Exception as error:
            reasons[peer] = f"{type(error).__name__}: {error}"
    return reasons


def epochs_in_turns(peers: list[str], data: dict[str, Split], rounds: int) -> None:
    print(
        f"\na. an epoch of {len(data['train']):,} images, seconds of the processor, {rounds} rounds in turns",
        flush=True,
    )
    taken: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            marks: list[float] = []
            TRAINERS[peer](SAME, data, 2, lambda marks=marks: marks.append(time.process_time()))
            taken[peer].append(marks[1] - marks[0])
    for peer, seconds in taken.items():
        ratios = [a / b for a, b in zip(seconds, taken["subo"], strict=True)]
        print(
            f"  {peer:24s} median {statistics.median(seconds):6.2f}, least {min(seconds):6.2f}; in units of subo "
            f"{statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def products(plain: Plain, num: int, rows: int) -> None:
    """The decoder's matrix products of `num` decodes, `rows` at a time."""
    z = torch.randn(rows, SAME.latents)
    for _ in range(num // rows):
        h = z
        for layer in layers_of(plain)["decoder"]:
            h = torch.addmm(layer.bias, h, layer.weight.mT)


def by_pyro(plain: Plain, x: Tensor, num_samples: int) -> float:
    """Pyro's log-weights, all samples of an image at once."""
    weights = imported("pyro.infer.importance").vectorized_importance_weights
    model, guide = pyro_pair(plain, SAME)
    total = 0.0
    for image in x.flatten(1):
        options = {"num_samples": num_samples, "max_plate_nesting": 1}
        log_weight = weights(model, guide, image[None], **options)[0]
        total += float(log_weight.logsumexp(0)) - float(torch.tensor(float(num_samples)).log())
    return total / len(x)


@torch.no_grad()
def log_px_in_turns(plain: Plain, x: Tensor, num_samples: int, rounds: int, missing: dict[str, str]) -> None:
    ours, num = as_subo(plain, SAME), num_samples * len(x) // rounds
    rows = latents_at_a_time(ours, Split(x))
    ways: dict[str, Callable[[Tensor], object]] = {
        "subo": lambda x: float(log_marginal(ours, x, num_samples=num_samples, max_rows=rows).log_px.mean()),
        "products of 600 rows": lambda x: products(plain, num, 600),
        "products of 5000 rows": lambda x: products(plain, num, 5000),
    }
    if "pythae" not in missing:
        theirs = pythae_model(plain, SAME).eval()
        for size in (100, 500, 5000):
            ways[f"pythae, batch_size={size}"] = lambda x, size=size: theirs.get_nll(
                x, n_samples=num_samples, batch_size=size
            )
    if "Pyro, Trace_ELBO" not in missing:
        ways["Pyro"] = lambda x: by_pyro(plain, x, num_samples)
    print(
        f"\nb. log p(x), K = {num_samples:,}, {len(x)} images in {rounds} parts, each by all ways in turn", flush=True
    )
    taken: dict[str, list[float]] = {way: [] for way in ways}
    values: dict[str, list[object]] = {way: [] for way in ways}
    for part in x.chunk(rounds):
        for way, function in ways.items():
            seconds, value = processor(lambda function=function, part=part: function(part))
            taken[way].append(seconds)
            values[way].append(value)
    least = min(statistics.median(seconds) for way, seconds in taken.items() if way.startswith("products"))
    for way, seconds in taken.items():
        found = [value for value in values[way] if isinstance(value, float)]
        mean = f"; mean log p(x) {statistics.mean(found):8.3f}" if found else ""
        ratio = statistics.median(a / b for a, b in zip(seconds, taken["subo"], strict=True))
        print(
            f"  {way:24s} {1e6 * sum(seconds) / (num_samples * len(x)):6.2f} us a decode; in units of the "
            f"products {statistics.median(seconds) / least:5.2f}, of subo {ratio:5.2f}{mean}",
            flush=True,
        )


def nats_after(seconds: float, grey: subo.Data, x: Tensor, num_samples: int, missing: dict[str, str]) -> None:
    print(
        f"\nc. {len(x):,} test images, K = {num_samples:,}, after about {seconds:.0f} s of the processor each",
        flush=True,
    )
    bits = load_data("mnist", binarize="dynamic")
    assert grey.validation is not None
    train = Split(grey.train.x, levels=grey.train.levels, resample=True)
    found: dict[str, Tensor] = {}
    for name, (setting, source) in OWN.items():
        peer = "subo" if name.startswith("subo") else name
        if peer in missing:
            continue
        data = {"train": train} | ({"validation": bits.validation} if peer in ("subo", "pythae") else {})
        marks = [time.process_time()]
        TRAINERS[peer](setting, data, 2, lambda marks=marks: marks.append(time.process_time()))
        epochs = max(1, round(seconds / (marks[2] - marks[1])))
        taken, model = processor(partial(TRAINERS[peer], setting, data, epochs, lambda: None))
        model = as_subo(model, setting) if isinstance(model, Plain) else model
        scores = score(model, Split(x), num_samples=num_samples)
        found[name] = -scores.log_px
        own, below = found[name].mean(), found[name] - found["subo, as it is"]
        print(
            f"  {name:18s} {epochs:4d} epochs, {taken:4.0f} s: {own:7.2f} +- {error(found[name]):.2f} nats, "
            f"{below.mean():+6.2f} +- {error(below):.2f} beside subo as it is\n{'':21s}{source}",
            flush=True,
        )


def error(values: Tensor) -> float:
    """Standard error of the mean."""
    return float(values.std()) / len(values) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="abc")
    parser.add_argument("--peers", nargs="+", choices=list(TRAINERS), default=list(TRAINERS), help="of a; with subo")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--num-images", type=int, default=200, help="of b")
    parser.add_argument("--num-samples", type=int, default=5000, help="of b")
    parser.add_argument("--seconds", type=float, default=120, help="of c")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    grey, test = load_data("mnist"), load_data("mnist", binarize="dynamic").test
    assert grey.validation is not None
    every = torch.cat([grey.train.x, grey.validation.x])
    data = {"train": Split(every, levels=grey.train.levels, resample=True)}
    missing = absent(arguments.peers if arguments.parts == "a" else list(TRAINERS), data)
    for peer, reason in missing.items():
        print(f"{peer} is left out. {reason}")
    versions = [f"{name} {version(name)}" for name in ("torch", "pythae", "pyro-ppl", "jax") if found(name)]
    print(", ".join(versions) + "; one thread; seed 0", flush=True)
    peers = [peer for peer in arguments.peers if peer not in missing]
    if "a" in arguments.parts:
        epochs_in_turns(peers, data, arguments.rounds)
    if "b" in arguments.parts:
        plain = train_tensors(SAME, data, 5, lambda: None)
        x = test.take(torch.arange(arguments.num_images)).x.float()
        log_px_in_turns(plain, x, arguments.num_samples, arguments.rounds, missing)
    if "c" in arguments.parts:
        nats_after(arguments.seconds, grey, test.take(torch.arange(1000)).x.float(), 1000, missing)


def found(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
