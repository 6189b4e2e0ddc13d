"""Labels as context: parts of a model ``p(x, z | c)`` that are conditioned on the class c of each example.

They declare ``label`` in their call, and so receive it with every batch of labeled data. With all three parts
conditioned, ``log p(x|c) >= E_q[log p(x|z, c) + log p(z|c) - log q(z|x, c)]``: the ELBO within a class, with networks
shared by the classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.errors import InputError
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments
from subo.runtime.host_reads import reads_allowed

__all__ = ["ByLabel", "Labelled", "Stack", "check_labels", "count_labels", "labelled", "num_labels_of"]


_LISTED = 10  # classes listed in a message


class Labelled(nn.Module):
    """A network that receives the label in addition to its input: ``network([input, one_hot(label)])``.

    Args:
        network: Network that takes `num_labels` more elements than an input has; with `planes`, more channels.
        num_labels: Number of classes C; labels are 0 .. C - 1.
        planes: Whether inputs are images, ``(N, channels, H, W)``, to which each class adds a channel, all ones for the
            class of the image and zeros otherwise. If not, they are flattened and followed by C elements.

    Raises:
        InputError: At a call, the labels are not integers below C, one per row.

    Example:
        >>> from subo import Bernoulli, Conditional, mlp
        >>> decoder = Conditional(Bernoulli((64,)), Labelled(mlp(2 + 10, 64), num_labels=10))
        >>> decoder(torch.zeros(3, 2), label=torch.tensor([0, 7, 9])).mean.shape
        torch.Size([3, 64])
    """

    @checked_arguments
    def __init__(self, network: nn.Module, *, num_labels: int, planes: bool = False):
        super().__init__()
        self.network = network
        self.num_labels = num_labels
        self.planes = planes

    def forward(self, input: Float[Tensor, "N ..."], label: Tensor) -> Tensor:
        known = _checked(label, self.num_labels, len(input))
        codes = (known.unsqueeze(1) == torch.arange(self.num_labels, device=known.device)).to(input)
        if self.planes:
            codes = codes[:, :, None, None].expand(-1, -1, *input.shape[2:])
        else:
            input = input.flatten(1)
        return self.network(torch.cat([input, codes], dim=1))


def labelled(
    make: Callable[[Size], nn.Module], input_shape: Sequence[int], *, num_labels: int, planes: bool = False
) -> Labelled:
    """Makes the network for inputs of a given shape plus the label.

    Args:
        make: Makes the network, given the shape that it sees.
        input_shape: Shape of one input without the label.
        num_labels: Number of classes C.
        planes: As for :class:`Labelled`.

    Example:
        >>> labelled(lambda shape: nn.Linear(shape.numel(), 4), (1, 8, 8), num_labels=10).network
        Linear(in_features=74, out_features=4, bias=True)
    """
    shape = Size(input_shape)
    wider = Size((shape[0] + num_labels, *shape[1:]) if planes else (shape.numel() + num_labels,))
    return Labelled(make(wider), num_labels=num_labels, planes=planes)


class Stack(nn.Sequential):
    """Networks in sequence, each of which receives those names of the context that it declares.

    Args:
        *networks: The first takes the input, each later one the output of the one before.

    Example:
        >>> from subo import mlp
        >>> stack = Stack(nn.Tanh(), Labelled(mlp(5 + 3, 4), num_labels=3))
        >>> stack(torch.zeros(2, 5), label=torch.tensor([0, 2])).shape
        torch.Size([2, 4])
    """

    @checked_arguments
    def __init__(self, *networks: nn.Module):
        super().__init__(*networks)

    def forward(self, input: Tensor, **context: Tensor) -> Tensor:
        for network in self:
            input = contexts.call(network, input, context=context)
        return input


class ByLabel(nn.Module):
    r"""A distribution with a free row of parameters per class: ``p(z|c)``, a prior.

    .. math:: p(z | c) = p_{\lambda_c}(z), \qquad \lambda_c = 0 \text{ initially}

    Rows start at zero, the family's plainest member: the standard normal, fair coins. With a Gaussian family the rate
    of an example is ``KL(q(z|x, c) || N(m_c, s_c^2))``, in closed form.

    Args:
        family: Parameters -> Distribution.
        num_labels: Number of classes C; labels are 0 .. C - 1.

    Raises:
        InputError: At a call, the labels are not integers below C.

    Example:
        >>> from subo import Gaussian
        >>> prior = ByLabel(Gaussian((2,)), num_labels=10)
        >>> prior(label=torch.tensor([0, 7, 9])).mean.shape
        torch.Size([3, 2])
    """

    @checked_arguments
    def __init__(self, family: Family, *, num_labels: int):
        super().__init__()
        self.family = family
        self.num_labels = num_labels
        self.params = nn.Parameter(torch.zeros(num_labels, family.num_params))

    def forward(self, label: Tensor) -> Distribution:
        return self.family(F.embedding(_checked(label, self.num_labels), self.params))


def num_labels_of(model: Any) -> int | None:
    """Number of classes the model is conditioned on, or None if it is unconditional.

    Args:
        model: A module with parts that may be :class:`Labelled` or :class:`ByLabel`; anything else is unconditional.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return next((module.num_labels for module in modules if isinstance(module, Labelled | ByLabel)), None)


