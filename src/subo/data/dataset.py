"""A data set: three splits, and the meaning of their numbers."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Integer, Shaped
from torch import Tensor

from subo.data.meaning import Meaning
from subo.data.rows_on_disk import RowsOnDisk
from subo.data.splits import Binarize, Split
from subo.data.stored_rows import arrays
from subo.data.values import Kind, constant_elements
from subo.errors import InputError
from subo.runtime.randomness import stream

__all__ = ["Data", "describe_constants", "divided", "split"]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three splits.

    Attributes:
        name: Source of the data: a known name or a path.
        train: Split that parameters are fitted to.
        validation: Split for choices (when to stop, which model).
        test: Split that is reported, once.
        kind: Kind of the values that `read` returns: `binary` in {0, 1}, `grey` in [0, 1], `whole`
            non-negative integers, else `real`.
        binarize: The policy that was applied, see :func:`subo.data.binarized`.
        dequantize: Whether uniform noise is added, see :func:`subo.data.dequantized`.
        seed: Seed for the split, the bits and the noise.
        feature_names: Names of a table's columns, if it has them.
        class_names: Names that the labels 0, 1, ... stand for, if any.
        decided: Meaning of the values before anything was drawn from them; by default that of the splits.
        division: Description of how the three parts were made.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    kind: Kind
    binarize: Binarize = "none"
    dequantize: bool = False
    seed: int = 0
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    decided: Meaning | None = None
    division: str | None = None

    def __post_init__(self):
        first = 0
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            named = replace(split, first=first, class_names=self.class_names or split.class_names)
            object.__setattr__(self, name, named)  # frozen for everyone else
            first += len(split)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in ("train", "validation", "test"))
        bits = "" if self.binarize == "none" else f", binarize {self.binarize}"
        noise = ", dequantized" * self.dequantize
        what = "sequences of steps of shape" if self.sequential else "of shape"
        return f"Data({self.name}: {sizes}, {what} {tuple(self.train.event_shape)}, {self.kind}{bits}{noise})"

    @property
    def sequential(self) -> bool:
        """Whether the data are sequences."""
        return self.train.lengths is not None

    @property
    def meaning(self) -> Meaning:
        """The meaning of the values, which determines how later data are read."""
        x, shape = self.train.x, tuple(self.train.event_shape)
        pixels = not (x.is_floating_point() or self.sequential)
        own = self.decided or Meaning(self.kind, shape, levels=self.train.levels, pixels=pixels)
        names = {"feature_names": self.feature_names, "class_names": self.class_names}
        return replace(own, event_shape=shape, sequential=self.sequential, **names)

    def constant_features(self) -> tuple[str, ...]:
        """Names, or else numbers from 1, of a table's columns that are constant in the training data."""
        x = self.train.x
        if x.ndim != 2 or self.kind == "binary":
            return ()
        names = self.feature_names or [str(i + 1) for i in range(x.shape[1])]
        return tuple(names[i] for i in constant_elements(x).nonzero()[:, 0].tolist())

    def num_constant(self) -> int:
        """How many elements of an example, such as pixels, are constant in the training data; per step for sequences.

        Elements whose noise or bits are drawn at every read never count, whatever they are drawn from.
        """
        return 0 if self.train.resample else int(constant_elements(self.train.x).sum())

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of everything stored, in order.

        Two runs with the same fingerprint used the same data, the same split and, if static, the same bits. Of rows on
        disk it is made of shapes and types, which rows each split has, up to 10,000 rows of each that are spread
        evenly, and all labels: a change of other rows is not seen.
        """
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            of_sequences = () if part.lengths is None else (part.lengths,)
            for name in sorted(part.context):
                digest.update(f"{name};".encode())
            for tensor in (
                *arrays(part.x),
                part.labels,
                *of_sequences,
                *(part.context[name] for name in sorted(part.context)),
            ):
                if tensor is None:
                    digest.update(b"none;")
                else:
                    digest.update(f"{tensor.dtype},{tuple(tensor.shape)},{part.levels};".encode())
                    digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Describes what the data are and how they were made, as stored in a run."""
        drawn = f"drawn once from Bernoulli(x) with seed {self.seed}"
        how = {
            "none": "nothing was binarized",
            "static": f"train, validation and test were each {drawn}",
            "dynamic": f"train is drawn again from Bernoulli(x) at every read; validation and test were each {drawn}",
        }
        binarization, noise = how[self.binarize], "none was added"
        if self.dequantize:
            binarization = "nothing was binarized"
            noise = (
                f"the levels y = 0 .. {self.train.levels} are read as y + u, u uniform on [0, 1): in train drawn "
                f"again at every read, in validation and test each drawn once with seed {self.seed}"
            )
        parts = {name: getattr(self, name) for name in ("train", "validation", "test")}
        return {
            "name": self.name,
            "division": self.division,
            "event_shape": tuple(self.train.event_shape),
            "sizes": {name: len(part) for name, part in parts.items()},
            "steps": {name: part.num_steps for name, part in parts.items()} if self.sequential else None,
            "kind": self.kind,
            "levels": self.train.levels,
            "on_disk": isinstance(self.train.x, RowsOnDisk),
            "constant": self.num_constant(),
            "binarize": self.binarize,
            "binarization": binarization,
            "dequantize": self.dequantize,
            "noise": noise,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "meaning": self.meaning,
        }


