"""Records as files: any record of tensors and plain values can be stored, read back, and joined with others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from subo.files.digests import digest_of
from subo.files.weights import read_tensors
from subo.files.whole import replacing

__all__ = ["Joinable", "Parts", "joined", "read_record", "write_record"]


@dataclass(frozen=True, eq=False)
class Parts:
    """The contents of a record by field name; fields of a nested record are named ``field.name``.

    Attributes:
        tensors: Tensors of the record.
        values: Numbers, strings, flags, tuples of these, and None.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    @classmethod
    def of(cls, record: Any) -> "Parts":
        """Takes a record apart.

        Example:
            >>> from subo.evaluation import PriorEstimate
            >>> parts = Parts.of(PriorEstimate(*[torch.zeros(3)] * 4, num_samples=10))
            >>> list(parts.tensors), parts.values
            (['log_px', 'standard_error', 'effective_sample_size', 'pareto_k'], {'num_samples': 10})
        """
        tensors: dict[str, Tensor] = {}
        values: dict[str, Any] = {}
        for name, value in ((field.name, getattr(record, field.name)) for field in fields(record)):
            if isinstance(value, Tensor):
                tensors[name] = value.contiguous()
            elif is_dataclass(value):
                inner = cls.of(value)
                tensors |= {f"{name}.{own}": tensor for own, tensor in inner.tensors.items()}
                values |= {f"{name}.{own}": plain for own, plain in inner.values.items()}
            else:
                values[name] = value
        return cls(tensors, values)

    def record(self, kind: type) -> Any:
        """Puts a record together again; the inverse of :meth:`of`.

        Args:
            kind: Dataclass of the record.

        Raises:
            LookupError: A field without a default is missing.
        """
        hints, found = get_type_hints(kind), {}
        for field in fields(kind):
            if field.name in self.tensors:
                found[field.name] = self.tensors[field.name]
            elif field.name in self.values:
                value = self.values[field.name]
                found[field.name] = tuple(value) if isinstance(value, list) else value
            elif any(name.startswith(f"{field.name}.") for name in (*self.tensors, *self.values)):
                inner = next(k for k in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(k))
                found[field.name] = self._within(f"{field.name}.").record(inner)  # pyright: ignore[reportArgumentType]
            else:
                raise LookupError(field.name)
        return kind(**found)

    def _within(self, prefix: str) -> "Parts":
        inner = ({n[len(prefix) :]: v for n, v in part.items() if n.startswith(prefix)} for part in vars(self).values())
        return Parts(*inner)


def write_record(file: Path, record: Any) -> None:
    """Writes a record, whole or not at all, with a digest of its contents and of its file name."""
    parts = Parts.of(record)
    noted = {"values": dict(parts.values), "sha256": _digest(file, parts)}
    with replacing(file) as temporary:  # under one name: with several, their order in the file is random
        own = {name: tensor.clone() for name, tensor in parts.tensors.items()}  # tensors that share memory are refused
        save_file(own, temporary, metadata={"record": json.dumps(noted)})


def read_record(file: Path, kind: type) -> Any:
    """Reads what :func:`write_record` wrote; None if the file is not what was written under its name."""
    try:
        tensors, metadata = read_tensors(file)
        noted = json.loads(metadata["record"])
        parts = Parts(tensors, noted["values"])
        return parts.record(kind) if noted["sha256"] == _digest(file, parts) else None
    except (OSError, SafetensorError, LookupError, TypeError, ValueError):
        return None


def _digest(file: Path, parts: Parts) -> str:
    return digest_of([file.name, dict(sorted(parts.tensors.items())), json.dumps(parts.values, sort_keys=True)])


@runtime_checkable
class Joinable(Protocol):
    """A record that can be joined with records of other data."""

    @classmethod
    def joined(cls, parts: Sequence[Any]) -> Any:
        """The record of all their data."""
        ...


def joined(records: Sequence[Any]) -> Any:
    """Joins the records of several sets of data: tensors are concatenated along their last axis, that of the data."""
    first, *others = records
    if not others:
        return first
    if isinstance(first, Joinable):
        return type(first).joined(records)
    tensors = {name: torch.cat([getattr(r, name) for r in records], dim=-1) for name in Parts.of(first).tensors}
    return replace(first, **tensors)
