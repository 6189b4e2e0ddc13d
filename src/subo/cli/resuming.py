"""What ``fit --resume`` accepts: options that repeat what the run has, and those that may change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subo.errors import InputError

if TYPE_CHECKING:
    from subo.runs.config import RunConfig

__all__ = ["changes_of"]

_CHANGEABLE = ("epochs", "minutes", "patience", "checkpoint_minutes")
_OWN = (
    "out",
    "resume",
    "evaluation_samples",
    "quiet",
    "seeds",
    "jobs",
    "measure",
    "processes",
)  # not settings of a run


def changes_of(config: "RunConfig", given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options that may change.

    Args:
        config: What the run is.
        given: Options of ``fit``.

    Raises:
        InputError: Another one differs from the run's.
    """
    for name in (name for name in given if name not in (*_OWN, *_CHANGEABLE)):
        value, stored = _plain(name, given[name]), _plain(name, _stored(config, name))
        if value not in (stored, "auto"):
            raise InputError(
                f"--resume continues with the run's own settings, but --{name.replace('_', '-')} {_shown(value)} "
                f"differs from the run's, {_shown(stored)}. Leave it out, or fit another run. Only "
                f"{_flags(_CHANGEABLE)} can change."
            )
    return {name: given[name] for name in _CHANGEABLE if name in given}


def _stored(config: "RunConfig", name: str) -> Any:
    """The value in a run's config for an option of ``fit``."""
    data = config.data
    known = {
        **config.settings,
        **vars(config.device),
        "recipe": config.recipe,
        "data": data.source,
        "data_dir": data.data_dir,
        "data_seed": data.seed,
        "binarize": data.binarize,
        "dequantize": data.dequantize,
        "on_disk": data.on_disk,
        "image_size": data.event_shape[-1],
        "overwrite": False,
    }
    return known.get(name)


def _plain(name: str, value: Any) -> Any:
    """A value in the form in which a config stores it."""
    if name in ("data", "data_dir") and value is not None and Path(value).exists():
        return str(Path(value).resolve())
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _flags(names: Sequence[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
