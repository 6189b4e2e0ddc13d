"""Labels as context: parts of a model ``p(x, z | c)`` that are told the class c of each example.

They declare ``label`` in their call, and so receive it with every batch of data that have labels. With all three parts
told, ``log p(x|c) >= E_q[log p(x|z, c) + log p(z|c) - log q(z|x, c)]``: the ELBO within a class, of networks that the
classes share.
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

__all__ = ["ByLabel", "Labelled", "Stack", "check_labels", "count_labels", "labelled", "num_labels_of"]


_LISTED = 10  # classes in a message


class Labelled(nn.Module):
    """A network that is given the label beside its input: ``network([input, one_hot(label)])``.

    Args:
        network: Takes `num_labels` elements more than an input has; with `planes`, as many channels more.
        num_labels: C; labels are 0 .. C - 1.
        planes: Whether inputs are images, ``(N, channels, H, W)``, to which each class adds a channel, all ones for the
            class of the image and zeros else. Otherwise they are flattened, and C elements follow.

    Raises:
        InputError: At a call, the labels are no integers below C, one a row.

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
        codes = F.one_hot(_checked(label, self.num_labels, len(input)), self.num_labels).to(input)
        if self.planes:
            codes = codes[:, :, None, None].expand(-1, -1, *input.shape[2:])
        else:
            input = input.flatten(1)
        return self.network(torch.cat([input, codes], dim=1))


def labelled(
    make: Callable[[Size], nn.Module], input_shape: Sequence[int], *, num_labels: int, planes: bool = False
) -> Labelled:
    """Makes the network that inputs of a shape need when the label is beside them.

    Args:
        make: From the shape that the network sees to the network.
        input_shape: Shape of one input without the label.
        num_labels: C.
        planes: As of :class:`Labelled`.

    Example:
        >>> labelled(lambda shape: nn.Linear(shape.numel(), 4), (1, 8, 8), num_labels=10).network
        Linear(in_features=74, out_features=4, bias=True)
    """
    shape = Size(input_shape)
    wider = Size((shape[0] + num_labels, *shape[1:]) if planes else (shape.numel() + num_labels,))
    return Labelled(make(wider), num_labels=num_labels, planes=planes)


class Stack(nn.Sequential):
    """Networks one after the other, each of which receives those names of the context that it declares.

    Args:
        *networks: The first takes the input, each other one what the one before it gives.

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
    r"""A distribution whose parameters are a free row for every class: ``p(z|c)``, a prior.

    .. math:: p(z | c) = p_{\lambda_c}(z), \qquad \lambda_c = 0 \text{ to begin with}

    Rows start at zero, the family's plainest member: the standard normal, fair coins. With a Gaussian family the rate
    of an example is ``KL(q(z|x, c) || N(m_c, s_c^2))``, in closed form.

    Args:
        family: Parameters -> Distribution.
        num_labels: C; labels are 0 .. C - 1.

    Raises:
        InputError: At a call, the labels are no integers below C.

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
    """How many classes a model's parts are told apart; None where none is told its label.

    Args:
        model: A module whose parts may be :class:`Labelled` or :class:`ByLabel`; anything else has none.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return next((module.num_labels for module in modules if isinstance(module, Labelled | ByLabel)), None)


def count_labels(parts: Sequence[Tensor | None], *, asked: int | None = None, where: str = "the data") -> int:
    """How many classes there are: one more than the largest label, unless a larger number is asked for.

    Args:
        parts: Labels of each part of the data, ``(N,)``; None where it has none.
        asked: The number of classes, where it is known.
        where: What the data are called in a message.

    Raises:
        InputError: A part has no labels, or they are not those of so many classes.

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
            f"{where}: there are {count} classes, and {num_data} examples: these are not classes. Give each class "
            "several of the data, or leave the condition out."
        )
    return count


def check_labels(
    labels: Tensor | None, num_labels: int, *, names: Sequence[str] | None = None, where: str = "the data"
) -> None:
    """Refuses data that a model of C classes cannot be told the labels of.

    Args:
        labels: ``(N,)``, or None of data without.
        num_labels: C.
        names: Of the classes 0, 1, ..., those that the model knows first.
        where: What the data are called in a message.

    Raises:
        InputError: There are no labels, or one is not in 0 .. C - 1.
    """
    if labels is None:
        raise InputError(
            f"{where}: there are no labels, and the model is told the class of each example (condition labels). Give "
            "them: a column named label in a .csv, an array labels beside x in an .npz, a subfolder of images a class."
        )
    outside = ((labels < 0) | (labels >= num_labels)).nonzero()[:, 0]
    if len(outside):
        row = int(outside[0])
        label = int(labels[row]) if names is None else names[int(labels[row])]
        raise InputError(f"{where}: row {row + 1} has the label {label}, {_known(num_labels, names)}")


def _checked(label: Tensor, num_labels: int, num_rows: int | None = None) -> Tensor:
    """Labels as indices, refused unless they are one integer a row below C."""
    plain = label.ndim == 1 and not (label.is_floating_point() or label.is_complex())
    if not plain or num_rows not in (None, len(label)):
        shape = "(N,)" if num_rows is None else f"({num_rows},)"
        raise InputError(
            f"the context 'label' is one integer a row, of shape {shape}; it came with shape {tuple(label.shape)} and "
            f"{label.dtype}. Usually these are labels of other data, a lone number, or one-hot codes: give the "
            "numbers of the classes, such as torch.full((5,), 3) for five data of class 3."
        )
    outside = (label < 0) | (label >= num_labels)
    if outside.any():
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
        f"and the model knows the classes {classes}. {'Name' if named else 'Number'} the classes so; one that knows "
        "more of them is fitted to data that hold them, or with num_labels."
    )
