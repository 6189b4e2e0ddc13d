"""Runs that :func:`subo.fit` makes in Python: their model exists only as code, which no file of a run contains.

Their ``config.json`` names no recipe. It records data, objective and training, so that they resume with the same ones;
errors explain how to load the model.
"""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.data.values import kind_of
from subo.errors import InputError
from subo.files.digests import changes, counting_settings
from subo.recipes.saving import read_weights
from subo.runs.config import DataConfig, DeviceConfig, RunConfig, TrainingConfig
from subo.runs.run import Run
from subo.runtime.arguments import checked_arguments

__all__ = ["check_recipe", "config_in_python", "load_weights", "resume_in_python"]


def config_in_python(
    objective: Objective, data: Data | Split | None, training: TrainingConfig, device: DeviceConfig
) -> RunConfig:
    """The config of a run made in Python.

    Args:
        objective: Objective to train.
        data: Data to train on, as far as they are in memory.
        training: Settings of :func:`subo.fit`.
        device: Device to train on.
    """
    if data is None:  # they came in batches
        data = Split(torch.zeros(0, 0))
    if isinstance(data, Split):
        none = data.take(torch.arange(0))
        data = Data("training data", data, none, none, kind=kind_of(data.x, levels=data.levels))
    made_of = {
        "model": type(objective.model).__name__,
        "bound": repr(objective.bound) if is_dataclass(objective.bound) else _name(objective.bound),
        "gradient": type(objective.gradient).__name__,
        "num_samples": objective.num_samples,
    }
    return RunConfig(None, {}, DataConfig.of(data, data.name), training, device, objective=made_of)


def _name(bound: Any) -> str:
    return getattr(bound, "__qualname__", type(bound).__name__)


def check_recipe(run: Run, config: RunConfig) -> None:
    """Refuses to build the model of a run that was made in Python.

    Raises:
        InputError: The run was made in Python; the message says how to load its weights and how to continue.
    """
    if config.recipe is None:
        made = config.objective.get("model", "model")
        raise InputError(
            f"the {made} of the run in {run.path} was made in Python, and no file can rebuild it. In Python: build the "
            f"model the same way and load its weights with subo.load_weights(model, '{run.path}'); to continue "
            "training, repeat the call of subo.fit with resume=True."
        )


def resume_in_python(run: Run, config: RunConfig) -> None:
    """Updates the config of a run that a call of :func:`subo.fit` resumes.

    Only how long to train and what to keep may change. A recipe's config stays as it is. Runs that version 0.1 made in
    Python have no config, and get one.

    Raises:
        InputError: Data, objective or training settings differ from before.
    """
    if not run.config.exists():
        run.write_config(config.as_json())
        return
    stored = run.read_config()
    then, now = stored.data.fingerprint, config.data.fingerprint
    if then != now:
        raise InputError(
            f"the run in {run.path} was started with different data (fingerprint {then}, now {now}), and continuing "
            "with these would be a different run. Give the same data, in the same order and split, or start another "
            "run with another run_dir."
        )
    if stored.recipe is not None:
        return
    then, now = (
        {name: of.get(name, {}) for name in ("objective", "training")}
        for of in (counting_settings(each.as_json()) for each in (stored, config))
    )
    if found := list(changes(then, now)):
        raise InputError(
            f"the run in {run.path} was started with other settings ({'; '.join(found)}), and continuing with these "
            "would be a different run. Give the same settings, or start another run with another run_dir."
        )
    run.change_training(config.as_json()["training"])


@checked_arguments
def load_weights(model: nn.Module, run_dir: str | Path, *, epoch: int | None = None) -> None:
    """Reads the weights of a run, or of a file that :func:`subo.save` wrote, into a model built the same way.

    Args:
        model: Model to load into, in place; that of ``Objective(model)``.
        run_dir: Run folder, or the file.
        epoch: Epoch after which to take the weights, if they were kept; the fitted ones by default.

    Raises:
        InputError: There is no such run, it is not finished, or its weights belong to another model.

    Example:
        >>> import tempfile
        >>> from subo import fit, probabilistic_pca
        >>> folder = tempfile.mkdtemp()
        >>> model, x = probabilistic_pca(5, 2), torch.randn(100, 5)
        >>> history = fit(Objective(model), x, epochs=2, run_dir=folder)
        >>> again = probabilistic_pca(5, 2)
        >>> load_weights(again, folder)
        >>> torch.equal(again.likelihood.weight, model.likelihood.weight)
        True
    """
    if isinstance(model, Objective):
        raise InputError("load_weights expects a model, not an Objective: use load_weights(objective.model, run_dir)")
    if Path(run_dir).is_file():
        read_weights(model, Path(run_dir))
        return
    Run.open(run_dir, finished=epoch is None).load_weights(model, epoch=epoch)
