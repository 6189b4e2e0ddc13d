"""Models in one file: weights and the recipe that rebuilds the model, in safetensors and JSON."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from subo.core.objective import Objective
from subo.errors import InputError
from subo.files.weights import WeightsFile, digest_of_weights, save_weights
from subo.models.ladder import Ladder
from subo.models.vae import VAE
from subo.recipes import RECIPES
from subo.runtime.arguments import checked_arguments

__all__ = ["load_model", "read_weights", "save"]


@checked_arguments
def save(model: nn.Module, path: str | Path) -> None:
    """Writes a model's weights, and its recipe if it has one, to a file.

    Args:
        model: The model, or the objective that holds it.
        path: Path of the output file, such as ``model.safetensors``.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> import tempfile, torch, subo
        >>> objective = subo.make("vae", torch.rand(50, 4).round(), latent_dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(objective, f"{folder}/model.safetensors")
        ...     model = load_model(f"{folder}/model.safetensors")
        >>> model.sample(3)[1].batch_shape
        torch.Size([3])
    """
    model = model.model if isinstance(model, Objective) else model
    made_by = getattr(model, "made_by", None)
    settings = {} if made_by is None else made_by.as_json()
    digest = digest_of_weights(dict(model.state_dict()), settings)
    save_weights(model, Path(path), settings, digest)


@checked_arguments
def load_model(path: str | Path) -> VAE | Ladder:
    """Rebuilds a model from a file that :func:`save` wrote and reads its weights.

    The model of a run folder is ``subo.open_run(folder).model``. To read weights of a model without a recipe, build the
    same model and use :func:`subo.load_weights`.

    Args:
        path: The file.

    Raises:
        InputError: The file is of another kind, its content was changed, or its model has no recipe.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: subo.open_run(path).model is the model of a run")
    file = WeightsFile.read(path)
    settings = (file.note or {}).get("settings") or {}
    if "recipe" not in settings:
        raise InputError(
            f"{path} does not say how its model is built: it was not made by a recipe. Build the same model and "
            "read the weights with subo.load_weights(model, path)"
        )
    if settings["recipe"] not in RECIPES:
        raise InputError(f"{path} has a model of the recipe {settings['recipe']!r}, which this version does not have")
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in settings["options"].items()}
    model: Any = RECIPES[settings["recipe"]](tuple(settings["event_shape"]), **options).model
    if any(tensor.dtype == torch.float64 for tensor in file.tensors.values()):
        model.double()
    _read_into(model, file)
    return model.eval()


def read_weights(model: nn.Module, path: Path) -> None:
    """Reads the weights in a file that :func:`save` wrote into an identically built model."""
    _read_into(model, WeightsFile.read(path))


def _read_into(model: nn.Module, file: WeightsFile) -> None:
    file.checked((file.note or {}).get("settings") or {}, model)
    try:
        model.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise InputError(
            f"{file.path} has the weights of another model: {str(error).splitlines()[-1].strip()} Build the same model "
            "as when they were saved."
        ) from error