def split(
    x: Shaped[Tensor, " M *event"],
    *,
    labels: Integer[Tensor, " N"] | None = None,
    levels: int = 1,
    lengths: Integer[Tensor, " N"] | None = None,
    context: Mapping[str, Shaped[Tensor, "N ..."]] | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    where: str = "the data",
) -> tuple[Split, Split, Split]:
    """Splits data at random into train, validation and test, with at least one example each.

    Args:
        x: `(N, *event)`, as stored.
        labels: `(N,)`, or None.
        levels: The stored value that means 1.0.
        lengths: `(N,)`, lengths of sequences, whose steps are concatenated in `x`.
        context: Further named context of each example, `(N, ...)`.
        seed: Seed for the permutation.
        fractions: Shares of train, validation and test; they sum to 1. The last two are rounded down.
        where: Name of the data in messages.

    Raises:
        InputError: There are fewer than three rows, the fractions do not sum to 1, or labels or context are
            not one per example.
    """
    whole = Split(x, levels=levels, labels=labels, lengths=lengths, context=context or {})
    return divided(whole, seed=seed, fractions=fractions, where=where)


def _as_read(index: Integer[Tensor, " B"], whole: Split) -> Integer[Tensor, " B"]:
    """Rows on disk in the order of their files, so that neighbors are read together."""
    return index.sort().values if isinstance(whole.x, RowsOnDisk) else index


def divided(
    whole: Split, *, seed: int = 0, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), where: str = "the data"
) -> tuple[Split, Split, Split]:
    """Splits an existing split, as :func:`split` does."""
    n = len(whole)
    if n < 3:
        kind, hint = "sequence", ""
        if whole.lengths is None:
            kind, hint = "row", "; usually an axis is missing or swapped: rows are data"
        found = {0: f"no {kind}s", 1: f"one {kind}"}.get(n, f"{n} {kind}s")
        raise InputError(
            f"{where}: at least three {kind}s are needed, one each to train, validate and test on, and there "
            f"{'is' if n == 1 else 'are'} {found}{hint}"
        )
    if min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"fractions must be three shares that sum to 1, such as 0.8, 0.1, 0.1; got {fractions}")
    num_test = min(max(math.floor(n * fractions[2] + 1e-6), 1), n - 2)
    num_validation = min(max(math.floor(n * fractions[1] + 1e-6), 1), n - 1 - num_test)
    sizes = [n - num_validation - num_test, num_validation, num_test]
    narrow = torch.int32 if n < 2**31 else torch.int64
    if whole.rows is None:
        whole = replace(whole, rows=torch.arange(1, n + 1, dtype=narrow))
    order = torch.randperm(n, generator=stream("split", seed), dtype=narrow)
    train, validation, test = (whole.take(_as_read(index, whole)) for index in order.split(sizes))
    return train, validation, test


_NAMED = 5  # columns


def describe_constants(names: Sequence[str]) -> str:
    """Explains what is wrong with columns that are constant in the training data, and what to do."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"all training data have one value in {', '.join(names[:_NAMED])}{more}: such a column carries no information, "
        "and its density is as high as its unit is small (a thousandth of the value), which adds to every log p(x). "
        "Leave it out."
    )
