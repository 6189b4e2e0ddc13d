"""Whether a model fits into memory, counted before it is built, and the bytes that autograd keeps of a step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from subo.runtime.memory import NoRoomError, check_room, free_bytes

__all__ = ["bytes_saved", "counted_memory", "fits_memory"]

P = ParamSpec("P")
T = TypeVar("T")


_OF_TRAINING = 4
"""Copies of each parameter: itself, its gradient and Adam's two moments."""
_REMEDY = "Lower what makes it large: the widths of its networks, the latents, the classes or the components."
_FILLERS = {Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_}
_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "invalid buffer size",
    "storage size calculation",
)


def fits_memory(make: Callable[P, T]) -> Callable[P, T]:
    """Refuses a model that memory could not hold, before it is built.

    It is made once without its numbers, so that its tensors are counted but take no memory: the system only allocates
    pages that are written to. (torch's meta device would do the same, but takes seconds to import.)

    Args:
        make: Function that makes a model; ``examples`` are left out for the count.
    """

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        plain: Any = {name: value for name, value in kwargs.items() if name != "examples"}
        try:
            with torch.random.fork_rng(devices=[]), counted_memory(numbers=False):
                make(*args, **plain)  # pyright: ignore[reportCallIssue]
        except NoRoomError:
            raise
        except Exception:  # from numbers that are not set, or invalid settings, which are reported below
            pass
        with counted_memory():
            return make(*args, **kwargs)

    return made


@contextmanager
def counted_memory(*, numbers: bool = True) -> Iterator[None]:
    """Inside, refuses to make a tensor if training could not hold it, with those made before, in memory.

    Args:
        numbers: Whether tensors are filled with their random numbers.

    Raises:
        NoRoomError: Memory is too small; says how much would be needed and how much is free.

    Example:
        >>> with counted_memory():  # doctest: +ELLIPSIS
        ...     layer = torch.nn.Linear(10**7, 10**7)
        Traceback (most recent call last):
        ...
        subo.runtime.memory.NoRoomError: training the model takes about 1,600,000... GB, ...
    """
    try:
        with _Counted(numbers):
            yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        if isinstance(error, MemoryError | OverflowError) or any(word in str(error).lower() for word in _WORDS):
            raise NoRoomError(f"the model takes more memory than there is. {_REMEDY}") from error
        raise


class _Counted(TorchFunctionMode):
    """Counts the bytes of tensors before they are made."""

    def __init__(self, numbers: bool):
        super().__init__()
        self.numbers, self.bytes, self.free = numbers, 0, free_bytes()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            size = getattr(kwargs.get("dtype") or torch.get_default_dtype(), "itemsize", 1)  # Python's bool has none
            self.bytes += _numel(args, kwargs) * size
            check_room(_OF_TRAINING * self.bytes, "training the model", _REMEDY, free=self.free)
        if not self.numbers and func in _FILLERS:
            return args[0]
        if not self.numbers and func in (torch.rand, torch.randn):
            func, kwargs = torch.empty, {name: value for name, value in kwargs.items() if name != "generator"}
        return func(*args, **kwargs)


def _numel(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The number of elements of a tensor of these sizes, exact for any size."""
    sizes = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
    count = 1
    for size in sizes:
        count *= int(size)
    return count


@contextmanager
def bytes_saved(weights: Iterable[Tensor]) -> Iterator[list[int]]:
    """Counts the bytes that autograd keeps for the backward pass of what is computed inside.

    Args:
        weights: Tensors that exist anyway and do not count.

    Yields:
        A list of one number, which is complete at the end.
    """
    seen = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: list[Tensor] = []  # so that no storage reuses the address of one that is gone
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept.append(tensor)
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
