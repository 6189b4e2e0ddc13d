"""Runs in folders: fitted from settings, opened again, measured and compared."""

from subo.experiments.experiment import Experiment, open_run

__all__ = ["Experiment", "open_run"]
