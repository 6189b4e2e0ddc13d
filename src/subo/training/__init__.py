"""Training: the loop, epochs, optimizers and checkpoints."""

from subo.training.bootstrap import bootstrap
from subo.training.fitting import fit
from subo.training.history import Epoch, History, WorseWarning
from subo.training.loop import Schedule, train
from subo.training.optimizers import make_optimizer
from subo.training.python_runs import load_weights
from subo.training.settings import training_settings
from subo.training.step import Step

__all__ = [
    "Epoch",
    "History",
    "Schedule",
    "Step",
    "WorseWarning",
    "bootstrap",
    "fit",
    "load_weights",
    "make_optimizer",
    "train",
    "training_settings",
]