def count_labels(parts: Sequence[Tensor | None], *, asked: int | None = None, where: str = "the data") -> int:
    """The number of classes: one more than the largest label, unless a larger number is requested.

    Args:
        parts: Labels of each part of the data, ``(N,)``; None if it has none.
        asked: The number of classes, if known.
        where: Name of the data in messages.

    Raises:
        InputError: A part has no labels, or they do not fit that number of classes.

    Example:
        >>> count_labels([torch.tensor([0, 2, 2]), torch.tensor([1])])
        3
    """
    known = [labels for labels in parts if labels is not None]
    if len(known) < len(parts):
        check_labels(None, 1, where=where)
    largest, num_data = max(int(labels.max()) for labels in known), sum(map(len, known))
    count = max(1, 1 + largest) if asked is None else asked
    if count < 1:
        raise InputError(f"num_labels must be at least 1, not {count}: one more than the largest label")
    for labels in known:
        check_labels(labels, count, where=where)
    if asked is None and 1 < num_data <= count:
        raise InputError(
            f"{where}: there are {count} classes for {num_data} examples: these are not classes. Give each class "
            "several examples, or leave the condition out."
        )
    return count


def check_labels(
    labels: Tensor | None, num_labels: int, *, names: Sequence[str] | None = None, where: str = "the data"
) -> None:
    """Refuses data without labels that a model of C classes can use.

    Args:
        labels: ``(N,)``, or None for data without labels.
        num_labels: Number of classes C.
        names: Names of the classes 0, 1, ..., starting with those that the model knows.
        where: Name of the data in messages.

    Raises:
        InputError: There are no labels, or one is not in 0 .. C - 1.
    """
    if labels is None:
        raise InputError(
            f"{where}: there are no labels, but the model is conditioned on the class of each example (condition "
            "labels). Give them: a column named label in a .csv, an array labels next to x in an .npz, or a subfolder "
            "of images per class."
        )
    outside = ((labels < 0) | (labels >= num_labels)).nonzero()[:, 0]
    if len(outside):
        row = int(outside[0])
        label = int(labels[row]) if names is None else names[int(labels[row])]
        raise InputError(f"{where}: row {row + 1} has the label {label}, {_known(num_labels, names)}")


def _checked(label: Tensor, num_labels: int, num_rows: int | None = None) -> Tensor:
    """Labels as indices, refused unless they are one integer below C per row."""
    plain = label.ndim == 1 and not (label.is_floating_point() or label.is_complex())
    if not plain or num_rows not in (None, len(label)):
        shape = "(N,)" if num_rows is None else f"({num_rows},)"
        raise InputError(
            f"the context 'label' is one integer per row, of shape {shape}; received shape {tuple(label.shape)} and "
            f"{label.dtype}. Usually these are labels of other data, a single number, or one-hot codes: give the "
            "numbers of the classes, such as torch.full((5,), 3) for five examples of class 3."
        )
    outside = (label < 0) | (label >= num_labels)
    if reads_allowed() and outside.any():
        raise InputError(f"the context 'label' holds {int(label[outside][0])}, {_known(num_labels)}")
    return label.long()


def _known(num_labels: int, names: Sequence[str] | None = None) -> str:
    numbers = [str(number) for number in range(num_labels)]
    named = names is not None and list(names[:num_labels]) != numbers
    classes = f"0 to {num_labels - 1}" if num_labels > 1 else "0 alone"
    if names is not None and named:
        more = f" and {num_labels - _LISTED} more" if num_labels > _LISTED else ""
        classes = ", ".join(names[: min(num_labels, _LISTED)]) + more
    return (
        f"but the model knows the classes {classes}. {'Name' if named else 'Number'} the classes like this; for a "
        "model with more classes, fit it to data that hold them, or with num_labels."
    )
