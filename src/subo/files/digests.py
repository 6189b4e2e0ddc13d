"""Digests of weights and settings, which reveal that one of them has changed since it was written."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["changes", "counting_settings", "digest_of", "notes_digests"]

_BESIDE_THE_NUMBERS: dict[str, set[str]] = {
    "data": {"source", "data_dir"},  # where the data are; their fingerprint says what they are
    "training": {
        "epochs",
        "minutes",
        "patience",
        "checkpoint_minutes",
        "keep_weights",
    },  # how long, and what to keep
    "device": {"device", "processes", "strategy"},
}


def digest_of(value: Any) -> str:
    """The SHA-256 digest of tensors and plain values in any nesting of mappings and sequences.

    Tensors are digested by type, shape and bits, on any device; equal lists and tuples have equal digests, as in JSON.
    It takes about 3 seconds per gigabyte on one core.

    Example:
        >>> digest_of({"a": [1, 2.0], "b": torch.zeros(2)}) == digest_of({"a": (1, 2.0), "b": torch.zeros(2)})
        True
        >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2, 1))
        False
    """
    digest = hashlib.sha256()
    _feed(value, digest.update)
    return digest.hexdigest()


def _feed(value: Any, update: Callable[[Any], None]) -> None:
    if isinstance(value, Tensor):
        update(f"{value.dtype} {tuple(value.shape)};".encode())
        update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        update(f"mapping {len(value)};".encode())
        for name, item in value.items():
            _feed(name, update)
            _feed(item, update)
    elif isinstance(value, list | tuple):
        update(f"sequence {len(value)};".encode())
        for item in value:
            _feed(item, update)
    else:
        update(f"{type(value).__name__} {value!r};".encode())


def counting_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a run's config on which its numbers depend, as JSON reads them back, sorted by name.

    Example:
        >>> counting_settings({"recipe": "vae", "training": {"seed": 1, "epochs": 5}, "subo": "0.1.0"})
        {'recipe': 'vae', 'training': {'seed': 1}}
    """
    counting = {name: value for name, value in config.items() if name != "subo"}
    for section, beside in _BESIDE_THE_NUMBERS.items():
        if isinstance(counting.get(section), Mapping):
            counting[section] = {name: value for name, value in counting[section].items() if name not in beside}
    return json.loads(json.dumps(counting, sort_keys=True))


def notes_digests(settings: Mapping[str, Any]) -> bool:
    """Whether the files of a run with these settings hold digests, which those of version 0.1 may lack.

    It is decided by whether the config says what values mean, as configs have done since then.

    Example:
        >>> notes_digests({"data": {"meaning": {"levels": 16}}}), notes_digests({"data": {"levels": 16}})
        (True, False)
    """
    data = settings.get("data")
    return isinstance(data, Mapping) and "meaning" in data


def changes(then: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Describes which settings have changed.

    Example:
        >>> list(changes({"options": {"likelihood": "bernoulli"}}, {"options": {"likelihood": "gaussian"}}))
        ['options.likelihood is "gaussian" and was "bernoulli"']
    """
    for name in sorted({*then, *now}):
        before, after = then.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changes(before, after, f"{within}{name}.")
        elif name not in now:
            yield f"{within}{name} is missing and was {_short(before)}"
        elif name not in then:
            yield f"{within}{name} is {_short(after)} and was not there"
        elif json.dumps(before) != json.dumps(after):  # which distinguishes 1 and 1.0
            yield f"{within}{name} is {_short(after)} and was {_short(before)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
