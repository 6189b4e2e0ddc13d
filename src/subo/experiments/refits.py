"""Draws of missing cells from refits of a run, so that they vary with its parameters, too."""

from collections.abc import Callable
from dataclasses import replace

import torch

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.evaluation.imputation import Imputation, check_refits, impute
from subo.experiments.config import built
from subo.experiments.experiment import Experiment, model_for
from subo.training.bootstrap import bootstrap

__all__ = ["impute_by_refits"]


def impute_by_refits(
    experiment: Experiment,
    split: Split,
    *,
    refits: int,
    num_draws: int,
    num_samples: int = 1000,
    seed: int = 0,
    advance: Callable[[float], object] | None = None,
) -> Imputation:
    """Fills missing cells with draws from models that are fitted to bootstrap samples of a run's training rows.

    Each is of the run's recipe, with its settings of model and training; the run itself stays as it is.

    Args:
        experiment: The run, whose data are still there.
        split: Rows, coded as the run's data were.
        refits: Number of models, see :func:`subo.bootstrap`.
        num_draws: Number of fillings, as many from each model: those of a model follow each other.
        num_samples: Number of samples of z from which each draw takes one.
        seed: Seed for rows, fits and draws.
        advance: Called with 1 whenever a model is done.

    Raises:
        InputError: The draws cannot be divided among the models, or the data have changed.
    """
    check_refits(num_draws, refits)
    config, parts = experiment.config, []

    def build(data: Data, own_seed: int) -> Objective:
        return built(replace(config, training=replace(config.training, seed=own_seed)), data)

    place = {"device": config.device.device, "precision": config.device.precision}
    data = experiment.data()
    if config.is_local:
        data = replace(data, validation=data.validation.take(torch.arange(0)))  # it has no rows of parameters
    settings = {**vars(config.training), **place}
    fits = bootstrap(build, data, refits=refits, **{**settings, "seed": seed})
    for number, objective in enumerate(fits):
        model = model_for(replace(experiment, objective=objective), split)
        own = num_draws // refits
        parts.append(impute(model, split, num_draws=own, num_samples=num_samples, seed=seed + number))
        if advance is not None:
            advance(1)
    return Imputation.of(parts)
