"""What a data set is once it is in memory: three splits, and how their numbers are read.

Pixels stay integers in memory and become numbers as they are read, in [0, 1] or, with uniform noise, in their own
units, so that a batch costs what a batch costs. Every random choice (the split, the order, the bits, the noise) has a
generator of its own, made from what it is for and the seed: any batch of any epoch can be made again without those
before it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from subo.core.context import check_rows
from subo.data.sequences import lined_up, padded, positions
from subo.errors import InputError
from subo.runtime.arguments import accepted
from subo.typing import Context

__all__ = ["NOISE_STEPS", "Binarize", "Split", "as_batch", "as_split", "split_of", "takes_data"]

T = TypeVar("T")

NOISE_STEPS = 2**16
"""Of u in [0, 1), which float32 holds beside 8 bits."""

Binarize = Literal["none", "static", "dynamic"]
_OWN = {"index": "the data's numbers, from first on", "label": "give labels", "mask": "give lengths"}
"""What a split itself puts into the context, and from what."""


@dataclass(frozen=True, eq=False)
class Split:
    """Some data in memory, as they are stored.

    Attributes:
        x: `(N, *event)`; integers for pixels, else float32.
        levels: The stored value that means 1.0: 255 for 8-bit pixels; 1: values as they are.
        labels: `(N,)` integers, or None.
        resample: Whether every read draws again: bits, with probability `x / levels` of a 1; or with `dequantize` u.
        first: The name of the first example: `index` in the context counts from it, so that no two splits of one data
            set name per example alike.
        dequantize: Whether data are read in the levels' own units, as `x + u` with u uniform on [0, 1); floats hold
            their u already. See :func:`subo.data.dequantized`.
        lengths: `(N,)`, of sequences, whose steps lie in `x` one after the other; None where an example is a row of
            `x`.
        names: What each example is called, such as its file; None where it has no name.
        class_names: What the labels 0, 1, ... stand for; None where labels are numbers and no more.
        rows: `(N,)`, which row of its source each example is, from 1; None: they are its rows in their order.
        context: What else is known of each example and not modeled, by name, ``(N, ...)``: a model's parts receive the
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
            raise InputError(f"there are {len(self.names)} names for {len(self)} examples")
        for name, tensor in self.context.items():
            if name in _OWN:
                raise InputError(f"the context '{name}' is the split's own ({_OWN[name]}): call yours by another name")
            if not isinstance(tensor, Tensor):
                raise InputError(
                    f"the context '{name}' is a tensor with a row per example, and {type(tensor).__name__} came: "
                    "torch.as_tensor makes one of an array"
                )
        check_rows(self.context if self.labels is None else {"label": self.labels, **self.context}, len(self))

    @classmethod
    def from_sequences(cls, sequences: Sequence[Tensor | np.ndarray]) -> "Split":
        """Sequences of any lengths as one split.

        Args:
            sequences: Arrays or tensors ``(T_i, D)``, or ``(T_i,)`` for one number per step.

        Raises:
            InputError: One is empty, has another width or rank than the others, or does not hold numbers.

        Example:
            >>> Split.from_sequences([torch.zeros(3, 2), torch.zeros(5, 2)])
            Split(2 sequences of 8 steps of shape (2,), float32)
        """
        if len(sequences) == 0:
            raise InputError("there are no sequences: a split has at least one, an array (T, D)")
        arrays = {str(number): np.asarray(sequence) for number, sequence in enumerate(sequences)}
        x, lengths = lined_up(arrays, where="sequences")
        return cls(x, lengths=lengths)

    def __repr__(self) -> str:
        stored = str(self.x.dtype).removeprefix("torch.")
        notes = [f"levels {self.levels}"] * (self.levels > 1) + ["labels"] * (self.labels is not None) + [*self.context]
        notes += ["dequantized"] * self.dequantize
        notes += [f"{'noise' if self.dequantize else 'bits'} drawn at every read"] * self.resample
        what = "of shape" if self.lengths is None else f"sequences of {self.num_steps:,} steps of shape"
        return f"Split({', '.join([f'{len(self):,} {what} {tuple(self.event_shape)}', stored, *notes])})"

    def __len__(self) -> int:
        return len(self.x if self.lengths is None else self.lengths)

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one example; of sequences that of one step."""
        return self.x.shape[1:]

    @property
    def num_steps(self) -> int:
        """How many rows `x` has: the data, or the steps of all sequences."""
        return len(self.x)

    @property
    def num_elements(self) -> int:
        """How many numbers the largest example has."""
        return int(self.elements.max()) if len(self) else self.event_shape.numel()

    @property
    def elements(self) -> Integer[Tensor, " N"]:
        """How many numbers each example has."""
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
            so, else the mean of that: `x / levels`, or `x + 1/2` for levels that are to be dequantized. And the
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
            A Bernoulli draw, kept as bits, or `x + u` where data are dequantized.
        """
        if self.dequantize:
            return replace(self, x=_noisy(self.x, generator), resample=False)
        bits = _bits(self.x, self.levels, generator).to(torch.uint8)
        return replace(self, x=bits, levels=1, resample=False)


