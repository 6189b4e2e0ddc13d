"""What training did: a record an epoch."""

from dataclasses import dataclass
from typing import Any, Literal

from subo.metrics import Metrics
from subo.updates import UpdatesName

__all__ = ["Epoch", "History", "epoch_of"]


@dataclass(frozen=True)
class Epoch:
    """One epoch of training; the last may be a part of one.

    Attributes:
        epoch: Counts from 1.
        step: Steps made until its end.
        seconds: Of training until its end, over all sittings.
        learning_rate: At its end.
        kl_weight: At its end.
        train: Means over its batches, each before its step.
        validation: At its end; None without validation data.
        updates: What was done in it: aggressive updates become joint ones for good after the epoch that ends them.
        mutual_information: Of x and z under q at its end, on validation data, or training data where there are none;
            None unless updates were aggressive.
    """

    epoch: int
    step: int
    seconds: float
    learning_rate: float
    kl_weight: float
    train: Metrics
    validation: Metrics | None
    updates: UpdatesName = "joint"
    mutual_information: float | None = None


@dataclass(frozen=True)
class History:
    """What training did.

    Attributes:
        epochs: One record an epoch.
        best_epoch: The epoch of the best validation objective (the bound, unless beta or free bits shape it), whose
            weights the model has; None without validation.
        stopped_by: What ended it.
    """

    epochs: tuple[Epoch, ...]
    best_epoch: int | None
    stopped_by: Literal["epochs", "minutes", "patience"]


def epoch_of(record: dict[str, Any]) -> Epoch:
    """The record of an epoch from its plain values, as ``metrics.jsonl`` and checkpoints hold them."""

    def metrics(values: dict[str, Any] | None) -> Metrics | None:
        return None if values is None else Metrics(**{**values, "rates": tuple(values["rates"])})

    return Epoch(**{**record, "train": metrics(record["train"]), "validation": metrics(record["validation"])})
