"""How the steps of a training are made: as Python does it, compiled, or recorded once and replayed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from torch.optim import Adam, AdamW, Optimizer

from subo.core.objective import Objective
from subo.errors import InputError
from subo.runs.config import CompileName
from subo.training.graphs import Recorder, recorder_of
from subo.training.recorded import RecordedSteps
from subo.training.step import PlainSteps
from subo.training.updates import Joint, Updates

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["steps_of"]


@contextmanager
def steps_of(
    compile: CompileName,
    objective: Objective,
    optimizer: Optimizer,
    fabric: "Fabric",
    updates: Updates,
    *,
    clip: float | None,
    window: int | None,
    warms_up: bool,
    look_every: int,
    look_from: int,
) -> Iterator[PlainSteps | RecordedSteps]:
    """What makes the steps of a training, as the setting `compile` of :func:`subo.fit` asks.

    Raises:
        InputError: Steps cannot be compiled or recorded with these settings; says why.
    """
    if compile == "torch" and (fabric.world_size > 1 or fabric.strategy.precision.precision != "32-true"):
        raise InputError("compile torch is for one process in the precision 32-true: leave it out")
    made = {"clip": clip, "warms_up": warms_up}
    plain = PlainSteps(objective, optimizer, fabric, updates, window=window, compiled=compile == "torch", **made)
    recorder = recorder_of(fabric.device)
    refused = _refusal(optimizer, fabric, updates, recorder)
    if compile == "graph" and refused:
        raise InputError(f"compile graph: {refused}. Leave it out, or use auto")
    if compile in ("none", "torch") or recorder is None or refused:
        yield plain
        return
    how = {"look_every": look_every, "look_from": look_from, "required": compile == "graph", **made}
    with closing(RecordedSteps(objective, optimizer, fabric, plain, recorder, **how)) as recorded:
        yield recorded


def _refusal(optimizer: Optimizer, fabric: "Fabric", updates: Updates, recorder: Recorder | None) -> str | None:
    """Why steps cannot be recorded, as far as settings decide it; None if they can."""
    precision = fabric.strategy.precision.precision
    if recorder is None:
        return f"only CUDA has graphs, and the device is {fabric.device.type}"
    if fabric.world_size > 1:
        return "several processes share each batch"
    if precision not in ("32-true", "64-true"):
        return f"products in {precision} choose their precision step by step"
    if not isinstance(updates, Joint):
        return f"{updates.name} updates decide from step to step what they update"
    if type(optimizer) not in (Adam, AdamW) or not all(group["fused"] for group in optimizer.param_groups):
        return f"the optimizer is {type(optimizer).__name__}, and only fused Adam and AdamW skip a step on the device"
    return None
