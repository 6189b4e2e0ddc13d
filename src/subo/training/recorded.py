"""Training steps recorded once as a graph of kernels, and replayed on other batches.

On a GPU a small network's step takes the time in which Python launches some hundred kernels one after the other. A CUDA
graph holds all of them, from the gathering of the batch to the optimizer's update, and is launched as one. What it
reads lies at fixed places, which are filled before each launch: the examples' numbers, the seed of their bits, learning
rate and weight of the KL. Nothing comes back before some steps are made: the losses are then looked at together. A step
whose loss is not finite, and all after it, change no parameter, since the optimizer's kernel skips its update.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from subo.core.objective import Loss, Objective
from subo.core.offers import Tempered
from subo.data.batches import Batch, batch_of
from subo.data.on_device import Places
from subo.data.support import explained
from subo.errors import InputError
from subo.runtime.devices import place
from subo.runtime.host_reads import NoHostReads
from subo.runtime.randomness import drawing_nothing_on_failure
from subo.training.graphs import Recorder, UnrecordableError
from subo.training.step import PlainSteps, Stage, Step, diverged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["RecordedSteps"]

_AS_USUAL = 3  # steps before recording, in which kernels, memory and the optimizer's state are set up
_AHEAD = 100  # steps, at most, before their losses are looked at
_SEQUENCES = "batches of sequences are padded to many lengths, and a graph has one"


class RecordedSteps:
    """Steps of training on batches of one size, each a replay of the same recorded work.

    The first few are made as usual, the last of these inside :class:`NoHostReads`. Work is recorded once for each stage
    of training: for the ELBO at the start, if there is such a stage, and for the objective's bound. Other batches, such
    as an epoch's last, are left to plain steps.

    Args:
        objective: Objective to train.
        optimizer: Fused Adam or AdamW over its parameters; until :meth:`close`, its learning rates are tensors.
        fabric: Lightning Fabric of the training.
        plain: Steps as Python makes them.
        recorder: What records work on the device.
        clip: Largest norm of the gradient, or None.
        warms_up: Whether the weight of the KL changes.
        look_every: Losses are looked at after each multiple of so many steps, and after 100 at the latest.
        look_from: Number of the step from which these are counted.
        required: Whether work that cannot be recorded is refused; otherwise it is left to plain steps.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        fabric: "Fabric",
        plain: PlainSteps,
        recorder: Recorder,
        *,
        clip: float | None,
        warms_up: bool,
        look_every: int,
        look_from: int,
        required: bool,
    ):
        self._recorder, self._objective, self._optimizer, self._plain = recorder, objective, optimizer, plain
        self._in_precision, self._clip = fabric.strategy.precision.forward_context, clip
        self._look_every, self._look_from, self._required = look_every, look_from, required
        self._parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        device = self._parameters[0].device
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)
        self._kl: Tensor | float = torch.ones((), device=device) if warms_up else 1.0
        self._failed = torch.zeros((), device=device)
        optimizer.found_inf = self._failed  # pyright: ignore[reportAttributeAccessIssue]  # where it is 1, no update
        self._generator = torch.Generator(device)
        self._like: Batch | Places | None = None
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[bool, Tensor] = {}
        self._made = {False: 0, True: 0}
        self._replays: dict[bool, Callable[[], None]] = {}
        self._waiting: list[tuple[Step, Tensor]] = []
        self._on = True

    def make(self, number: int, item: Any, rate: float, stage: Stage) -> Iterator[Step]:
        """Makes a step, see :meth:`PlainSteps.make`; yields it later, with others, once all their losses are known."""
        batch = item if isinstance(item, Places) else batch_of(item)
        if not self._takes(batch):
            yield from self.rest()
            yield from self._plain.make(number, item, rate, stage)
            return
        try:
            numbers = self._numbers(batch, stage)
        except UnrecordableError as error:
            if self._required:
                raise InputError(f"compile graph: {error}. Leave it out, or use auto") from error
            yield from self.rest()
            self.close()
            yield from self._plain.make(number, item, rate, stage)
            return
        except (RuntimeError, ValueError, IndexError, TypeError):
            with explained(self._objective.model, *self._read(), where=f"batch {number}"):
                raise
        step = Step(number, self._loss(numbers), 1.0, rate, stage["kl_weight"], None, settled=False)
        self._waiting.append((step, numbers[: self._heads]))
        if len(self._waiting) == _AHEAD or (number - self._look_from) % self._look_every == 0:
            yield from self.rest()

    def rest(self) -> Iterator[Step]:
        """The steps that were made since the last look, each if its loss has proved to be finite.

        Raises:
            DivergedError: One is not. The parameters are those before that step.
        """
        waiting, self._waiting = self._waiting, []
        heads = torch.stack([head for _, head in waiting]).tolist() if waiting else []
        for made, ((step, _), (value, *norms)) in enumerate(zip(waiting, heads, strict=True), 1):
            norm = norms[0] if norms else None
            if not all(map(math.isfinite, (value, *norms))):
                raise diverged(step.number, step.loss, value, norm)
            yield replace(step, gradient_norm=norm, settled=made == len(waiting))

    def close(self) -> None:
        """Gives the optimizer back as it was, and records no more."""
        if not self._on:
            return
        self._on = False
        del self._optimizer.found_inf  # pyright: ignore[reportAttributeAccessIssue]
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    @property
    def _heads(self) -> int:
        """How many numbers come before those of the examples: the loss, and the gradient's norm if there is one."""
        return 1 if self._clip is None else 2

    def _takes(self, batch: Batch | Places) -> bool:
        """Whether a batch has the form and the size of the others.

        An epoch's last one, with which a run may resume, gives way to a larger one.

        Raises:
            InputError: It holds sequences, which are padded to many sizes, and steps must be recorded.
        """
        if isinstance(batch, Batch) and "mask" in batch.context:
            if self._required:
                raise InputError(f"compile graph: {_SEQUENCES}. Leave it out, or use auto")
            return False
        if self._like is not None and not self._replays and len(batch) > len(self._like):
            self._like, self._outputs, self._made = None, {}, {False: 0, True: 0}
        return self._on and (self._like is None or _shapes(batch) == _shapes(self._like))

    def _numbers(self, batch: Batch | Places, stage: Stage) -> Tensor:
        """Makes a step, and returns the numbers that it leaves, which nobody has looked at."""
        self._fill(batch)
        if isinstance(self._kl, Tensor):
            self._kl.fill_(stage["kl_weight"])
        as_elbo = "as_elbo" in stage
        if self._made[as_elbo] < _AS_USUAL:
            self._as_usual(as_elbo, watched=self._made[as_elbo] == _AS_USUAL - 1)
        else:
            self._replay(as_elbo)
        self._made[as_elbo] += 1
        return self._outputs[as_elbo].clone()

    def _as_usual(self, as_elbo: bool, *, watched: bool) -> None:
        """A step before recording. If it cannot be recorded, it has not been made, and drew nothing."""
        if not watched:
            with self._recorder.aside():
                self._work(as_elbo)
            return
        with drawing_nothing_on_failure(self._failed.device), self._recorder.aside():
            try:
                self._alone(as_elbo)
            except InputError as error:
                raise UnrecordableError(str(error)) from error

    def _replay(self, as_elbo: bool) -> None:
        if as_elbo not in self._replays:
            for group in self._optimizer.param_groups:
                group["capturable"] = True  # without which torch refuses to record; its state is on the device anyway
            try:
                self._replays[as_elbo] = self._recorder.record(partial(self._alone, as_elbo), [self._generator])
            except RuntimeError as error:
                raise UnrecordableError(f"CUDA refused to record it ({error})") from error
            finally:
                for group in self._optimizer.param_groups:
                    group["capturable"] = False
        self._replays[as_elbo]()

    def _alone(self, as_elbo: bool) -> None:
        """The work, in which Python sees no number, and no check asks for one."""
        with NoHostReads():
            self._work(as_elbo)

    def _fill(self, batch: Batch | Places) -> None:
        """Puts a batch where the recorded work reads it."""
        if self._like is None:
            device = self._parameters[0].device
            self._like, self._inputs = batch, {name: part.to(device, copy=True) for name, part in _parts(batch).items()}
        for name, part in _parts(batch).items():
            self._inputs[name].copy_(part, non_blocking=True)
        if isinstance(batch, Places) and batch.seed is not None:
            self._generator.manual_seed(batch.seed)

    def _read(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The batch that was put there."""
        if isinstance(self._like, Places):
            batch = replace(self._like, index=self._inputs["index"]).read(self._generator)
            return place(self._objective, batch.x, batch.context)
        context = {name: part for name, part in self._inputs.items() if name != _X}
        return place(self._objective, self._inputs[_X], context)

    def _work(self, as_elbo: bool) -> None:
        """A step: what is recorded, from the batch to the update, and the numbers that it leaves."""
        x, context = self._read()
        for parameter in self._parameters:
            parameter.grad = None
        weight = self._kl if as_elbo or isinstance(self._objective.bound, Tempered) else 1.0
        with self._in_precision():
            loss: Loss = self._objective(x, context, kl_weight=weight, as_elbo=as_elbo)
        loss.loss.backward()
        heads = [loss.loss.detach()]
        if self._clip is not None:
            heads.append(clip_grad_norm_(self._parameters, self._clip))
        self._failed.copy_(torch.stack([self._failed, *(~head.isfinite() for head in heads)]).amax())
        self._optimizer.step()
        numbers = torch.cat([torch.stack(heads), loss.bound, loss.objective, loss.distortion, *loss.rate])
        self._outputs.setdefault(as_elbo, torch.empty_like(numbers)).copy_(numbers)

    def _loss(self, numbers: Tensor) -> Loss:
        """The numbers of a step, as the objective gives them."""
        assert self._like is not None
        rows = numbers[self._heads :].view(-1, len(self._like))
        return Loss(numbers[0], rows[0], rows[1], rows[3:], rows[2])


_X = ""  # beside the names of the context


def _parts(batch: Batch | Places) -> dict[str, Tensor]:
    """The tensors that differ from batch to batch."""
    return {"index": batch.index} if isinstance(batch, Places) else {_X: batch.x, **batch.context}


def _shapes(batch: Batch | Places) -> Any:
    return type(batch), {name: (part.shape, part.dtype) for name, part in _parts(batch).items()}
