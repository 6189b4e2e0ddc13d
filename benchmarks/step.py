"""Seconds per epoch of MNIST: subo's fit against a careful hand-written PyTorch loop, in one process.

Both train 784-200-200-50, tanh, batch 100, on the same 50,000 binarized images kept as uint8, with the same fused Adam;
epochs alternate, so that both meet the same moods of the machine.

    python benchmarks/step.py --epochs 10
"""

import argparse
import os
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

import subo
from subo.data.loading import load_data
from subo.data.splits import Split
from subo.training.fitting import fit


class HandWritten(nn.Module):
    """What one writes by hand: two stacks of layers and the loss in closed form."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 100)
        )
        self.decoder = nn.Sequential(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784))

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        distortion = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        return (distortion + rate) / len(x)


def hand_written_epoch(model, optimizer, images) -> float:
    started = time.perf_counter()
    total = 0.0
    for index in torch.randperm(len(images)).split(100):
        x = images[index].float()
        loss = model(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    seconds = time.perf_counter() - started
    print(f"  hand-written  {seconds:6.2f} s   mean loss {total / len(images):.2f} nats")
    return seconds


def subo_epochs(images, epochs: int):
    """Yields the seconds of each epoch of one call of fit, between which the caller does something else."""
    torch.manual_seed(0)
    model = subo.VAE(
        subo.StandardNormal(50),
        subo.Conditional(subo.Bernoulli((784,)), subo.mlp(50, 784)),
        subo.Conditional(subo.Gaussian((50,)), subo.mlp(784, 100)),
    )
    return subo.Objective(model), Split(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = load_data("mnist", binarize="static").train.x.flatten(1)

    torch.manual_seed(0)
    by_hand = HandWritten()
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-3, fused=True)
    hand_written_epoch(by_hand, optimizer, images)  # warms both up

    hand, ours = [], []
    mark = 0.0

    def between_epochs(epoch) -> None:
        nonlocal mark
        seconds = time.perf_counter() - mark
        print(f"  subo          {seconds:6.2f} s   mean loss {-epoch.train.bound:.2f} nats", flush=True)
        if epoch.epoch > 1:  # the first also builds things
            ours.append(seconds)
            hand.append(hand_written_epoch(by_hand, optimizer, images))
        mark = time.perf_counter()

    objective, split = subo_epochs(images, arguments.epochs)
    mark = time.perf_counter()
    fit(objective, split, epochs=arguments.epochs + 1, on_epoch=between_epochs)
    ratios = [a / b for a, b in zip(ours, hand, strict=True)]
    print(f"threads {arguments.threads}, torch {torch.__version__}, {arguments.epochs} epochs each, in turns")
    print(f"seconds per epoch, median: subo {statistics.median(ours):.2f}, by hand {statistics.median(hand):.2f}")
    print(f"ratio subo / by hand: median of pairs {statistics.median(ratios):.3f}, total {sum(ours) / sum(hand):.3f}")


if __name__ == "__main__":
    main()
