"""Work that stays on its device: no number comes back to Python, which a recorded graph could not follow."""

import traceback
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

from torch import Tensor
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode

from subo.errors import InputError

__all__ = ["NoHostReads", "reads_allowed"]

_READS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "nonzero_static", "masked_select"),
    *("unique_dim", "unique_consecutive", "_unique2", "repeat_interleave"),
}
_COPIES = {"_to_copy", "copy_"}
_ELSEWHERE = ("site-packages", "<@beartype", __file__)
_allowed: ContextVar[bool] = ContextVar("reads_allowed", default=True)


def reads_allowed() -> bool:
    """Whether checks may look at values: not inside :class:`NoHostReads`.

    Example:
        >>> reads_allowed()
        True
        >>> with NoHostReads():
        ...     reads_allowed()
        False
    """
    return _allowed.get()


class NoHostReads(TorchDispatchMode):
    """A context in which an operation whose result Python must see, or whose shape depends on values, is refused.

    A CUDA graph records kernels and replays them without Python: what Python would have decided by a value stays as it
    was when the graph was recorded. torch refuses such operations while it records, with an error that names none of
    them; here they are found on any device, without recording. Checks of the arguments of distributions, which read
    all of them, are off inside. Not seen is ``torch.tensor(number, device=...)``, which copies a number to a device.

    Raises:
        InputError: Inside, such an operation is called; says which and where.

    Example:
        >>> import torch
        >>> with NoHostReads():
        ...     torch.ones(3).sum().item()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        subo.errors.InputError: a number is read from the device (_local_scalar_dense)...
    """

    _before: tuple[Token, bool] | None = None

    def __enter__(self) -> "NoHostReads":
        self._before = _allowed.set(False), bool(Distribution._validate_args)
        Distribution.set_default_validate_args(False)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        assert self._before is not None
        token, validate = self._before
        Distribution.set_default_validate_args(validate)
        _allowed.reset(token)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS or (name == "index" and _by_mask(args)):
            raise InputError(f"a number is read from the device ({name}), {_where()}")
        returned = func(*args, **(kwargs or {}))
        if name in _COPIES and _crosses(args, returned):
            raise InputError(f"numbers are copied between the device and the processor ({name}), {_where()}")
        return returned


def _by_mask(args: tuple) -> bool:
    """Whether elements are picked by booleans, so that their number depends on these."""
    return any(isinstance(at, Tensor) and not at.dtype.is_floating_point and at.dtype.itemsize == 1 for at in args[1])


def _crosses(args: tuple, returned: Tensor) -> bool:
    """Whether numbers go from one kind of device to another."""
    return any(value.device.type != returned.device.type for value in args if isinstance(value, Tensor))


def _where() -> str:
    """The innermost line outside of libraries."""
    stack = traceback.extract_stack()
    own = [frame for frame in stack if not any(name in frame.filename for name in _ELSEWHERE)]
    frame = (own or stack)[-1]
    return f"in {frame.filename}, line {frame.lineno}: {frame.line}"
