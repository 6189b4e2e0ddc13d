"""Weight files: tensors in safetensors, with the settings that they were fitted with and a digest of both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from subo.errors import InputError
from subo.files.digests import changes, digest_of, notes_digests
from subo.files.whole import check_readable, replacing

__all__ = [
    "WeightsFile",
    "check_settings",
    "damaged",
    "digest_of_weights",
    "noted_in",
    "read_tensors",
    "save_weights",
    "undigested",
]

_NOTE = "subo"  # one entry, since safetensors writes several in any order, and equal weights must give equal files


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """The content of a weight file.

    Attributes:
        path: Path of the file.
        tensors: Tensors by the module's names for them; shared ones appear under each of their names.
        metadata: Names of shared tensors, settings and digest, as safetensors stores them.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "WeightsFile":
        """Reads a whole file at once, so that all of it is from one write even while another replaces it.

        Raises:
            InputError: The file cannot be opened, is truncated or is not a safetensors file.
        """
        check_readable(path)
        try:
            tensors, metadata = read_tensors(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is not a readable safetensors file ({error}). It may be truncated or not "
                "written by subo: restore it from a copy, or fit again."
            ) from error
        shared = {name: tensors[other] for name, other in metadata.items() if other in tensors}
        return cls(path, {**tensors, **shared}, metadata)

    @property
    def note(self) -> dict[str, Any] | None:
        """Settings, digest and caution that the file was written with; None for version 0.1, which stored none."""
        return _note_in(self.metadata)

    def checked(self, settings: Mapping[str, Any], module: nn.Module) -> str:
        """The digest of weights and settings.

        Args:
            settings: The run's current settings.
            module: Module that the weights belong to; its parameters are finite, as training left them.

        Raises:
            InputError: A bit, a setting or the digest itself has changed, or a number is NaN or infinite.
        """
        finite = {name for name, _ in module.named_parameters()}  # masks, which are not parameters, may hold infinities
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() and not (tensor.isfinite() if name in finite else ~tensor.isnan()).all():
                what = "NaN" if tensor.isnan().any() else "an infinite number"
                raise InputError(
                    f"{self.path} holds {what} in {name}: nothing can be computed from it. Restore the "
                    "file from a copy, or fit again."
                )
        if self.note is None:
            if notes_digests(settings):
                raise undigested(self.path)
            return digest_of_weights(self.tensors, settings)
        digest = digest_of_weights(self.tensors, self.note.get("settings", {}))
        if digest != self.note.get("sha256"):
            raise damaged(self.path)
        check_settings(self.note["settings"], settings, self.path)
        return digest

    def accept(self, settings: Mapping[str, Any]) -> None:
        """Rewrites the file with the same weights and these settings."""
        aliases = {name: other for name, other in self.metadata.items() if other in self.tensors}
        kept = {name: tensor.contiguous() for name, tensor in self.tensors.items() if name not in aliases}
        with replacing(self.path) as temporary:
            digest, caution = digest_of_weights(self.tensors, settings), (self.note or {}).get("caution")
            save_file(kept, temporary, metadata={**aliases, **_noted(settings, digest, caution)})


def save_weights(
    module: nn.Module, path: Path, settings: Mapping[str, Any], digest: str, *, caution: str | None = None
) -> None:
    """Writes a module's weights.

    Args:
        module: Module to be saved.
        path: Path of the output file.
        settings: The run's settings.
        digest: Digest of the weights and these settings, from :func:`digest_of_weights`.
        caution: A warning about the training that the weights come from.
    """
    with replacing(path) as temporary:
        save_model(module, str(temporary), metadata=_noted(settings, digest, caution))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata.

    Raises:
        OSError: The file cannot be opened.
        safetensors.SafetensorError: The file is truncated or is not a safetensors file.
    """
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def digest_of_weights(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """The digest that identifies weights, as used with some settings."""
    return digest_of({"settings": settings, "tensors": dict(sorted(tensors.items()))})


def noted_in(path: Path, name: Literal["sha256", "caution"]) -> str | None:
    """The digest or the caution stored in a weight file; None if there is no such file or it stores none."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            note = _note_in(file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return None
    return None if note is None else note.get(name)


def check_settings(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuses settings that differ from those a file was written with; a folder without a config has none.

    Raises:
        InputError: Says which settings differ.
    """
    if now and (found := list(changes(then, now))):
        raise InputError(
            f"{path} was written with other settings than config.json has: {'; '.join(found)}. Its numbers would be "
            "those of another model. Undo the change or, if it is intended, accept it by "
            f"`accept_changes={_run_of(path)}`."
        )


def damaged(path: Path) -> InputError:
    """The error for a file whose digest does not match its content."""
    return InputError(
        f"{path} is damaged or was changed: its content does not have the SHA-256 digest stored when it was written. "
        f"Restore it from a copy, or fit again; accept an intended change by "
        f"`accept_changes={_run_of(path)}`."
    )


def undigested(path: Path) -> InputError:
    """The error for a file whose digest was lost."""
    return InputError(
        f"{path} has no SHA-256 digest of its content, but the version of subo that made this run stores one: the file "
        "comes from elsewhere, or was rewritten by another program. Restore it from a copy, or fit again; accept an "
        f"intended change by `accept_changes={_run_of(path)}`."
    )


def _run_of(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "snapshots" else path.parent


def _noted(settings: Mapping[str, Any], digest: str, caution: str | None) -> dict[str, str]:
    note = {"settings": settings, "sha256": digest}
    if caution is not None:
        note["caution"] = caution
    return {_NOTE: json.dumps(note, sort_keys=True)}


def _note_in(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What :func:`_noted` made; empty if it is damaged."""
    if _NOTE not in metadata:
        return None
    try:
        note = json.loads(metadata[_NOTE])
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
