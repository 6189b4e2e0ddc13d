"""What each layer of a ladder adds to an example."""

from typing import Any

import torch

from subo.core import context as contexts
from subo.data.splits import Split
from subo.explorer.numbers import packed
from subo.models.ladder import Ladder
from subo.runtime.randomness import forked

__all__ = ["layers_record"]

_BYTES, _MOST = 600_000, 100  # of all pictures, and examples
_SAMPLES = 16


def layers_record(model: Any, few: Split, shading: dict[str, float]) -> dict[str, Any] | None:
    r"""Means of p(x|z) where the upper layers are those of an example and the others are drawn anew.

    .. math:: E[x \mid z_{\ge l}], \quad z_{\ge l} \sim q(z_{\ge l} | x), \quad z_{<l} \sim p(z_{<l} | z_{\ge l})

    by 16 samples, for each layer l, top first; the last is the reconstruction. None of other models, and where an
    example is not an image.

    Args:
        model: The model, in evaluation mode.
        few: The examples.
        shading: Factor and shift with which values become shades in [0, 1].
    """
    if not isinstance(model, Ladder) or len(few.event_shape) != 3:
        return None
    count = min(len(few), _MOST, max(1, _BYTES // (len(model.names) * few.event_shape.numel())))
    x, context = few.read(torch.arange(count))
    means, held = [], {}
    with forked(0):
        z: Any = model.draw(x, context, num_samples=_SAMPLES, path=False).z
        known = contexts.repeat(context, _SAMPLES)
        for name in model.names:
            held[name] = z[name].flatten(0, 1)
            _, p = model.sample(_SAMPLES * count, known, fixed=held)
            means.append(p.mean.unflatten(0, (_SAMPLES, count)).mean(0))
    shades = (shading["factor"] * torch.stack(means) + shading["shift"]).clamp(0, 1)
    return {"names": list(model.names), "shades": packed((255 * shades).round(), "u8")}
