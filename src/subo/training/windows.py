r"""Long sequences in windows: an update after every so many steps, each from the state at which the last one ended.

.. math:: \log p(x) \ge E_q \sum_w \sum_{t \in w} \Big[ \log p(x_t | z_t)
          - KL\big(q(z_t | z_{t-1}, x_t, \dots, x_{e(w)}) \,\|\, p(z_t | z_{t-1})\big) \Big]

with e(w) the last step of window w. A reader that sees the rest of its window alone gives a ``q(z_t | z_{t-1}, x)`` of
a smaller family, so that the windows' bounds add up to a bound on log p(x). Its gradient is truncated, and thereby
biased (Williams and Peng, 1990): to a window the state that it starts from is a constant, so that its terms do not
reach the parameters by way of earlier windows; and that state was drawn before the latest updates. Autograd keeps what
one window needs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from subo.core.bounds import ELBO
from subo.core.context import receives
from subo.core.objective import Loss, Objective
from subo.data.splits import Split
from subo.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Follow", "Update", "allow_unused", "check_windows", "in_windows", "takes_windows"]


class Update(NamedTuple):
    """An update that is to be made.

    Attributes:
        number: Number of its step.
        x: The batch, or a window of it.
        context: Its context.
        weight: Weight of this process's share.
        stage: What the objective is called with beside them.
        resting: Parameters that stay as they are.
    """

    number: int
    x: Tensor
    context: dict[str, Tensor]
    weight: float
    stage: dict[str, Any]
    resting: list[nn.Parameter]


Follow = Callable[[Update], tuple[Loss, float | None]]
"""Makes an update; returns the loss before it, and the gradient's norm if it is clipped."""


def in_windows(follow: Follow, window: int) -> Follow:
    """An update for each window of a batch in turn, from an update of a batch.

    All rows stay in the batch until its longest sequence ends: those that ended before have no real steps in a window.

    Args:
        follow: Update of a batch, or of a window.
        window: Largest number of steps of a window.

    Returns:
        A function that returns the sum of the windows' losses, and the largest of their norms.
    """

    def of_windows(whole: Update) -> tuple[Loss, float | None]:
        if "mask" not in whole.context:
            raise InputError(_NO_STEPS)
        losses, norms, carried = [], [], {}
        for steps, mask in zip(whole.x.split(window, 1), whole.context["mask"].split(window, 1), strict=True):
            known = {**whole.context, "mask": mask, **carried}
            loss, norm = follow(whole._replace(x=steps, context=known, stage=whole.stage | {"keep_z": True}))
            carried = {"previous": loss.z[0, :, -1]}  # rows that go on have no padding in this window
            losses.append(loss)
            norms.append(norm)
        *terms, _ = zip(*losses, strict=True)
        total = Loss(*map(sum, terms))  # pyright: ignore[reportArgumentType]
        return total, None if norms[0] is None else max(norms)

    return of_windows


def check_windows(objective: Objective, split: Split | None = None) -> None:
    """Refuses what cannot be trained in windows.

    Args:
        objective: Objective to train.
        split: Training data, if they are in memory.

    Raises:
        InputError: The data are not sequences, the model has no state to carry on, or the bound is no sum over windows.
    """
    if split is not None and split.lengths is None:
        raise InputError(_NO_STEPS)
    if reason := _unsuited(objective):
        raise InputError(reason)


def takes_windows(objective: Objective) -> bool:
    """Whether an objective can be trained in windows."""
    return not _unsuited(objective)


def _unsuited(objective: Objective) -> str:
    """Why an objective cannot be trained in windows; empty if it can."""
    model, bound = objective.model, objective.bound
    parts = ((getattr(model, "prior", None), 0), (getattr(model, "posterior", None), 1))
    if not all(callable(part) and "previous" in receives(part, inputs)[0] for part, inputs in parts):
        return (
            "`window` trains a chain of states window by window: its prior and posterior must go on from given states "
            "as Markov and Smoother of the recipe deep-markov do. This "
            f"{type(model).__name__} has others: leave `window` out"
        )
    if not isinstance(bound, ELBO) or bound.free_bits or objective.gradient.path is not True:
        return (
            "with `window`, training follows the sum over windows of the ELBO without free bits, along the path "
            f"through the states; this objective has the bound {bound} and the gradient "
            f"{type(objective.gradient).__name__}. Use the ELBO with Pathwise or StickingTheLanding, or leave "
            "`window` out"
        )
    return ""


def allow_unused(fabric: "Fabric") -> None:
    """Lets several processes share steps that leave parameters out: later windows have none of the first state's.

    torch's DistributedDataParallel takes such a step for unfinished unless it is asked to look for them.
    """
    options = getattr(fabric.strategy, "_ddp_kwargs", None)
    if options is not None:
        options["find_unused_parameters"] = True


_NO_STEPS = (
    "`window` counts time steps, but these data are not sequences: there is no mask (B, T) of real steps. Leave it out"
)
