"""Local optimisation of q: posterior parameters for given data, the model held fixed."""

import torch

from subo.batches import batches, num_batches
from subo.bounds import reported
from subo.conditionals import Local
from subo.data import Split
from subo.devices import evaluating, place
from subo.errors import InputError
from subo.model import VAE
from subo.objective import Objective
from subo.randomness import forked

__all__ = ["with_local_posterior"]


def with_local_posterior(
    objective: Objective,
    split: Split,
    *,
    epochs: int = 300,
    batch_size: int = 500,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> VAE:
    """The same prior and likelihood, with a posterior fitted to these data one by one.

    Maximises the objective's bound over a free row of parameters for every datum, from the family's plainest member,
    by Adam with a cosine decay; the model and what the data share of the family (a flow's maps) stay as they are.

    Args:
        objective: Its model is a :class:`~subo.model.VAE` whose posterior is :class:`~subo.conditionals.Local`.
        split: The data.
        epochs: Steps for every datum.
        batch_size: Data at a time.
        learning_rate: Adam's first step size.
        seed: Of the samples.

    Returns:
        A model for these data alone, named by their position in `split`.

    Raises:
        InputError: The posterior has no rows of parameters.
    """
    model = objective.model
    if not isinstance(model, VAE) or not isinstance(model.posterior, Local):
        raise InputError("the model's posterior is not Local: it needs no fitting to new data")
    like = next(model.parameters())
    rows = Local(model.posterior.family, len(split)).to(like)
    local = VAE(model.prior, model.likelihood, rows)
    inner = Objective(local, reported(objective.bound), num_samples=objective.num_samples)
    optimizer = torch.optim.Adam([rows.params], lr=learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * num_batches(split, batch_size))
    with evaluating(inner), forked(seed):
        for epoch in range(epochs):
            for batch in batches(split, batch_size, seed=seed, epoch=epoch):
                loss = inner(*place(inner, batch.x, batch.context)).loss
                (rows.params.grad,) = torch.autograd.grad(loss, [rows.params])  # and of nothing else
                optimizer.step()
                decay.step()
    return local
