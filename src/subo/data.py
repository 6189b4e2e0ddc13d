"""What a data set is once it is in memory: three splits, and how their numbers are read.

Pixels stay integers in memory and become numbers as they are read, in [0, 1] or, with uniform noise, in their own
units, so that a batch costs what a batch costs. Every random choice (the split, the order, the bits, the noise) has a
generator of its own, made from what it is for and the seed: any batch of any epoch can be made again without those
before it.
"""

import hashlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, SupportsIndex

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from subo.arguments import accepted
from subo.context import check_rows
from subo.errors import InputError
from subo.meaning import Meaning
from subo.sequences import padded, positions
from subo.values import Kind, constant_elements

__all__ = [
    "NOISE_STEPS",
    "Binarize",
    "Data",
    "Split",
    "as_split",
    "stream",
]

NOISE_STEPS = 2**16
"""Of u in [0, 1), which float32 holds beside 8 bits."""

Binarize = Literal["none", "static", "dynamic"]
_OWN = {"index": "the data's numbers, from first on", "label": "give labels", "mask": "give lengths"}
"""What a split itself puts into the context, and from what."""


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
        resample: Whether every read draws afresh: bits, with probability `x / levels` of a 1; or with `dequantize` u.
        first: The name of the first datum: `index` in the context counts from it, so that no two splits of one data
            set name a datum alike.
        dequantize: Whether data are read in the levels' own units, as `x + u` with u uniform on [0, 1); floats hold
            their u already. See :func:`subo.quantisation.dequantized`.
        lengths: `(N,)`, of sequences, whose steps lie in `x` one after the other; None where a datum is a row of `x`.
        names: What each datum is called, such as its file; None where it has no name.
        class_names: What the labels 0, 1, ... stand for; None where labels are numbers and no more.
        rows: `(N,)`, which row of its source each example is, from 1; None: they are its rows in their order.
        context: What else is known of each datum and not modelled, by name, ``(N, ...)``: a model's parts receive the
            names that they declare. `index`, `label` and `mask` are the split's own.
    """

    x: Shaped[Tensor, " M *event"]
    levels: int = 1
    labels: Integer[Tensor, " N"] | None = None
    resample: bool = False
    first: int = 0
    dequantize: bool = False
    lengths: Integer[Tensor, " N"] | None = None
    names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    rows: Integer[Tensor, " N"] | None = None
    context: Mapping[str, Shaped[Tensor, "N ..."]] = field(default_factory=dict)

    def __post_init__(self):
        if self.lengths is not None and len(self.lengths) and int(self.lengths.min()) < 1:
            raise InputError("a sequence has at least one step, and one of the lengths is 0: leave it out")
        if self.lengths is not None and int(self.lengths.sum()) != len(self.x):
            raise InputError(
                f"the lengths of the sequences sum to {int(self.lengths.sum())}, and there are {len(self.x)} steps: x "
                "has the steps of all sequences, one after the other"
            )
        if self.names is not None and len(self.names) != len(self):
            raise InputError(f"there are {len(self.names)} names for {len(self)} data")
        for name, tensor in self.context.items():
            if name in _OWN:
                raise InputError(f"the context '{name}' is the split's own ({_OWN[name]}): call yours by another name")
            if not isinstance(tensor, Tensor):
                raise InputError(
                    f"the context '{name}' is a tensor with a row a datum, and {type(tensor).__name__} came: "
                    "torch.as_tensor makes one of an array"
                )
        check_rows(self.context if self.labels is None else {"label": self.labels, **self.context}, len(self))

    def __repr__(self) -> str:
        stored = str(self.x.dtype).removeprefix("torch.")
        notes = [f"levels {self.levels}"] * (self.levels > 1) + ["labels"] * (self.labels is not None) + [*self.context]
        notes += ["dequantised"] * self.dequantize
        notes += [f"{'noise' if self.dequantize else 'bits'} drawn at every read"] * self.resample
        what = "of shape" if self.lengths is None else f"sequences of {self.num_steps:,} steps of shape"
        return f"Split({', '.join([f'{len(self):,} {what} {tuple(self.event_shape)}', stored, *notes])})"

    def __len__(self) -> int:
        return len(self.x if self.lengths is None else self.lengths)

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one datum; of sequences that of one step."""
        return self.x.shape[1:]

    @property
    def num_steps(self) -> int:
        """How many rows `x` has: the data, or the steps of all sequences."""
        return len(self.x)

    @property
    def num_elements(self) -> int:
        """How many numbers the largest datum has."""
        return int(self.elements.max()) if len(self) else self.event_shape.numel()

    @property
    def elements(self) -> Integer[Tensor, " N"]:
        """How many numbers each datum has."""
        steps = torch.ones(len(self), dtype=torch.long) if self.lengths is None else self.lengths
        return steps * self.event_shape.numel()

    def read(
        self, index: Integer[Tensor, " B"], *, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " B *event"], dict[str, Tensor]]:
        """Reads some data as numbers.

        Args:
            index: `(B,)` positions in this split.
            generator: Where bits and noise come from; needed if `resample`, else unused.

        Returns:
            Data, `(B, *event)`, float32 unless another floating type is stored: what is drawn where `resample` says
            so, else the mean of that: `x / levels`, or `x + 1/2` for levels that are to be dequantised. And the
            context: `index`, and `label` where there are labels, `(B,)` each, then the rows of `self.context`.
            Sequences are `(B, T, *event)`, padded with 0 to the longest of them, and their context has `mask`,
            `(B, T)`, True at real steps.

        Raises:
            InputError: Bits or noise must be drawn, and there is no generator.
        """
        rows, mask = (index, None) if self.lengths is None else positions(self.lengths, index)
        stored = self.x.index_select(0, rows)  # five times faster than self.x[rows]
        if not self.resample:
            x = stored if stored.is_floating_point() else stored.float()
            if self.dequantize:
                x = x if stored.is_floating_point() else x + 0.5
            else:
                x = x if self.levels == 1 else x / self.levels
        elif generator is None:
            raise InputError(
                f"this split draws its {'noise' if self.dequantize else 'bits'} at every read and needs a generator: "
                "read(index, generator=...)"
            )
        else:
            x = _noisy(stored, generator) if self.dequantize else _bits(stored, self.levels, generator).float()
        context = {"index": index + self.first if self.first else index}
        if self.labels is not None:
            context["label"] = self.labels[index]
        context |= self._context_at(index)
        if mask is None:
            return x, context
        return padded(x, mask), context | {"mask": mask}

    def take(self, index: Integer[Tensor, " B"]) -> "Split":
        """Makes a split of the data at `index`, `(B,)`, in that order."""
        labels = None if self.labels is None else self.labels[index]
        names = None if self.names is None else tuple(self.names[i] for i in index.tolist())
        rows, lengths = index, None
        if self.lengths is not None:
            rows, lengths = positions(self.lengths, index)[0], self.lengths[index]
        known = {"labels": labels, "names": names, "lengths": lengths, "context": self._context_at(index)}
        known["rows"] = None if self.rows is None else self.rows[index]
        return replace(self, x=self.x[rows], **known)

    def label_names(self) -> list[str] | list[int] | None:
        """The name of each example's class, or its number where that is all it has; None without labels."""
        if self.labels is None or self.class_names is None:
            return None if self.labels is None else self.labels.tolist()
        return [self.class_names[number] for number in self.labels.tolist()]

    def _context_at(self, index: Integer[Tensor, " B"]) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.context.items()}

    def drawn(self, generator: torch.Generator) -> "Split":
        """Replaces the data by one draw of what `resample` draws at every read.

        Returns:
            A Bernoulli draw, kept as bits, or `x + u` where data are dequantised.
        """
        if self.dequantize:
            return replace(self, x=_noisy(self.x, generator), resample=False)
        bits = _bits(self.x, self.levels, generator).to(torch.uint8)
        return replace(self, x=bits, levels=1, resample=False)


