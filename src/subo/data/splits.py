"""Data sets in memory: splits, and how their numbers are read.

Pixels stay integers in memory and become numbers when they are read, in [0, 1] or, with uniform noise, in their own
units, so that only a batch at a time is converted. Every random choice (the split, the order, the bits, the noise)
has its own generator, made from its purpose and the seed: any batch of any epoch can be recreated without those
before it.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from subo.core.context import check_rows
from subo.data.draws import bits, bits_by_content, noisy, noisy_by_content
from subo.data.rows_on_disk import RowsOnDisk
from subo.data.sequences import lined_up, padded, positions
from subo.data.sparse_rows import Sparse, SparseRows, checked, is_sparse
from subo.errors import InputError
from subo.runtime.arguments import accepted
from subo.typing import Context

__all__ = [
    "Binarize",
    "Split",
    "as_batch",
    "as_split",
    "split_of",
    "takes_data",
]

T = TypeVar("T")

Binarize = Literal["none", "static", "dynamic"]
_OWN = {"index": "the data's numbers, from first on", "label": "give labels", "mask": "give lengths"}
"""What a split itself puts into the context, and its source."""


if TYPE_CHECKING:
    Stored: TypeAlias = Tensor  # for which sparse rows stand in where rows are taken
else:
    Stored = Shaped[Tensor, " M *event"] | SparseRows | RowsOnDisk | Sparse


@dataclass(frozen=True, eq=False)
class Split:
    """Some data in memory, as stored.

    Attributes:
        x: `(N, *event)`; integers for pixels, else float32. A sparse matrix of SciPy stays sparse, and only the rows
            that are read become dense. Rows of files stay there, see :class:`subo.data.rows_on_disk.RowsOnDisk`.
        levels: The stored value that means 1.0: 255 for 8-bit pixels; 1 for unscaled values.
        labels: `(N,)` integers, or None.
        resample: Whether every read draws again: bits that are 1 with probability `x / levels`, or u with `dequantize`.
        first: Index of the first example: `index` in the context counts from it, so that no two splits of one data
            set share an index.
        dequantize: Whether data are read in the levels' own units, as `x + u` with u uniform on [0, 1); floats hold
            their u already. See :func:`subo.data.dequantized`.
        lengths: `(N,)`, lengths of sequences, whose steps are concatenated in `x`; None if each example is a row of
            `x`.
        names: Name of each example, such as its file; None if they have none.
        class_names: What the labels 0, 1, ... stand for; None if labels are just numbers.
        rows: `(N,)`, the row of the source that each example is, from 1; None if they are its rows in order.
        context: Further named tensors per example that are not modeled, ``(N, ...)``: a model's parts receive the
            names that they declare. `index`, `label` and `mask` are reserved for the split.
    """

    x: Stored
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
        if not isinstance(self.x, Tensor | SparseRows | RowsOnDisk) and is_sparse(self.x):
            object.__setattr__(self, "x", SparseRows(self.x))  # frozen for everyone else
        if self.lengths is not None and len(self.lengths) and int(self.lengths.min()) < 1:
            raise InputError("a sequence has at least one step, but one of the lengths is 0: leave it out")
        if self.lengths is not None and int(self.lengths.sum()) != len(self.x):
            raise InputError(
                f"the lengths of the sequences sum to {int(self.lengths.sum())}, but there are {len(self.x)} steps: x "
                "has the steps of all sequences, one after the other"
            )
        for what, known in (("names", self.names), ("rows of a source", self.rows)):
            if known is not None and len(known) != len(self):
                raise InputError(f"there are {len(known)} {what} for {len(self)} examples")
        for name, tensor in self.context.items():
            if name in _OWN:
                raise InputError(f"the context '{name}' is the split's own ({_OWN[name]}): use another name")
            if not isinstance(tensor, Tensor):
                kind = type(tensor).__name__
                how = "torch.as_tensor converts an array"
                raise InputError(f"the context '{name}' must be a tensor with one row per example, not {kind}: {how}")
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
        """The shape of one example; for sequences, of one step."""
        return self.x.shape[1:]

    @property
    def num_steps(self) -> int:
        """The number of rows of `x`: the examples, or the steps of all sequences."""
        return len(self.x)

    @property
    def num_elements(self) -> int:
        """The number of elements of the largest example."""
        return int(self.elements.max()) if len(self) else self.event_shape.numel()

    @property
    def elements(self) -> Integer[Tensor, " N"]:
        """The number of elements of each example."""
        steps = torch.ones(len(self), dtype=torch.long) if self.lengths is None else self.lengths
        return steps * self.event_shape.numel()

    def read(
        self, index: Integer[Tensor, " B"], *, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " B *event"], dict[str, Tensor]]:
        """Reads some data as numbers.

        Args:
            index: `(B,)` positions in this split.
            generator: Source of bits and noise; needed if `resample`, else unused.

        Returns:
            Data, `(B, *event)`, float32 unless another floating type is stored: a draw if `resample` is set,
            else its mean: `x / levels`, or `x + 1/2` for levels that are to be dequantized. And the
            context: `index`, and `label` if there are labels, `(B,)` each, then the rows of `self.context`.
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
            x = noisy(stored, generator) if self.dequantize else bits(stored, self.levels, generator).float()
        context = {"index": index + self.first if self.first else index}
        if self.labels is not None:
            context["label"] = self.labels[index]
        context |= self._context_at(index)
        if mask is None:
            return x, context
        return padded(x, mask), context | {"mask": mask}

    def take(self, index: Integer[Tensor, " B"]) -> "Split":
        """Makes a split from the data at `index`, `(B,)`, in that order."""
        labels = None if self.labels is None else self.labels[index]
        names = None if self.names is None else tuple(self.names[i] for i in index.tolist())
        rows, lengths = index, None
        if self.lengths is not None:
            rows, lengths = positions(self.lengths, index)[0], self.lengths[index]
        known = {"labels": labels, "names": names, "lengths": lengths, "context": self._context_at(index)}
        known["rows"] = None if self.rows is None else self.rows[index]
        return replace(self, x=self.x[rows], **known)

    def looked_at(self) -> Integer[Tensor, " n"]:
        """Positions of the examples from which all are judged: all; of rows on disk some, that are spread evenly."""
        return self.x.looked_at() if isinstance(self.x, RowsOnDisk) else torch.arange(len(self))

    def label_names(self) -> list[str] | list[int] | None:
        """The name of each example's class, or its number if it has no name; None without labels."""
        if self.labels is None or self.class_names is None:
            return None if self.labels is None else self.labels.tolist()
        return [self.class_names[number] for number in self.labels.tolist()]

    def _context_at(self, index: Integer[Tensor, " B"]) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.context.items()}

    def drawn(self, generator: torch.Generator) -> "Split":
        """Replaces the data by one draw of what `resample` draws at every read.

        Returns:
            A Bernoulli draw, kept as bits, or `x + u` if the data are dequantized. Rows on disk stay there, and each
            draw follows from the row's values and one number of the generator.
        """
        if isinstance(self.x, RowsOnDisk):
            key = int(torch.randint(2**62, (), generator=generator))
            if self.dequantize:
                return replace(self, x=self.x.then(partial(noisy_by_content, key=("noise", key))), resample=False)
            drawn = partial(bits_by_content, levels=self.levels, key=("bits", key))
            return replace(self, x=self.x.then(drawn), levels=1, resample=False)
        if self.dequantize:
            return replace(self, x=noisy(self.x, generator), resample=False)
        x = bits(self.x, self.levels, generator).to(torch.uint8)
        return replace(self, x=x, levels=1, resample=False)


