"""Sources of batches: data in memory, or any iterable of batches, such as a ``DataLoader``."""

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
from subo.data.on_device import Places
from subo.data.sparse_rows import Sparse
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
    """Training data in memory: each epoch is one pass over them, in its own order.

    Attributes:
        split: The data.
        batch_size: Number of examples in a batch.
    """

    split: Split
    batch_size: int

    @property
    def num_data(self) -> int:
        """Number of examples."""
        return len(self.split)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return num_batches(self.split, self.batch_size)

    def batches(self, seed: int, state: TrainingState, fabric: "Fabric") -> Iterator[Batch | Places]:
        """An endless stream of batches from the state's position."""
        return stream_of(self.split, self.batch_size, seed, state, fabric)


@dataclass(frozen=True, eq=False)
class Loader:
    """A re-iterable source of ready-made batches, of which an epoch is a fixed number.

    Attributes:
        loader: Iterable of batches.
        steps_per_epoch: Batches in an epoch.
        objective: Objective that the first batch is checked against.
        split: None: the data are not in memory.
        num_data: None: the number of examples is unknown.
    """

    loader: Iterable[Any]
    steps_per_epoch: int
    objective: Objective
    split: None = None
    num_data: None = None

    def batches(self, seed: int, state: TrainingState, fabric: "Fabric") -> Iterator[Batch]:
        """An endless stream of batches, pass after pass; a resumed training begins a new pass."""
        checked = False
        while True:
            items = iter(self.loader)
            first = next(items, None)
            if first is None:
                raise InputError(
                    "the training data have no batch left: a pass over them gave none. An iterator can only be used "
                    "once; give something that can be iterated again, such as a DataLoader or a list of batches"
                )
            for batch in map(batch_of, chain([first], items)):
                if not checked:
                    self._check(batch)
                    checked = True
                yield batch

    def _check(self, batch: Batch) -> None:
        """Refuses a batch that does not match the model; on the CPU, where the batch is."""
        check_batch(batch)
        posterior = getattr(self.objective.model, "posterior", None)
        if callable(posterior) and "index" in receives(posterior)[0] and "index" not in batch.context:
            raise InputError(
                "the posterior needs `index`, the number of each example: local inference keeps parameters for each, "
                "but these batches do not say which examples they contain. Give the training data as a tensor or a "
                "Split"
            )
        objective = deepcopy(self.objective).cpu()
        split = split_of(batch.x, batch.context)
        check_support(objective.model, split, where="the first batch")
        if "index" not in batch.context:
            check_draws(objective, split)


def source_of(
    data: Any, objective: Objective, *, batch_size: int, steps_per_epoch: int | None, processes: int
) -> Rows | Loader:
    """Makes the source of batches.

    Args:
        data: Training data: a Split, a tensor, or an iterable of batches.
        objective: Objective to train.
        batch_size: Number of examples in a batch, for data in memory.
        steps_per_epoch: Number of batches in an epoch, for ready-made batches; by default all of them.
        processes: Number of processes that share the training.

    Raises:
        InputError: These are not data, or the number of batches in an epoch is unknown.
    """
    if not _gives_batches(data):
        if steps_per_epoch is not None:
            raise InputError(
                "`steps_per_epoch` counts the batches of a DataLoader, but these are data in memory, and an epoch is "
                "one pass over them: leave it out"
            )
        return Rows(as_split(data), batch_size)
    if processes > 1:
        raise InputError(
            f"{processes} processes share the training, but a {type(data).__name__} would give all of them the same "
            "batches: give the data as a tensor or a Split, which is divided between them, or train in one process"
        )
    if steps_per_epoch is None:
        try:
            steps_per_epoch = len(data)
        except TypeError:
            raise InputError(
                f"a {type(data).__name__} has no length, so an epoch is undefined: give `steps_per_epoch`, the number "
                "of batches in an epoch"
            ) from None
    if steps_per_epoch == 0:
        raise InputError(f"the {type(data).__name__} has no batches. Usually `drop_last` dropped the only one")
    return Loader(data, steps_per_epoch, objective)


def _gives_batches(data: Any) -> bool:
    known = isinstance(data, Split | Data | Tensor | str | bytes | Mapping | tuple | Sparse)
    return not known and not hasattr(data, "__array__") and hasattr(data, "__iter__")


def data_of(data: Any, validation: Any) -> Data | Split | None:
    """The training and validation data in memory; None if there are none.

    Args:
        data: Data in splits, or training data only.
        validation: Validation data: a Split, a tensor, ``(x, label)`` or ``(x, context)``; or None.

    Raises:
        InputError: Validation data were given twice, or are not data.
    """
    if isinstance(data, Data):
        if validation is not None:
            raise InputError("the data already contain validation data: leave `validation` out, or give `data.train`")
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
    """Validation and test data by name, if they are not empty."""
    if not isinstance(data, Data):
        return {}
    return {name: split for name in ("validation", "test") if len(split := getattr(data, name))}


def _held_out(validation: Any) -> Split:
    if isinstance(validation, tuple | list):
        batch = batch_of(validation)
        return split_of(batch.x, batch.context)
    return as_split(validation)
