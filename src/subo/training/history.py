"""What training did: one record per epoch."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from subo.evaluation.results import Result, Table, flat
from subo.files.nonfinite import encoded
from subo.training.metrics import Metrics
from subo.training.updates import UpdatesName

__all__ = ["Epoch", "History", "WorseWarning", "epoch_of"]

_SHOWN = 10  # epochs, approximately
_CURVES = ("bound", "rate", "distortion")


class WorseWarning(UserWarning):
    """A model is worse after training than before."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of training; the last may be incomplete.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Steps made by its end.
        seconds: Training time until its end, over all sittings.
        learning_rate: Learning rate at its end.
        kl_weight: Weight of the KL at its end.
        train: Means over its batches, each measured before its step.
        validation: Means over the validation data at its end; None without validation data.
        updates: Kind of updates in it: aggressive updates become joint for good after the epoch that ends them.
        mutual_information: Mutual information of x and z under q at its end, on validation data, or on training data if
            there are none; None unless updates were aggressive.
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


@dataclass(frozen=True, repr=False)
class History(Result):
    """What training did.

    Attributes:
        epochs: One record per epoch.
        best_epoch: The epoch of the best validation objective (the bound, unless beta or free bits shape it), whose
            weights the model has; None without validation.
        stopped_by: What ended training.
        before: The objective, in nats per data point, before the first step: on the validation data, or on the first
            1,000 training examples if there are none. None if it was not measured, minus infinity if it was not finite.
            It includes beta and free bits.
        after: The objective with the model's final weights.
        noise: How much lower `after` may be than `before` by chance; see
            :func:`subo.training.divergence.noise_of_change`.
    """

    epochs: tuple[Epoch, ...]
    best_epoch: int | None
    stopped_by: Literal["epochs", "minutes", "patience"]
    before: float | None = None
    after: float | None = None
    noise: float = 0.0

    @property
    def worse(self) -> str | None:
        """A warning that the model is worse than before training, and what to do about it; None if it is not.

        A difference that may be due to chance is ignored: with few data or few epochs, either sign is to be expected.
        """
        if self.before is None or self.after is None or not self.after < self.before - self.noise:
            return None
        data = "validation" if self.best_epoch is not None else "some training"
        return (
            f"the model is worse than before training: the objective is {self.after:.4g} nats per data point on {data} "
            f"data, and was {self.before:.4g} before the first step. Training diverged, usually because the learning "
            "rate is too high: fit again with a tenth of `learning_rate`, `clip=10`, or a warm-up."
        )

    def table(self) -> Table:
        """The first, last and best epochs and some in between, in nats per example."""
        count, last = len(self.epochs), self.epochs[-1:]
        shown = {*range(0, count, max(1, -(-count // _SHOWN))), count - 1}
        kept = "" if self.best_epoch is None else f", best epoch {self.best_epoch}"
        made = f", {last[0].step:,} steps in {last[0].seconds:.1f} s" if last else ""
        title = f"History of {count:,} epochs{made}, ended by {self.stopped_by}{kept}; nats per example"
        columns = ("epoch", "step", *(f"{of} {name}" for of in ("train", "validation") for name in _CURVES))
        rows = []
        for index, epoch in enumerate(self.epochs):
            if index in shown or epoch.epoch == self.best_epoch:
                numbers = [getattr(part, name, None) for part in (epoch.train, epoch.validation) for name in _CURVES]
                rows.append(
                    (f"{epoch.epoch:,}", f"{epoch.step:,}", *("" if n is None else f"{n:.2f}" for n in numbers))
                )
        return Table(title, columns, tuple(rows), () if self.worse is None else (f"Careful: {self.worse}",))

    def records(self) -> list[dict[str, Any]]:
        """One row per epoch; columns are prefixed with the data they refer to, training or validation."""
        rows = [flat(asdict(epoch)) for epoch in self.epochs]
        return [{name: value for name, value in row.items() if not isinstance(value, tuple)} for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """All fields; see :meth:`Result.to_dict`."""
        return encoded(asdict(self))


def epoch_of(record: dict[str, Any]) -> Epoch:
    """The record of an epoch from its plain values, as stored in ``metrics.jsonl`` and checkpoints."""

    def metrics(values: dict[str, Any] | None) -> Metrics | None:
        return None if values is None else Metrics(**{**values, "rates": tuple(values["rates"])})

    return Epoch(**{**record, "train": metrics(record["train"]), "validation": metrics(record["validation"])})
