"""A run's settings and its model: fills in what depends on the data, and builds the objective they describe."""

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.quantization import MOST_LEVELS
from subo.parts.registry import is_over_reals
from subo.recipes.for_data import examples_and_context, model_of
from subo.runs.config import RunConfig

__all__ = ["built", "dequantizes"]


def dequantizes(data: Data, likelihood: str) -> bool:
    """Whether data are dequantized by default: integers with levels are, for a density of real numbers.

    A density of x/255 grows without bound as it concentrates on the levels, especially on pixels that are always black,
    and has no meaning; that of the dequantized levels bounds their log-probability. Bits already have a
    log-probability, and a continuous Bernoulli is an explicit choice.
    """
    train = data.train
    if data.sequential or data.binarize != "none" or data.kind != "grey" or train.x.is_floating_point():
        return False
    return 1 < train.levels <= MOST_LEVELS and (likelihood == "auto" or is_over_reals(likelihood))


def built(config: RunConfig, data: Data | None) -> Objective:
    """The objective that a config describes; initialized from data, if given."""
    assert config.recipe is not None, "see check_recipe"
    counted = {"num_data": config.data.sizes["train"]} if config.is_local else {}
    seed = config.training.seed
    examples, context = (None, None) if data is None else examples_and_context(data.train, seed=seed)
    settings, known = {**counted, **config.options}, {"context": context, "meaning": config.data.meaning}
    return model_of(config.recipe, settings, config.data.event_shape, examples=examples, **known, seed=seed)
