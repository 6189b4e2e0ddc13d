"""Work recorded as a graph of kernels, which a device replays without Python."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch

from subo.errors import InputError

__all__ = ["Recorder", "UnrecordableError", "recorder_of"]


class UnrecordableError(InputError):
    """A step cannot be recorded; says why."""


@runtime_checkable
class Recorder(Protocol):
    """What records work on a device."""

    def aside(self) -> AbstractContextManager:
        """A context for the steps before: apart from other work, as recording is."""
        ...

    def record(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """A function that replays the work; the generators are those that it draws from beside the default one."""
        ...


class _CudaGraphs:
    """CUDA's graphs."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        stream: Any = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)

    def record(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        graph: Any = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may load data meanwhile
                work()
        finally:
            torch.cuda.set_stream(stream)  # which torch does not restore when it refuses
        return graph.replay


def recorder_of(device: torch.device) -> Recorder | None:
    """What records work on a device; None where nothing does."""
    return _CudaGraphs() if device.type == "cuda" else None