def split_of(x: Tensor, context: Mapping[str, Tensor]) -> Split:
    """The split of a batch, as it was read: padded sequences where there is a mask.

    Args:
        x: ``(B, *event)``; of sequences ``(B, T, *event)``.
        context: What is known of each example, ``(B, ...)``; the examples are numbered anew.
    """
    lengths = None
    if "mask" in context:
        lengths, x = context["mask"].sum(1), x[context["mask"]]
    others = {name: tensor for name, tensor in context.items() if name not in _OWN}
    return Split(x, labels=context.get("label"), lengths=lengths, context=others)


def as_split(data: Any) -> Split:
    """Examples in any form as a split.

    Args:
        data: A :class:`Split`, which is returned as it is; a tensor or NumPy array of rows; or a pair of such rows and
            their labels (integers) or their named context (a dictionary of tensors).

    Raises:
        InputError: It is none of these; says what would be.

    Example:
        >>> as_split(torch.zeros(5, 3)), as_split((torch.zeros(5, 3), torch.arange(5)))
        (Split(5 of shape (3,), float32), Split(5 of shape (3,), float32, labels))
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray):
        x, more = _tensor(data[0]), data[1]
        if isinstance(more, Mapping):
            return Split(x, context={name: _tensor(value) for name, value in more.items()})
        return Split(x, labels=None if more is None else _tensor(more))
    if isinstance(data, Tensor | np.ndarray):
        if data.ndim == 0 or len(data) == 0:
            raise InputError(
                f"data are rows, (N, ...), at least one; received a {type(data).__name__} of shape {tuple(data.shape)}"
            )
        return Split(accepted("data", _tensor(data), Tensor))
    mend = {
        "Data": "name the part: data.test",
        "str": "subo.load_data(path) reads a file, and its .train, .validation and .test are splits",
    }.get(type(data).__name__, "subo.load_data reads files; torch.as_tensor makes a tensor of numbers")
    raise InputError(
        f"data are a tensor, an array, a pair (x, labels) or (x, context), or a Split; received "
        f"{type(data).__name__}: {mend}"
    )


def as_batch(x: Any, context: Context | None = None) -> tuple[Tensor, Context | None]:
    """Examples in any form that :func:`as_split` takes as a tensor and its context.

    Args:
        x: The examples; a tensor is returned as it is.
        context: Their named context; not beside a pair or a split, which have their own.
    """
    if isinstance(x, Tensor):
        return x, context
    split = as_split(x)
    if context is not None:
        split = replace(split, context={**split.context, **context})
    x, known = split.read(torch.arange(len(split)))
    del known["index"]  # which a posterior with a row of parameters for each example needs alone
    return x, known or None


def takes_data(function: Callable[..., T]) -> Callable[..., T]:
    """Lets a function take its examples in any form: its parameter `split` becomes a split, or `x` a tensor.

    Args:
        function: A function with a parameter `split`, or with `x` and `context`.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def convert(*args: Any, **kwargs: Any) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # which names the argument
        if "split" in given:
            given["split"] = as_split(given["split"])
        elif "x" in given and not isinstance(given["x"], Tensor):
            given["x"], given["context"] = as_batch(given["x"], given.get("context"))
        bound = inspect.BoundArguments(signature, given)
        return function(*bound.args, **bound.kwargs)

    return convert


def _tensor(rows: Any) -> Tensor:
    """A tensor of rows; real numbers of NumPy's come in torch's own precision."""
    if isinstance(rows, Tensor):
        return rows
    tensor = torch.as_tensor(np.ascontiguousarray(rows))
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _bits(x: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Draws 1 with probability x / levels: of `levels` equally likely integers, x lie below x."""
    if x.is_floating_point():  # rand is in [0, 1), so 0 and 1 are never flipped here either
        return torch.rand(x.shape, generator=generator) * levels < x
    return torch.randint(levels, x.shape, generator=generator, dtype=x.dtype) < x


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Adds u from [0, 1), in steps: `torch.rand` would round some x + u to x + 1."""
    return x + torch.randint(NOISE_STEPS, x.shape, generator=generator, dtype=torch.float32) / NOISE_STEPS
