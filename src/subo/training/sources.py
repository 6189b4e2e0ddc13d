"""Where batches come from: data in memory, or whatever gives batches, such as a ``DataLoader``."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from subo.core.context import receives
from subo.core.objective import Objective
from subo.data.batches import Batch, batch_of, check_batch, num_batches
from subo.data.dataset import Data
from subo.data.splits import Split, as_split, split_of
from subo.data.support import check_support
from subo.data.values import kind_of
from subo.errors import InputError
from subo.training.checkpoints import TrainingState
from subo.training.checks import check_draws
from subo.training.epochs import stream_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Loader", "Rows", "data_of", "held_out_of", "source_of"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Training data in memory: an epoch goes through them once, in an order of its own.

    Attributes:
        split: The data.
        batch_size: Examples in a batch.
    """

    split: Split
    batch_size: int

    @property
    def num_data(self) -> int:
        """How many examples there are."""
        return len(self.split)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return num_batches(self.split, self.batch_size)

    def batches(self, seed: int, state: TrainingState, fabric: "Fabric") -> Iterator[Batch]:
        """All batches from where the state is, for ever."""
        return stream_of(self.split, self.batch_size, seed, state, fabric)


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches that come ready made, again and again: an epoch is a number of them.

    Attributes:
        loader: Gives batches.
        steps_per_epoch: Batches in an epoch.
        objective: For which the first batch is checked.
        split: None: the data are not in memory.
        num_data: None: nobody knows how many there are.
    """

    loader: Iterable[Any]
    steps_per_epoch: int
    objective: Objective
    split: None = None
    num_data: None = None

    def batches(self, seed: int, state: TrainingState, fabric: "Fabric") -> Iterator[Batch]:
        """All batches, pass after pass, for ever; a new pass where training goes on."""
        checked = False
        while True:
            items = iter(self.loader)
            first = next(items, None)
            if first is None:
                raise InputError(
                    "the training data have no batch left: a pass over them gave none. An iterator can be gone through "
                    "once; give what can be gone through again, such as a DataLoader or a list of batches"
                )
            for batch in map(batch_of, chain([first], items)):
                if not checked:
                    self._check(batch)
                    checked = True
                yield batch

    def _check(self, batch: Batch) -> None:
        """Refuses a batch that the model does not describe; on the CPU, where it is."""
        check_batch(batch)
        posterior = getattr(self.objective.model, "posterior", None)
        if callable(posterior) and "index" in receives(posterior)[0] and "index" not in batch.context:
            raise InputError(
                "the posterior needs `index`, the number of each example: local inference keeps parameters for each, "
                "and these batches do not say which examples they hold. Give the training data as a tensor or a Split"
            )
        objective = deepcopy(self.objective).cpu()
        split = split_of(batch.x, batch.context)
        check_support(objective.model, split, where="the first batch")
        if "index" not in batch.context:
            check_draws(objective, split)


def source_of(
    data: Any, objective: Objective, *, batch_size: int, steps_per_epoch: int | None, processes: int
) -> Rows | Loader:
    """Where batches come from.

    Args:
        data: Training data: a Split, a tensor, or whatever gives batches.
        objective: What is trained.
        batch_size: Examples in a batch of data in memory.
        steps_per_epoch: Batches in an epoch of those that come ready made; by default, as many as there are.
        processes: How many share the training.

    Raises:
        InputError: They are no data, or nobody knows how many batches an epoch has.
    """
    if not _gives_batches(data):
        if steps_per_epoch is not None:
            raise InputError(
                "`steps_per_epoch` counts the batches of a DataLoader, and these are data in memory, of which an epoch "
                "is one pass: leave it out"
            )
        return Rows(as_split(data), batch_size)
    if processes > 1:
        raise InputError(
            f"{processes} processes share the training, and a {type(data).__name__} would give all of them the same "
            "batches: give the data as a tensor or a Split, which is shared out, or train in one process"
        )
    if steps_per_epoch is None:
        try:
            steps_per_epoch = len(data)
        except TypeError:
            raise InputError(
                f"a {type(data).__name__} has no length, and an epoch needs one: give `steps_per_epoch`, the number of "
                "batches in an epoch"
            ) from None
    if steps_per_epoch == 0:
        raise InputError(f"the {type(data).__name__} has no batches. Usually `drop_last` drops the only one")
    return Loader(data, steps_per_epoch, objective)


def _gives_batches(data: Any) -> bool:
    known = isinstance(data, Split | Data | Tensor | str | bytes | Mapping | tuple)
    return not known and not hasattr(data, "__array__") and hasattr(data, "__iter__")


def data_of(data: Any, validation: Any) -> Data | Split | None:
    """The data in memory, training and validation; None where there are none.

    Args:
        data: Data in splits, or training data alone.
        validation: Validation data: a Split, a tensor, ``(x, label)`` or ``(x, context)``; or None.

    Raises:
        InputError: Validation data were given twice, or are none.
    """
    if isinstance(data, Data):
        if validation is not None:
            raise InputError("the data have validation data of their own: leave `validation` out, or give `data.train`")
        return data
    training = None if _gives_batches(data) else as_split(data)
    if validation is None:
        return training
    held_out = _held_out(validation)
    none = held_out.take(torch.arange(0))
    name = "batches" if training is None else "training data"
    return Data(
        name, none if training is None else training, held_out, none, kind_of(held_out.x, levels=held_out.levels)
    )


def held_out_of(data: Data | Split | None) -> dict[str, Split]:
    """Validation and test data by name, those that there are."""
    if not isinstance(data, Data):
        return {}
    return {name: split for name in ("validation", "test") if len(split := getattr(data, name))}


def _held_out(validation: Any) -> Split:
    if isinstance(validation, tuple | list):
        batch = batch_of(validation)
        return split_of(batch.x, batch.context)
    return as_split(validation)
