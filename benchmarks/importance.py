"""What log p(x) by importance sampling costs, in units of the matrix products of its decodes.

The one-layer network, 784-200-200-50, tanh, Bernoulli, untrained: no number here depends on the weights. Three things
are timed in turns, in one process: the estimator as `evaluate` calls it, k-hat and all; the three matrix products of
its K decodes an example and nothing else, at the better of two chunk sizes; and the loop that one writes by hand, an
example after the other. Ratios are of medians and of minima over the rounds; on one thread also of processor time,
which other programs disturb less.

    python benchmarks/importance.py --threads 1
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

import subo
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.scores import latents_at_a_time

PRODUCT_ROWS = (600, 5000)


def images(count: int) -> Tensor:
    """Binarized test images, or random bits where there are none: the cost is the same."""
    try:
        return load_data("mnist", binarize="static").test.x[:count].float()
    except InputError:
        print("no MNIST here: random bits")
        return torch.randint(2, (count, 1, 28, 28)).float()


def one_layer() -> subo.VAE:
    """The network of Burda et al. (2016)."""
    return subo.VAE(
        subo.StandardNormal(50),
        subo.Conditional(subo.Bernoulli((1, 28, 28)), subo.mlp(50, 784)),
        subo.Conditional(subo.Gaussian((50,)), subo.mlp(784, 100)),
    )


def products(model: subo.VAE, num: int, rows: int) -> None:
    """The matrix products of `num` decodes, `rows` at a time."""
    layers = [layer for layer in model.likelihood.network if isinstance(layer, nn.Linear)]
    z = torch.randn(rows, 50)
    for _ in range(num // rows):
        h = z
        for layer in layers:
            h = torch.addmm(layer.bias, h, layer.weight.mT)


def by_hand(model: subo.VAE, x: Tensor, num_samples: int) -> Tensor:
    """The plain loop: all samples of an example at once, torch's distributions, log-sum-exp."""
    estimates = []
    for image in x.flatten(1):
        loc, log_scale = model.posterior.network(image[None]).chunk(2, 1)
        q = Normal(loc, log_scale.exp())
        z = q.sample((num_samples,)).squeeze(1)
        log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
        logits = model.likelihood.network(z)
        log_likelihood = Bernoulli(logits=logits).log_prob(image.expand(num_samples, -1)).sum(1)
        log_weight = log_prior + log_likelihood - q.log_prob(z).sum(1)
        estimates.append(log_weight.logsumexp(0) - torch.tensor(float(num_samples)).log())
    return torch.stack(estimates)


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - clock, time.process_time() - processor


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--max-rows", type=int, help="instead of evaluate's choice")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    K, x, model = arguments.num_samples, images(arguments.num_data), one_layer()
    max_rows = arguments.max_rows or latents_at_a_time(model, Split(x))
    timed: dict[str, Callable[[], object]] = {
        "subo": lambda: log_marginal(model, x, num_samples=K, max_rows=max_rows),
        **{f"products of {rows} rows": lambda rows=rows: products(model, K * len(x), rows) for rows in PRODUCT_ROWS},
        "by hand": lambda: by_hand(model, x, K),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for _ in range(arguments.rounds):
        for name, function in timed.items():
            taken[name].append(seconds(function))
    print(
        f"threads {arguments.threads}, torch {torch.__version__}, {len(x)} examples, K = {K:,}, {max_rows} rows a pass"
    )
    for kind, what in enumerate(("clock", "processor") if arguments.threads == 1 else ("clock",)):
        print(f"seconds of the {what}")
        values = {name: [pair[kind] for pair in pairs] for name, pairs in taken.items()}
        for name, numbers in values.items():
            decode = 1e6 * min(numbers) / (K * len(x))
            print(
                f"  {name:22s} median {statistics.median(numbers):6.2f}, least {min(numbers):6.2f}: "
                f"{decode:5.2f} microseconds a decode"
            )
        for least, of in (("medians", statistics.median), ("minima", min)):
            products_alone = min(of(values[name]) for name in timed if name.startswith("products"))
            ours, hand = of(values["subo"]) / products_alone, of(values["by hand"]) / products_alone
            print(f"  ratio of {least} to the products: subo {ours:.2f}, by hand {hand:.2f}")


if __name__ == "__main__":
    main()
