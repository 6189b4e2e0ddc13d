"""What a data set is once it is in memory: three splits and a binarisation policy.

Pixels stay integers in memory and become numbers in [0, 1] as they are read, so that a batch costs what a
batch costs. Every random choice (the split, the order, the bits) has a generator of its own, made from what
it is for and the seed: any batch of any epoch can be made again without those before it.
"""

import hashlib
import math
import operator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, SupportsIndex, get_args

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from subo.errors import InputError

__all__ = [
    "Binarize",
    "Data",
    "Kind",
    "Split",
    "binarized",
    "check_grey",
    "check_resolution",
    "check_values",
    "kind_of",
    "split",
    "stream",
]

Binarize = Literal["none", "static", "dynamic"]
Kind = Literal["binary", "grey", "counts", "real"]


def stream(*key: str | SupportsIndex) -> torch.Generator:
    """Makes the generator that belongs to a key, such as `("order", seed, epoch)`.

    The key is hashed (SHA-256), so neighbouring or shorter keys give unrelated streams, where sums such as
    `seed + epoch` would make seed 1, epoch 0 the same as seed 0, epoch 1. torch's CPU generator keeps 32 bits
    of a seed: two different keys share a stream with probability 2^-32.

    Args:
        key: What the numbers are for, then the integers they depend on.

    Returns:
        A CPU generator at the start of its stream.
    """
    plain = [part if isinstance(part, str) else operator.index(part) for part in key]  # NumPy's integers, too
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


@dataclass(frozen=True, eq=False)
class Split:
    """Some data in memory, as they are stored.

    Attributes:
        x: `(N, *event)`; integers for pixels, else float32.
        levels: The stored value that means 1.0: 255 for 8-bit pixels; 1: values as they are.
        labels: `(N,)` integers, or None.
        resample: Whether every read draws bits afresh, with probability `x / levels` of a 1.
        first: The name of the first datum: `index` in the context counts from it, so that no two splits of one data
            set name a datum alike.
    """

    x: Shaped[Tensor, " N *event"]
    levels: int = 1
    labels: Integer[Tensor, " N"] | None = None
    resample: bool = False
    first: int = 0

    def __repr__(self) -> str:
        stored = str(self.x.dtype).removeprefix("torch.")
        notes = [f"levels {self.levels}"] * (self.levels > 1) + ["labels"] * (self.labels is not None)
        notes += ["bits drawn at every read"] * self.resample
        return f"Split({', '.join([f'{len(self):,} of shape {tuple(self.event_shape)}', stored, *notes])})"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one datum."""
        return self.x.shape[1:]

    def read(
        self, index: Integer[Tensor, " B"], *, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " B *event"], dict[str, Tensor]]:
        """Reads some data as numbers.

        Args:
            index: `(B,)` positions in this split.
            generator: Where the bits come from; needed if `resample`, else unused.

        Returns:
            `x / levels`, or bits drawn from it, `(B, *event)`, float32 unless another floating type is stored; and the
            context: `index`, and `label` where there are labels, `(B,)` each.

        Raises:
            InputError: Bits must be drawn, and there is no generator.
        """
        stored = self.x.index_select(0, index)  # five times faster than self.x[index]
        if not self.resample:
            x = stored if stored.is_floating_point() else stored.float()
            x = x if self.levels == 1 else x / self.levels
        elif generator is None:
            raise InputError(
                "this split draws its bits at every read and needs a generator: read(index, generator=...)"
            )
        else:
            x = _bits(stored, self.levels, generator).float()
        context = {"index": index + self.first if self.first else index}
        return x, context if self.labels is None else context | {"label": self.labels[index]}

    def take(self, index: Integer[Tensor, " B"]) -> "Split":
        """Makes a split of the data at `index`, `(B,)`, in that order."""
        labels = None if self.labels is None else self.labels[index]
        return replace(self, x=self.x[index], labels=labels)

    def drawn(self, generator: torch.Generator) -> "Split":
        """Replaces every value by one Bernoulli draw, kept as a bit: probability `x / levels` of a 1."""
        bits = _bits(self.x, self.levels, generator).to(torch.uint8)
        return replace(self, x=bits, levels=1, resample=False)


def _bits(x: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Draws 1 with probability x / levels: of `levels` equally likely integers, x lie below x."""
    if x.is_floating_point():  # rand is in [0, 1), so 0 and 1 are never flipped here either
        return torch.rand(x.shape, generator=generator) * levels < x
    return torch.randint(levels, x.shape, generator=generator, dtype=x.dtype) < x


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three splits.

    Attributes:
        name: Where the data came from: a known name or a path.
        train: What parameters are fitted to.
        validation: What choices (when to stop, which model) are made on.
        test: What is reported, once.
        kind: What the values that `read` gives are: `binary` in {0, 1}, `grey` in [0, 1], `counts`
            non-negative integers, else `real`.
        binarize: The policy that was applied, see `binarized`.
        seed: The seed of the split and of the bits.
        feature_names: The names of a table's columns, where it has them.
        class_names: The names that the labels 0, 1, ... stand for, where they have some.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    kind: Kind
    binarize: Binarize = "none"
    seed: int = 0
    feature_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self):
        first = 0
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            object.__setattr__(self, name, replace(split, first=first))  # frozen for everybody else
            first += len(split)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in ("train", "validation", "test"))
        bits = "" if self.binarize == "none" else f", binarize {self.binarize}"
        return f"Data({self.name}: {sizes}, of shape {tuple(self.train.event_shape)}, {self.kind}{bits})"

    def constant_features(self) -> tuple[str, ...]:
        """Names, or else numbers from 1, of a table's columns that have one value in all training data."""
        x = self.train.x
        if x.ndim != 2 or self.kind not in ("real", "counts"):
            return ()
        names = self.feature_names or [str(i + 1) for i in range(x.shape[1])]
        return tuple(names[i] for i in (x == x[0]).all(0).nonzero()[:, 0].tolist())

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of all that is stored, in its order.

        Two runs with the same fingerprint used the same data, the same split and, if static, the same bits.
        """
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for tensor in (part.x, part.labels):
                if tensor is None:
                    digest.update(b"none;")
                else:
                    digest.update(f"{tensor.dtype},{tuple(tensor.shape)},{part.levels};".encode())
                    digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Says in JSON's types what the data are and how they were made."""
        drawn = f"drawn once from Bernoulli(x) with seed {self.seed}"
        how = {
            "none": "train, validation and test are used as stored: nothing was binarised",
            "static": f"train, validation and test were each {drawn}",
            "dynamic": f"train is drawn afresh from Bernoulli(x) at every read; validation and test were each {drawn}",
        }
        return {
            "name": self.name,
            "event_shape": list(self.train.event_shape),
            "sizes": {name: len(getattr(self, name)) for name in ("train", "validation", "test")},
            "kind": self.kind,
            "levels": self.train.levels,
            "binarize": self.binarize,
            "binarization": how[self.binarize],
            "seed": self.seed,
            "fingerprint": self.fingerprint,
        }


