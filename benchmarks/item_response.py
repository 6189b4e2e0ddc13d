"""A process that one knows, fitted as a VAE: the two-parameter logistic model of answers to a test.

Person i answers item j rightly with probability ``sigmoid(a_j (theta_i - b_j))``, and ``theta_i ~ N(0, 1)``. With one
latent, ``log p(x)`` is an integral that Gauss and Hermite's rule does to many digits: the estimates that maximize it,
and their standard errors by the observed information, are the reference. Beside the fits by samples stands what the
ELBO with the best Gaussian q of each person would give without any noise, by quadrature, too.

    python benchmarks/item_response.py
"""

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

import subo

SETTINGS = {
    "amortized": {"epochs": 300, "batch_size": 100, "learning_rate": 0.02},
    "per example": {"epochs": 300, "batch_size": 100, "learning_rate": 0.03},
}


class TwoParameterLogistic(nn.Module):
    """``p(x | theta)``: right answers of discrimination a > 0 and difficulty b."""

    def __init__(self, num_items: int):
        super().__init__()
        self.log_discrimination = nn.Parameter(torch.zeros(num_items))
        self.difficulty = nn.Parameter(torch.zeros(num_items))

    def forward(self, theta: Tensor) -> Distribution:
        logits = self.log_discrimination.exp() * (theta - self.difficulty)
        return Independent(Bernoulli(logits=logits, validate_args=False), 1)


def simulated(num_persons: int, num_items: int) -> tuple[Tensor, Tensor]:
    """Answers, and the discriminations and difficulties that they come from."""
    process = TwoParameterLogistic(num_items)
    nn.init.uniform_(process.log_discrimination, math.log(0.5), math.log(2.5))
    nn.init.uniform_(process.difficulty, -2, 2)
    with torch.no_grad():
        answers = process(torch.randn(num_persons, 1)).sample()
        return answers, torch.cat([process.log_discrimination.exp(), process.difficulty]).double()


def rule(num_nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and log-weights of a mean over N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return torch.tensor(nodes), torch.tensor(weights).log() - math.log(2 * math.pi) / 2


def surprisal(params: Tensor, x: Tensor) -> Tensor:
    """``-sum_i log p(x_i)`` at params = (log a, b)."""
    nodes, log_weights = rule(61)
    log_a, b = params.chunk(2)
    logits = log_a.exp() * (nodes[:, None] - b)
    return -(x @ logits.T - F.softplus(logits).sum(1) + log_weights).logsumexp(1).sum()


def negative_elbo(params: Tensor, x: Tensor) -> Tensor:
    """The least that ``-sum_i ELBO_i`` can be, with a mean and a log-scale for each person behind (log a, b)."""
    nodes, log_weights = rule(21)
    log_a, b = params[: 2 * x.shape[1]].chunk(2)
    loc, log_scale = params[2 * x.shape[1] :].unflatten(0, (2, -1))
    theta = loc + log_scale.exp() * nodes[:, None]
    logits = log_a.exp() * (theta[..., None] - b)
    log_likelihood = (x * logits - F.softplus(logits)).sum(2)
    kl = (loc.square() + (2 * log_scale).exp() - 1) / 2 - log_scale
    return -((log_weights.exp()[:, None] * log_likelihood).sum(0) - kl).sum()


def minimum(loss: Callable[[Tensor], Tensor], size: int) -> Tensor:
    params = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    options = {"max_iter": 2000, "tolerance_grad": 1e-6, "tolerance_change": 1e-12, "history_size": 20}
    optimizer = torch.optim.LBFGS([params], line_search_fn="strong_wolfe", **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(params)
        value.backward()
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return params.detach()


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of the marginal likelihood, (a, b), and its standard errors."""
    num_items = x.shape[1]
    params = minimum(lambda at: surprisal(at, x), 2 * num_items)
    information = torch.autograd.functional.hessian(lambda at: surprisal(at, x), params)
    errors = torch.linalg.inv(torch.as_tensor(information)).diagonal().sqrt()
    a = params[:num_items].exp()
    return torch.cat([a, params[num_items:]]), torch.cat([a * errors[:num_items], errors[num_items:]])  # delta method


def fitted(x: Tensor, posterior: str, bound: subo.ELBO | subo.IWAE, num_samples: int) -> Tensor:
    """The estimates (a, b) of a VAE."""
    torch.manual_seed(0)
    family, num_items = subo.Gaussian((1,)), x.shape[1]
    amortized = subo.Conditional(family, subo.mlp(num_items, 2, hidden=(32,)))
    q = amortized if posterior == "amortized" else subo.Local(family, len(x))
    model = subo.VAE(subo.StandardNormal(1), TwoParameterLogistic(num_items), q)
    gradient = subo.DReG() if isinstance(bound, subo.IWAE) else subo.Pathwise()
    objective = subo.Objective(model, bound, gradient=gradient, num_samples=num_samples)
    subo.fit(objective, x, decay="cosine", **SETTINGS[posterior])
    p = model.likelihood
    return torch.cat([p.log_discrimination.exp(), p.difficulty]).detach().double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=2000)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--num-samples", type=int, default=20)
    options = parser.parse_args()

    torch.manual_seed(0)
    items, count = options.items, options.num_samples
    x, truth = simulated(options.persons, items)
    best, errors = reference(x.double())
    print(f"$ python benchmarks/item_response.py --persons {len(x)} --items {items} --num-samples {count}")
    print("maximum of the marginal likelihood by quadrature, with standard errors")
    print("  item          a (truth)                b (truth)")
    for j in range(items):
        a, b = (f"{best[k]:6.3f} +- {errors[k]:.3f} ({truth[k]:6.3f})" for k in (j, items + j))
        print(f"  {j + 1:4}  {a}  {b}")
    print(
        "\nestimate minus that maximum, in its standard errors\n" + " " * 40 + "a: mean  largest    b: largest  seconds"
    )

    def line(name: str, estimates: Tensor, started: float) -> float:
        a, b = ((estimates - best) / errors).chunk(2)
        seconds = time.perf_counter() - started
        print(f"{name:40}{a.mean():7.2f}  {a.abs().max():7.2f}  {b.abs().max():12.2f}  {seconds:7.0f}", flush=True)
        return max(a.abs().max().item(), b.abs().max().item())

    started = time.perf_counter()
    found = minimum(lambda at: negative_elbo(at, x.double()), 2 * items + 2 * len(x))[: 2 * items]
    line("ELBO, best Gaussian q, by quadrature", torch.cat([found[:items].exp(), found[items:]]), started)
    largest = 0.0
    for posterior in SETTINGS:
        for bound in (subo.ELBO(), subo.IWAE()):
            started = time.perf_counter()
            with_gradient = " by DReG" if isinstance(bound, subo.IWAE) else ""
            name = f"{type(bound).__name__}{with_gradient}, q {posterior}, {count} samples"
            distance = line(name, fitted(x, posterior, bound, count), started)
            largest = max(largest, distance) if isinstance(bound, subo.IWAE) else largest
    print(f"\nall of IWAE's estimates within 2 standard errors: {'yes' if largest < 2 else 'NO'}")


if __name__ == "__main__":
    main()
