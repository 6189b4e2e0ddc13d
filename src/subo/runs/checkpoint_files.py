"""Checkpoint files: tensors and plain values, with the settings that they belong to and a digest of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from subo.errors import InputError
from subo.files.digests import digest_of, notes_digests
from subo.files.weights import check_settings, damaged, undigested
from subo.files.whole import check_readable, replacing

__all__ = ["accept_checkpoint", "load_checkpoint", "save_checkpoint"]


def save_checkpoint(state: Mapping[str, Any], path: Path, settings: Mapping[str, Any]) -> None:
    """Writes everything that training needs to resume."""
    noted = {**state, "run": settings}
    with replacing(path) as temporary, temporary.open("wb") as file:  # its errors say what went wrong
        torch.save({**noted, "sha256": digest_of(noted)}, file)


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote.

    Args:
        path: Path of the checkpoint.
        settings: Current settings of the run.

    Raises:
        InputError: The checkpoint is missing or unreadable, was changed, or belongs to other settings.
    """
    state = _read(path)
    noted = state.pop("sha256", None)  # version 0.1 did not write it
    if noted is None and notes_digests(settings):
        raise undigested(path)
    if noted is not None:
        if noted != digest_of(state):
            raise damaged(path)
        check_settings(state.pop("run"), settings, path)
    return state


def accept_checkpoint(path: Path, settings: Mapping[str, Any]) -> None:
    """Rewrites the checkpoint with these settings and leaves its state unchanged.

    Raises:
        InputError: The checkpoint cannot be read.
    """
    state = _read(path)
    save_checkpoint({name: value for name, value in state.items() if name not in ("run", "sha256")}, path, settings)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(
            f"{path.parent} has no checkpoint to resume from. Start again with `overwrite`; checkpoints are written "
            "every `checkpoint_minutes` and when training is stopped."
        )
    check_readable(path)
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(saved, dict):
            raise TypeError(type(saved).__name__)
        return saved
    except Exception as error:  # what torch raises for a foreign file depends on its bytes
        raise InputError(
            f"{path} is not a readable checkpoint ({type(error).__name__}). Restore it from a copy, or start again "
            "with `overwrite`."
        ) from error