def split(
    x: Shaped[Tensor, " N *event"],
    *,
    labels: Integer[Tensor, " N"] | None = None,
    levels: int = 1,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    where: str = "the data",
) -> tuple[Split, Split, Split]:
    """Splits data at random into train, validation and test, with at least one datum each.

    Args:
        x: `(N, *event)`, as stored.
        labels: `(N,)`, or None.
        levels: The stored value that means 1.0.
        seed: Which permutation.
        fractions: The shares of train, validation and test; they sum to 1. The last two are rounded down.
        where: What the data are called in a message.

    Raises:
        InputError: There are fewer than three rows, or the fractions are no shares of a whole.
    """
    n = len(x)
    if n < 3:
        found = {0: "no rows", 1: "one row"}.get(n, f"{n} rows")
        raise InputError(
            f"{where}: at least three rows are needed, one each to train, validate and test on, and there "
            f"{'is' if n == 1 else 'are'} {found}; usually an axis is missing or swapped: rows are data"
        )
    if min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"fractions must be three shares that sum to 1, such as 0.8, 0.1, 0.1; got {fractions}")
    num_test = min(max(math.floor(n * fractions[2] + 1e-6), 1), n - 2)
    num_validation = min(max(math.floor(n * fractions[1] + 1e-6), 1), n - 1 - num_test)
    sizes = [n - num_validation - num_test, num_validation, num_test]
    order = torch.randperm(n, generator=stream("split", seed))
    whole = Split(x, levels=levels, labels=labels)
    train, validation, test = (whole.take(index) for index in order.split(sizes))
    return train, validation, test


