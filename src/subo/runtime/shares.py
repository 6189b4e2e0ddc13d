"""Work on many pieces, in contiguous shares among processes of this machine, joined in the order of the pieces."""

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from subo.errors import InputError, ProcessLostError

__all__ = ["in_shares"]

T = TypeVar("T")

_SHARES = 4  # for each process, so that none waits long for the others, and progress is seen


def in_shares(
    work: Callable[[range], list[T]],
    count: int,
    *,
    processes: int = 1,
    advance: Callable[[range], object] | None = None,
) -> list[T]:
    """Does some work for the pieces 0, 1, ..., in processes of one thread each.

    What is done for a piece must depend on its number alone. The work is sent to each process once, so that it has to
    be something that pickle can write: a function of a module, or a ``partial`` of one with such arguments.

    Args:
        work: Gives the results of a range of pieces, in their order.
        count: Number of pieces.
        processes: Number of processes; with one, everything is done in this one.
        advance: Called with each range that is done; not with one process, where the work itself may say what is done.

    Raises:
        InputError: The work cannot be sent to other processes.
        ProcessLostError: One of the processes was ended.

    Example:
        >>> in_shares(lambda pieces: [piece**2 for piece in pieces], 4)
        [0, 1, 4, 9]
    """
    processes = min(processes, count)
    if processes < 2:
        return work(range(count))
    shares = min(count, _SHARES * processes)
    ranges = [range(count * i // shares, count * (i + 1) // shares) for i in range(shares)]
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_receive, initargs=(_pickled(work),))
    others = set(multiprocessing.active_children())
    results: list[T] = []
    try:
        with _without_interrupts():  # which processes inherit: Ctrl-C is for this one
            futures = [executor.submit(_do, pieces) for pieces in ranges]
        for pieces, future in zip(ranges, futures, strict=True):
            results += pickle.loads(future.result())
            if advance is not None:
                advance(pieces)
    except BrokenProcessPool as error:
        raise ProcessLostError(
            f"one of {processes} processes that share the work was ended, most likely because memory ran out. Nothing "
            "was written. Use fewer `processes`, or smaller data",
            code=1,
        ) from error
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return results


_work: list[Callable[[range], list[Any]]] = []  # of a process that was started for it


def _receive(pickled: bytes) -> None:
    torch.set_num_threads(1)
    _work.append(pickle.loads(pickled))


def _do(pieces: range) -> bytes:
    return pickle.dumps(_work[0](pieces))  # as values: tensors in shared memory would need this process to live on


def _pickled(work: Callable[[range], Any]) -> bytes:
    try:
        return pickle.dumps(work)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise InputError(
            f"the model can't be sent to other processes ({error}). Usually a part of it is a lambda, or a function "
            "inside of another one: define it in a module, or leave `processes` out"
        ) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