def as_split(data: Any) -> Split:
    """A split as it is; of a tensor, its rows.

    Raises:
        InputError: It is neither; says what would be.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Tensor):
        if data.ndim == 0 or len(data) == 0:
            raise InputError(f"data are rows, (N, ...), at least one, and a tensor of shape {tuple(data.shape)} came")
        return Split(accepted("data", data, Tensor))
    mend = {
        "Data": "name the part: data.test",
        "ndarray": "torch.from_numpy(x).float()",
        "str": "subo.load(path) reads a file, and its .train, .validation and .test are splits",
    }.get(type(data).__name__, "subo.load reads files; torch.as_tensor makes a tensor of numbers")
    raise InputError(f"data are a tensor or a Split, and {type(data).__name__} came: {mend}")


def _bits(x: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Draws 1 with probability x / levels: of `levels` equally likely integers, x lie below x."""
    if x.is_floating_point():  # rand is in [0, 1), so 0 and 1 are never flipped here either
        return torch.rand(x.shape, generator=generator) * levels < x
    return torch.randint(levels, x.shape, generator=generator, dtype=x.dtype) < x


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Adds u from [0, 1), in steps: `torch.rand` would round some x + u to x + 1."""
    return x + torch.randint(NOISE_STEPS, x.shape, generator=generator, dtype=torch.float32) / NOISE_STEPS


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three splits.

    Attributes:
        name: Where the data came from: a known name or a path.
        train: What parameters are fitted to.
        validation: What choices (when to stop, which model) are made on.
        test: What is reported, once.
        kind: What the values that `read` gives are: `binary` in {0, 1}, `grey` in [0, 1], `whole`
            non-negative integers, else `real`.
        binarize: The policy that was applied, see :func:`subo.quantisation.binarized`.
        dequantize: Whether uniform noise is added, see :func:`subo.quantisation.dequantized`.
        seed: The seed of the split, the bits and the noise.
        feature_names: The names of a table's columns, where it has them.
        class_names: The names that the labels 0, 1, ... stand for, where they have some.
        decided: What the values mean before anything was drawn from them; by default that of the splits.
        division: How the three parts came about, in words.
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
            object.__setattr__(self, name, named)  # frozen for everybody else
            first += len(split)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in ("train", "validation", "test"))
        bits = "" if self.binarize == "none" else f", binarize {self.binarize}"
        noise = ", dequantised" * self.dequantize
        what = "sequences of steps of shape" if self.sequential else "of shape"
        return f"Data({self.name}: {sizes}, {what} {tuple(self.train.event_shape)}, {self.kind}{bits}{noise})"

    @property
    def sequential(self) -> bool:
        """Whether the data are sequences."""
        return self.train.lengths is not None

    @property
    def meaning(self) -> Meaning:
        """What the values mean, by which later data are read."""
        x, shape = self.train.x, tuple(self.train.event_shape)
        pixels = not (x.is_floating_point() or self.sequential)
        own = self.decided or Meaning(self.kind, shape, levels=self.train.levels, pixels=pixels)
        names = {"feature_names": self.feature_names, "class_names": self.class_names}
        return replace(own, event_shape=shape, sequential=self.sequential, **names)

    def constant_features(self) -> tuple[str, ...]:
        """Names, or else numbers from 1, of a table's columns that have one value in all training data."""
        x = self.train.x
        if x.ndim != 2 or self.kind == "binary":
            return ()
        names = self.feature_names or [str(i + 1) for i in range(x.shape[1])]
        return tuple(names[i] for i in constant_elements(x).nonzero()[:, 0].tolist())

    def num_constant(self) -> int:
        """How many elements of a datum, such as pixels, have one value in all training data; of sequences, of a step.

        None of those whose noise or bits are drawn at every read, whatever they are drawn from.
        """
        return 0 if self.train.resample else int(constant_elements(self.train.x).sum())

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of all that is stored, in its order.

        Two runs with the same fingerprint used the same data, the same split and, if static, the same bits.
        """
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            of_sequences = () if part.lengths is None else (part.lengths,)
            for name in sorted(part.context):
                digest.update(f"{name};".encode())
            for tensor in (part.x, part.labels, *of_sequences, *(part.context[name] for name in sorted(part.context))):
                if tensor is None:
                    digest.update(b"none;")
                else:
                    digest.update(f"{tensor.dtype},{tuple(tensor.shape)},{part.levels};".encode())
                    digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Says in JSON's types what the data are and how they were made."""
        drawn = f"drawn once from Bernoulli(x) with seed {self.seed}"
        how = {
            "none": "nothing was binarised",
            "static": f"train, validation and test were each {drawn}",
            "dynamic": f"train is drawn afresh from Bernoulli(x) at every read; validation and test were each {drawn}",
        }
        binarization, noise = how[self.binarize], "none was added"
        if self.dequantize:
            binarization = "nothing was binarised"
            noise = (
                f"the levels y = 0 .. {self.train.levels} are read as y + u, u uniform on [0, 1): in train drawn "
                f"afresh at every read, in validation and test each drawn once with seed {self.seed}"
            )
        parts = {name: getattr(self, name) for name in ("train", "validation", "test")}
        return {
            "name": self.name,
            "division": self.division,
            "event_shape": list(self.train.event_shape),
            "sizes": {name: len(part) for name, part in parts.items()},
            "steps": {name: part.num_steps for name, part in parts.items()} if self.sequential else None,
            "kind": self.kind,
            "levels": self.train.levels,
            "constant": self.num_constant(),
            "binarize": self.binarize,
            "binarization": binarization,
            "dequantize": self.dequantize,
            "noise": noise,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "meaning": self.meaning.as_json(),
        }
