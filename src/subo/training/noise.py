"""The noise of a batch that several processes share: each draws that of the whole batch and takes its own rows.

So a training gives the same numbers, up to rounding, in any number of processes. Drawing takes little of a step's time;
networks, which take most of it, see only the rows of their own process.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from subo.data.batches import Batch
from subo.runtime.randomness import forked

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["WholeNoise", "noise_of"]

_MAKERS = {torch.rand, torch.randn}  # of a shape
_IN_PLACE = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_),
    *(Tensor.cauchy_, Tensor.log_normal_, Tensor.geometric_, Tensor.random_),
}
_LIKE = {torch.rand_like, torch.randn_like, torch.normal, torch.bernoulli, Tensor.bernoulli, torch.multinomial}
_DROPOUTS = {nn.functional.dropout, torch.dropout}
_REJECTING = {torch._standard_gamma, torch.poisson, torch.binomial}  # take a random count of random numbers


def noise_of(batch: Batch, fabric: "Fabric | None", num_samples: int) -> AbstractContextManager:
    """A context in which random numbers are those of the whole batch, of which this process has a share.

    Args:
        batch: This process's share.
        fabric: Lightning Fabric whose processes share the batch.
        num_samples: Number of samples K, the first axis of the latents' noise.
    """
    if fabric is None or fabric.world_size == 1 or batch.whole is None:
        return nullcontext()
    return WholeNoise(batch.whole, fabric.global_rank, fabric.world_size, num_samples)


class WholeNoise(TorchFunctionMode):
    """Random numbers for a share of a batch, cut out of those for the whole batch.

    The processes' generators start from one state and, drawing the same, stay together. Noise has an axis of examples:
    the first, the one after the K samples, or K folded into it. Numbers without such an axis, and those of samplers
    that reject some, are drawn by each process for itself.

    Args:
        size: Number of examples in the whole batch.
        rank: Index of this process, which has every `world_size`-th example.
        world_size: Number of processes.
        num_samples: Number of samples K.
    """

    def __init__(self, size: int, rank: int, world_size: int, num_samples: int):
        super().__init__()
        self._size, self._rank, self._num_samples = size, rank, num_samples
        self._own = torch.arange(size)[rank::world_size] if rank < size else torch.zeros(1, dtype=torch.long)
        self._spread = (torch.arange(size) // world_size).clamp(max=len(self._own) - 1)  # own rows at their own places

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if given.get("generator") is not None:  # a stream of its own
            return func(*args, **given)
        if func in _REJECTING:
            return self._for_itself(func, args, given)
        if func in _MAKERS:
            return self._made(func, args, given)
        if func in _LIKE or func in _IN_PLACE:
            return self._drawn(func, args, given)
        if func in _DROPOUTS:
            return self._dropped(func, args, given)
        return func(*args, **given)

    def _made(self, func: Callable, args: tuple, given: dict[str, Any]) -> Tensor:
        shape = tuple(given.pop("size", args[0] if len(args) == 1 and not isinstance(args[0], int) else args))
        axis = self._axis(shape)
        if axis is None:
            return self._for_itself(func, (shape,), given)
        return self._cut(func(self._whole(shape, axis), **given), axis)

    def _drawn(self, func: Callable, args: tuple, given: dict[str, Any]) -> Any:
        like = next((value for value in args if isinstance(value, Tensor)), None)
        axis = None if like is None else self._axis(like.shape)
        if like is None or axis is None:
            return self._for_itself(func, args, given)

        def whole(value: Any) -> Any:
            fits = isinstance(value, Tensor) and value.shape[: axis + 1] == like.shape[: axis + 1]
            return self._spread_out(value, axis) if fits else value

        drawn = func(*map(whole, args), **{name: whole(value) for name, value in given.items()})
        own = self._cut(drawn, axis)
        return like.copy_(own) if func in _IN_PLACE else own

    def _dropped(self, func: Callable, args: tuple, given: dict[str, Any]) -> Tensor:
        x, *rest = args if args else (given.pop("input"),)
        axis = self._axis(x.shape)
        if axis is None or given.get("inplace") or True in rest[2:]:
            return self._for_itself(func, (x, *rest), given)
        ones = torch.ones(self._whole(x.shape, axis), dtype=x.dtype, device=x.device)
        return x * self._cut(func(ones, *rest, **given), axis)

    def _axis(self, shape: torch.Size | tuple[int, ...]) -> int | None:
        """The axis of the examples, into which others may be folded; None if there is none."""
        own = len(self._own)
        if len(shape) > 1 and shape[0] == self._num_samples and shape[1] == own:
            return 1
        if len(shape) > 0 and shape[0] > 0 and shape[0] % own == 0:
            return 0
        return next((axis for axis, length in enumerate(shape) if length == own), None)

    def _whole(self, shape: torch.Size | tuple[int, ...], axis: int) -> tuple[int, ...]:
        return (*shape[:axis], shape[axis] // len(self._own) * self._size, *shape[axis + 1 :])

    def _cut(self, whole: Tensor, axis: int) -> Tensor:
        """This process's part of the numbers for the whole batch."""
        return _taken(whole, axis, self._size, self._own)

    def _spread_out(self, own: Tensor, axis: int) -> Tensor:
        """Arguments for the whole batch: this process's at its own rows, and any at the others."""
        return _taken(own, axis, len(self._own), self._spread)

    def _for_itself(self, func: Callable, args: tuple, given: dict[str, Any]) -> Any:
        """Numbers that differ between processes; the generators stay together, since each draws one seed."""
        with forked(int(torch.randint(2**31, ())) + self._rank):
            return func(*args, **given)


def _taken(tensor: Tensor, axis: int, length: int, rows: Tensor) -> Tensor:
    """Rows of an axis, into which others of which `length` is a factor are folded."""
    unfolded = tensor.unflatten(axis, (-1, length))
    return unfolded.index_select(axis + 1, rows.to(tensor.device)).flatten(axis, axis + 1)
