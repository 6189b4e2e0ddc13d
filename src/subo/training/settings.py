"""Settings of training that follow from the size of a table, or the number of images or sequences."""

import inspect
import math
from typing import Any

import numpy as np
from torch import Tensor

from subo.core.objective import Objective
from subo.core.offers import Tempered
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.data.support import check_support
from subo.parts.conditionals import Local
from subo.recipes.data_size import SequencesSize, size_of
from subo.recipes.for_data import as_data
from subo.runtime.arguments import checked_arguments, checked_settings
from subo.training.fitting import fit
from subo.training.windows import takes_windows

__all__ = ["BY_ROWS", "training_settings"]

BY_ROWS = ("batch_size", "epochs", "learning_rate", "decay", "warmup_epochs", "kl_warmup_epochs", "patience")
"""The settings that follow from the number of a table's rows, of images or of sequences."""

_LEARNING_RATE = 3e-3
_WARMUP, _PATIENCE = 0.02, 0.3  # shares of the epochs
_LEAST_PATIENCE = 5


@checked_arguments
def training_settings(
    objective: Objective, data: Data | Split | Tensor | np.ndarray | tuple[object, object], **options: Any
) -> dict[str, Any]:
    """Settings of :func:`subo.fit` that suit a table, images or sequences by their number; for other data those given.

    Few rows get small batches, since it is steps that fit a model: 4,000 at least, for 100 epochs up to 8,000. The
    learning rate rises over the first 2% of the epochs and falls by a cosine; the KL's weight rises over the first 20%,
    so that latents are used before they are paid for (Sonderby et al., 2016); training stops after 30% of the epochs
    without a better validation bound. `benchmarks/small_tables.txt` compares the result with Gaussian mixtures.

    10,000 images and more get batches of 250 and 12,000 steps, in 10 to 100 epochs, with the same learning rate,
    patience and KL warm-up; fewer images batches of 128 at most and 6,000 steps, but 100 epochs at most where neither a
    validation bound nor minutes end training. Sequences get such batches and warm-up, and 2,000 steps, fewer if they
    are longer than 100 on average. `benchmarks/defaults.txt` compares both with fixed settings. Where some are longer
    than 1,000 steps, a deep Markov model is trained in windows of 100 (`benchmarks/windows.txt`).

    With minutes alone the learning rate follows the clock, and the KL's weight is 1 after half of them at the latest.

    Args:
        objective: Objective to train.
        data: Data in splits, or training examples in any form that :func:`subo.fit` takes.
        **options: Settings that are decided; the others follow them.

    Raises:
        InputError: A setting makes no sense.

    Example:
        >>> import torch
        >>> from subo import Data, make
        >>> from subo.data import split
        >>> data = Data("rows", *split(torch.randn(200, 3)), kind="real")
        >>> settings = training_settings(make("vae", data), data)
        >>> settings["batch_size"], settings["epochs"]
        (16, 400)
    """
    given, known = checked_settings(inspect.signature(fit).parameters, options), as_data(data)
    if not isinstance(data, Data):
        check_support(objective.model, known.train, where="the data")
    size = size_of(known) or SequencesSize.of(known)
    if size is None or size.rows == 0:
        return given
    batch_size = given.get("batch_size", size.batch_size)
    ends_early = bool(len(known.validation)) and not isinstance(getattr(objective.model, "posterior", None), Local)
    most = math.inf if ends_early else size.most_unwatched
    epochs = given.get("epochs") or min(size.epochs(math.ceil(size.rows / batch_size)), most)
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "learning_rate": _LEARNING_RATE,
        "decay": "cosine",
        "warmup_epochs": _WARMUP * epochs,
    }
    if given.get("minutes") is None:
        settings["epochs"] = epochs
    if isinstance(objective.bound, Tempered) and size.kl_warmup:
        settings["kl_warmup_epochs"] = size.kl_warmup * epochs
    if isinstance(size, SequencesSize) and size.window and takes_windows(objective):
        settings["window"] = size.window
    if ends_early:
        settings["patience"] = max(_LEAST_PATIENCE, round(_PATIENCE * epochs))
    return {**settings, **given}
