"""Eight training seeds: one after the other, or stacked by torch.func, in one thread.

The steps are those of a plain variational autoencoder of bits, forward and backward, without the optimizer: the ELBO
with the closed KL, tanh, batches of 100. *stacked* has the eight models' parameters as one more axis of each tensor
(torch.func.stack_module_state, vmap of grad); the noise differs between models. `subo fit --seeds` runs processes
instead: on C cores these take 1 / C of the time of one after the other.

    python benchmarks/stacked_seeds.py
"""

import copy
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

SEEDS, ROUNDS = 8, 7


class Plain(nn.Module):
    """An autoencoder of bits by hand."""

    def __init__(self, features: int, hidden: int, latents: int):
        super().__init__()
        layers = (nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.encoder = nn.Sequential(*layers, nn.Linear(hidden, 2 * latents))
        back = (nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.decoder = nn.Sequential(*back, nn.Linear(hidden, features))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        logits = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (distortion + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()) / len(x)


def seconds(step, count: int) -> float:
    step()
    started = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - started) / count


def main() -> None:
    torch.set_num_threads(1)
    print(f"{SEEDS} models, torch {torch.__version__}, one thread, milliseconds for a step of all; medians of {ROUNDS}")
    for features, hidden, latents in ((64, 16, 2), (64, 100, 10), (784, 200, 50), (784, 500, 50)):
        torch.manual_seed(0)
        models = [Plain(features, hidden, latents) for _ in range(SEEDS)]
        x = torch.bernoulli(torch.full((100, features), 0.3))
        empty = copy.deepcopy(models[0]).to("meta")
        parameters, _ = stack_module_state(models)  # pyright: ignore[reportArgumentType]
        of_one = grad(lambda own, x, noise, empty=empty: functional_call(empty, own, (x, noise)))
        stacked = vmap(of_one, in_dims=(0, None, 0))

        def together(x=x, latents=latents, stacked=stacked, parameters=parameters) -> None:
            stacked(parameters, x, torch.randn(SEEDS, len(x), latents))

        def in_turn(x=x, latents=latents, models=models) -> None:
            for model in models:
                model.zero_grad()
                model(x, torch.randn(len(x), latents)).backward()

        times = [(seconds(together, 10), seconds(in_turn, 10)) for _ in range(ROUNDS)]
        own = [sorted(column)[ROUNDS // 2] * 1000 for column in zip(*times, strict=True)]
        ratio = sorted(a / b for a, b in times)[ROUNDS // 2]
        name = f"{features}-{hidden}-{hidden}-{latents}"
        print(f"  {name:16s} stacked {own[0]:7.2f}   in turn {own[1]:7.2f}   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