def binarized(data: Data, policy: Binarize, *, seed: int) -> Data:
    """Turns grey values into bits, each 1 with probability x; so 0 and 1 are never flipped.

    Args:
        data: What to binarise.
        policy: `none`: the data as they are. `static`: all three splits are drawn once. `dynamic`: train is
            drawn afresh at every read, validation and test once, with the very draws of `static`.
        seed: The seed of the draws that are made once.

    Raises:
        InputError: The values aren't grey, so a Bernoulli draw of them has no meaning.
    """
    if policy not in get_args(Binarize):
        raise InputError(f"binarize must be one of {', '.join(get_args(Binarize))}; got {policy!r}")
    if policy == "none":
        return data
    check_grey(data.kind, where=data.name)
    train = data.train.drawn(stream("bits", seed, "train"))
    return replace(
        data,
        train=train if policy == "static" else replace(data.train, resample=True),
        validation=data.validation.drawn(stream("bits", seed, "validation")),
        test=data.test.drawn(stream("bits", seed, "test")),
        kind="binary",
        binarize=policy,
        seed=seed,
    )


def check_grey(kind: Kind, *, where: str) -> None:
    """Refuses to binarise anything but grey values.

    Raises:
        InputError: `kind` isn't `grey`.
    """
    if kind == "binary":
        raise InputError(f"{where}: the data are binary already: use binarize none")
    if kind != "grey":
        raise InputError(
            f"{where}: only grey values, in [0, 1] or 8-bit pixels, can be binarised, and these are {kind}: "
            "use binarize none, with a likelihood for such values"
        )


def kind_of(x: Shaped[Tensor, " N *event"], levels: int = 1) -> Kind:
    """Tells what values are from the values alone.

    The first that holds of: `binary`, all are 0 or `levels`; `grey`, there are levels, or all are in [0, 1];
    `counts`, all are non-negative integers; `real`. Real features that someone scaled to [0, 1] hence count
    as grey.

    Args:
        x: `(N, *event)`, as stored.
        levels: The stored value that means 1.0; 1: values as they are.
    """
    if bool(((x == 0) | (x == levels)).all()):
        return "binary"
    lowest, highest = (value.item() for value in x.aminmax())
    if levels > 1 or (lowest >= 0 and highest <= 1):
        return "grey"
    whole = not x.is_floating_point() or bool((x == x.round()).all())
    return "counts" if whole and lowest >= 0 else "real"


def check_values(x: Shaped[Tensor, " N *event"], *, where: str, names: tuple[str, ...] | None = None) -> None:
    """Refuses NaN and infinity, at the door rather than as a NaN loss.

    Args:
        x: `(N, *event)`.
        where: What the data are called in the message.
        names: The names of the columns, for data of shape `(N, D)`.

    Raises:
        InputError: Some values aren't finite; says how many, and where the first one is, counting from 1.
    """
    bad = ~x.isfinite()
    count = int(bad.sum())
    if count == 0:
        return
    first = tuple(bad.nonzero()[0].tolist())
    row, *place = (position + 1 for position in first)
    if len(place) != 1:
        column = f"element ({', '.join(map(str, place))})"
    else:
        column = f"column {place[0]}" if names is None else f"column {names[place[0] - 1]!r}"
    raise InputError(
        f"{where}: all values must be finite, and {count} of {x.numel()} {'is' if count == 1 else 'are'} NaN "
        f"or infinite; the first, {x[first].item()}, is in row {row}, {column} (counting from 1). Usually a "
        "value is missing or beyond float32 (3.4e38): drop the row, or fill or scale the value"
    )


def check_resolution(x: Shaped[Tensor, " N D"], *, where: str, names: tuple[str, ...] | None = None) -> None:
    """Refuses columns that float32, in which data are kept, would round beyond recognition.

    Args:
        x: `(N, D)`, before it is rounded.
        where: What the data are called in the message.
        names: The names of the columns.

    Raises:
        InputError: A column varies so little around so large a number that float32 cannot tell its values apart.
    """
    if len(x) < 2:
        return
    center, deviation = x.double().mean(0), x.double().std(0)
    lost = (deviation > 0) & (deviation < 100 * torch.finfo(torch.float32).eps * center.abs())
    if lost.any():
        column = int(lost.nonzero()[0])
        name = f"column {column + 1}" if names is None else f"column {names[column]!r}"
        raise InputError(
            f"{where}: {name} varies by {deviation[column]:.3g} around {center[column]:.10g}, which float32 (7 digits) "
            "cannot resolve. Usually a time or an identifier: subtract an offset from it, or leave it out"
        )
