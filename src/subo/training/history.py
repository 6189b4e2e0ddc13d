"""What training did: a record an epoch."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from subo.evaluation.results import Result, Table, flat
from subo.files.nonfinite import encoded
from subo.training.metrics import Metrics
from subo.training.updates import UpdatesName

__all__ = ["Epoch", "History", "WorseWarning", "epoch_of"]

_SHOWN = 10  # epochs, about
_CURVES = ("bound", "rate", "distortion")


class WorseWarning(UserWarning):
    """A model is worse after training than before."""


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


@dataclass(frozen=True, repr=False)
class History(Result):
    """What training did.

    Attributes:
        epochs: One record an epoch.
        best_epoch: The epoch of the best validation objective (the bound, unless beta or free bits shape it), whose
            weights the model has; None without validation.
        stopped_by: What ended it.
        before: What training maximizes, in nats per data point, before the first step: on the validation data, or on
            the first 1,000 of the training data where there are none. None where it was not measured, minus infinity
            where it was not finite. A beta or free bits shape it.
        after: The same of the weights that the model has now.
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
        """That the model is worse than before training, and what to do about it; None where it is not.

        A difference that may be chance says nothing: of few data, of two epochs, either sign is to be expected.
        """
        if self.before is None or self.after is None or not self.after < self.before - self.noise:
            return None
        data = "validation" if self.best_epoch is not None else "some training"
        return (
            f"the model is worse than before training: what training maximizes is {self.after:.4g} nats per data point "
            f"on {data} data, and it was {self.before:.4g} before the first step. Training diverged, usually since "
            "the learning rate is too high: fit again with a tenth of `learning_rate`, `clip=10`, or a warm-up."
        )

    def table(self) -> Table:
        """The first and last epochs, the best, and some between, in nats per example."""
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
        """A row for each epoch; what is of the training or the validation data says so in front."""
        rows = [flat(asdict(epoch)) for epoch in self.epochs]
        return [{name: value for name, value in row.items() if not isinstance(value, tuple)} for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """All fields; see :meth:`Result.to_dict`."""
        return encoded(asdict(self))


def epoch_of(record: dict[str, Any]) -> Epoch:
    """The record of an epoch from its plain values, as ``metrics.jsonl`` and checkpoints hold them."""

    def metrics(values: dict[str, Any] | None) -> Metrics | None:
        return None if values is None else Metrics(**{**values, "rates": tuple(values["rates"])})

    return Epoch(**{**record, "train": metrics(record["train"]), "validation": metrics(record["validation"])})
