"""Paths in latent space: from one point to another, and along one dimension."""

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from subo.errors import InputError
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.typing import Context

__all__ = ["PathKind", "interpolate", "path_energy", "traverse"]

PathKind = Literal["linear", "spherical", "geodesic"]
"""Straight; along a great circle; or the shortest in data space."""

_PIECES = 32  # of a path that is bent, at least
_STEPS = 200  # of its optimizer


@checked_arguments
def interpolate(
    model: Any,
    start: Float[Tensor, "..."],
    end: Float[Tensor, "..."],
    *,
    num_points: int = 9,
    kind: PathKind = "linear",
    context: Context | None = None,
) -> Float[Tensor, "P D"]:
    r"""Points of latent space from one to another, both included.

    ``linear``: :math:`(1 - t) a + t b`. ``spherical`` (Shoemake, 1985): along the great circle between the directions
    of a and b, with a length that changes evenly; under a normal prior in many dimensions a straight path passes
    through lengths that p(z) hardly has. ``geodesic``: the path whose means :math:`f(z) = E[x|z]` have the least energy

    .. math:: E = \frac{P - 1}{2} \sum_k |f(z_{k+1}) - f(z_k)|^2

    (Shao, Kumar and Fletcher, 2018, equation 4). By Cauchy and Schwarz E is at least half the square of the path's
    length in data space, with equality for constant speed, so that its minimum is a shortest path. It starts at the
    straight path and may end in a local minimum.

    Args:
        model: A model that decodes.
        start: The first point, ``(D,)``.
        end: The last point, ``(D,)``.
        num_points: Number of points P, at least 2.
        kind: The kind of path.
        context: Context of the decoder, one row for each of the points; for ``geodesic`` a single row, for all.

    Raises:
        InputError: There are fewer than two points, or the two ends differ in their dimensions.

    Example:
        >>> from subo import probabilistic_pca
        >>> model = probabilistic_pca(5, 2)
        >>> interpolate(model, torch.zeros(2), torch.tensor([2.0, 4.0]), num_points=3)
        tensor([[0., 0.],
                [1., 2.],
                [2., 4.]])
    """
    if num_points < 2:
        raise InputError(f"a path has at least two points, its ends: num_points is {num_points}")
    if start.ndim != 1 or start.shape != end.shape:
        raise InputError(f"the ends are two vectors of one size, not {tuple(start.shape)} and {tuple(end.shape)}")
    if kind not in get_args(PathKind):
        raise InputError(f"kind must be one of {', '.join(get_args(PathKind))}, not {kind!r}")
    share = torch.linspace(0, 1, num_points, dtype=start.dtype).unsqueeze(1)
    if kind == "spherical":
        return _spherical(start, end, share)
    if kind == "linear":
        return (1 - share) * start + share * end
    each = math.ceil(_PIECES / (num_points - 1))
    fine = torch.linspace(0, 1, each * (num_points - 1) + 1, dtype=start.dtype).unsqueeze(1)
    return _shortest(model, (1 - fine) * start + fine * end, context)[::each]


@checked_arguments
def traverse(
    z: Float[Tensor, " D"], dimension: int, *, num_points: int = 7, reach: float = 3.0
) -> Float[Tensor, "P D"]:
    """Points that differ from z in one dimension, which runs from -reach to reach.

    Args:
        z: The point.
        dimension: The dimension, from 0.
        num_points: Number of points P.
        reach: Where the dimension ends.

    Example:
        >>> traverse(torch.tensor([0.5, 7.0]), 1, num_points=3)
        tensor([[ 0.5000, -3.0000],
                [ 0.5000,  0.0000],
                [ 0.5000,  3.0000]])
    """
    points = z.repeat(num_points, 1)
    points[:, dimension] = torch.linspace(-reach, reach, num_points, dtype=z.dtype)
    return points


def path_energy(model: Any, path: Float[Tensor, "P D"], context: Context | None = None) -> Float[Tensor, ""]:
    """E of :func:`interpolate`, with a gradient.

    Args:
        model: A model that decodes.
        path: The points.
        context: Context of the decoder: a single row for all points.
    """
    known = {name: tensor.expand(len(path), *tensor.shape[1:]) for name, tensor in (context or {}).items()}
    means = model.decode(*place(model, path, known)).mean.flatten(1)
    return 0.5 * (len(path) - 1) * means.diff(dim=0).square().sum()


def _spherical(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    lengths = torch.stack([start.norm(), end.norm()])
    if bool((lengths == 0).any()):
        return (1 - share) * start + share * end
    first, last = start / lengths[0], end / lengths[1]
    angle = (first @ last).clamp(-1, 1).acos()
    if angle < 1e-4 or math.pi - angle < 1e-4:  # no single circle leads there
        return (1 - share) * start + share * end
    directions = (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
    return ((1 - share) * lengths[0] + share * lengths[1]) * directions


def _shortest(model: Any, path: Tensor, context: Context | None) -> Tensor:
    """The path of least energy between the same ends, by L-BFGS on the points between them."""
    ends = path[:1], path[-1:]
    inner = path[1:-1].clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([inner], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        energy = path_energy(model, torch.cat([ends[0], inner, ends[1]]), context)
        (inner.grad,) = torch.autograd.grad(energy, [inner])
        return energy

    with evaluating(model), torch.enable_grad():
        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return torch.cat([ends[0], inner.detach(), ends[1]])