def split_of(x: Tensor, context: Mapping[str, Tensor]) -> Split:
    """Makes a split from a batch as it was read: padded sequences if there is a mask.

    Args:
        x: ``(B, *event)``; for sequences, ``(B, T, *event)``.
        context: Named context of each example, ``(B, ...)``; the examples are renumbered.
    """
    lengths = None
    if "mask" in context:
        lengths, x = context["mask"].sum(1), x[context["mask"]]
    others = {name: tensor for name, tensor in context.items() if name not in _OWN}
    return Split(x, labels=context.get("label"), lengths=lengths, context=others)


def as_split(data: Any) -> Split:
    """Examples in any form as a split.

    Args:
        data: A :class:`Split`, which is returned unchanged; a tensor, a NumPy array or a sparse matrix of rows; or a
            pair of such rows and their labels (integers) or their named context (a dictionary of tensors).

    Raises:
        InputError: The data are none of these; says what is accepted.

    Example:
        >>> as_split(torch.zeros(5, 3)), as_split((torch.zeros(5, 3), torch.arange(5)))
        (Split(5 of shape (3,), float32), Split(5 of shape (3,), float32, labels))
    """
    if isinstance(data, Split):
        return data
    if (
        isinstance(data, tuple | list)
        and len(data) == 2
        and (isinstance(data[0], Tensor | np.ndarray) or is_sparse(data[0]))
    ):
        x, more = _tensor(data[0]), data[1]
        if isinstance(more, Mapping):
            return Split(x, context={name: _tensor(value) for name, value in more.items()})
        return Split(x, labels=None if more is None else _tensor(more))
    if is_sparse(data):
        return Split(_tensor(data))
    if isinstance(data, Tensor | np.ndarray):
        if data.ndim == 0 or len(data) == 0:
            raise InputError(
                f"data are at least one row, (N, ...); received a {type(data).__name__} of shape {tuple(data.shape)}"
            )
        return Split(accepted("data", _tensor(data), Tensor))
    remedy = {
        "Data": "name the part: data.test",
        "str": "subo.load_data(path) reads a file, and its .train, .validation and .test are splits",
    }.get(type(data).__name__, "subo.load_data reads files; torch.as_tensor turns numbers into a tensor")
    raise InputError(
        f"data are a tensor, an array, a pair (x, labels) or (x, context), or a Split; received "
        f"{type(data).__name__}: {remedy}"
    )


def as_batch(x: Any, context: Context | None = None) -> tuple[Tensor, Context | None]:
    """Converts examples in any form that :func:`as_split` takes to a tensor and its context.

    Args:
        x: The examples; a tensor is returned unchanged.
        context: Their named context; not allowed with a pair or a split, which have their own.
    """
    if isinstance(x, Tensor):
        return x, context
    split = as_split(x)
    if context is not None:
        split = replace(split, context={**split.context, **context})
    x, known = split.read(torch.arange(len(split)))
    del known["index"]  # needed only by a posterior with a row of parameters for each example
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
            return function(*args, **kwargs)  # whose message names the argument
        if "split" in given:
            given["split"] = as_split(given["split"])
        elif "x" in given and not isinstance(given["x"], Tensor):
            given["x"], given["context"] = as_batch(given["x"], given.get("context"))
        bound = inspect.BoundArguments(signature, given)
        return function(*bound.args, **bound.kwargs)

    return convert


def _tensor(rows: Any) -> Any:
    """A tensor of rows, or sparse ones; NumPy's real numbers get torch's default precision."""
    if isinstance(rows, Tensor):
        return rows
    if is_sparse(rows):
        return checked(SparseRows(rows), where="the data")
    tensor = torch.as_tensor(np.ascontiguousarray(rows))
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor
