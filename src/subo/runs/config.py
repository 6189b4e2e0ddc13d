"""What a run is: the one record of its recipe, data, training and device, kept as ``config.json``."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch.optim import Optimizer

from subo.data.dataset import Data
from subo.data.meaning import Meaning
from subo.data.size_factors import SizeFactor
from subo.data.tables.schema import Schema
from subo.errors import InputError
from subo.files.records import CONFIG, SECTIONS, check_record
from subo.recipes import RECIPES
from subo.recipes.condition import columns_of
from subo.recipes.recipe import defaults_of, settled
from subo.runs.older import completed, meaning_of

__all__ = ["FORMAT", "CompileName", "DataConfig", "DeviceConfig", "RunConfig", "TrainingConfig", "UpdatesName"]

UpdatesName = Literal["joint", "alternating", "aggressive"]
CompileName = Literal["none", "auto", "torch", "graph"]

FORMAT = 1
"""Increases when an earlier config would be misread; 0 is version 0.1, whose configs have no format number."""

_REMEDY = "It is not the config of a subo run, or it was damaged: restore it from a copy, or fit again."


@dataclass(frozen=True)
class DataConfig:
    """The data of a run and how they were prepared.

    Attributes:
        source: A named data set or an absolute path; for data passed in Python, their name.
        data_dir: Folder in which named data sets were looked for.
        name: What the data are called in messages.
        division: How the data were split; None for older runs, which did not record it.
        event_shape: Shape of one example; for sequences, of one step.
        sizes: Number of examples in ``train``, ``validation`` and ``test``.
        steps: Number of time steps in each, for sequences; otherwise None.
        kind: What the values are, as the model sees them.
        levels: The stored value that means 1.0.
        on_disk: Whether the rows stayed in their files.
        constant: Number of elements with the same value in all training data; None for older runs.
        binarize: The binarization policy.
        binarization: The binarization policy in words.
        dequantize: Whether uniform noise is added to integers.
        noise: The noise in words.
        seed: Seed for split, bits and noise.
        fingerprint: Fingerprint of all values.
        meaning: What the values mean; all later data are read accordingly.
    """

    source: str
    data_dir: str | None
    name: str
    division: str | None
    event_shape: tuple[int, ...]
    sizes: Mapping[str, int]
    steps: Mapping[str, int] | None
    kind: str
    levels: int
    on_disk: bool
    constant: int | None
    binarize: Literal["none", "static", "dynamic"]
    binarization: str
    dequantize: bool
    noise: str
    seed: int
    fingerprint: str
    meaning: Meaning

    @classmethod
    def of(cls, data: Data, source: str, *, data_dir: Path | None = None) -> "DataConfig":
        """The record of data that came from a source."""
        return cls(source=source, data_dir=None if data_dir is None else str(data_dir.resolve()), **data.describe())


@dataclass(frozen=True, eq=False)
class TrainingConfig:
    """Training settings, as :func:`subo.fit` documents them."""

    epochs: int | None
    minutes: float | None
    batch_size: int
    optimizer: str | Optimizer
    learning_rate: float
    rows_learning_rate: float
    warmup_epochs: float
    decay: Literal["constant", "cosine"]
    kl_warmup_epochs: float
    elbo_epochs: float
    clip: float | None
    updates: UpdatesName
    posterior_steps: int
    compile: CompileName
    window: int | None
    patience: int | None
    seed: int
    checkpoint_minutes: float
    keep_weights: bool | None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "TrainingConfig":
        """Picks the settings out of named arguments."""
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    @property
    def limit(self) -> int | None:
        """Maximum number of epochs; None if the clock decides."""
        return self.epochs if self.epochs or self.minutes else 100

    def out_of_time(self, seconds: float) -> bool:
        """Whether training has used up its time."""
        return self.minutes is not None and seconds >= 60 * self.minutes

    def share_done(self, step: int, seconds: float, *, steps_per_epoch: int) -> float:
        """The fraction of training that is done, by steps or by the clock."""
        by_steps = step / (self.limit * steps_per_epoch) if self.limit else 0.0
        return max(by_steps, seconds / (60 * self.minutes) if self.minutes else 0.0)


@dataclass(frozen=True)
class DeviceConfig:
    """The device a run is trained on, as :func:`subo.runtime.devices.make_fabric` documents it.

    A device of ``auto`` is kept as such: a run may resume on another machine, with the device found there.
    """

    device: str = "auto"
    precision: str = "32-true"
    processes: int = 1
    strategy: str = "auto"
    threads: int | None = None


R = TypeVar("R", Meaning, SizeFactor, DataConfig, TrainingConfig, DeviceConfig)


@dataclass(frozen=True)
class RunConfig:
    """What a run is; everything else is in its files.

    Attributes:
        recipe: The recipe's name; None for a model made in Python, which no file can rebuild.
        options: All options of the recipe, with ``auto`` resolved. The recipe's signature is their schema.
        data: The data it was fitted to.
        training: Training settings.
        device: The device it was trained on.
        objective: Description of the model and how it was trained, if there is no recipe.
        subo: The version of subo that started the run.
    """

    recipe: str | None
    options: Mapping[str, Any]
    data: DataConfig
    training: TrainingConfig
    device: DeviceConfig
    objective: Mapping[str, Any] = field(default_factory=dict)
    subo: str = field(default_factory=lambda: version("subo"))

    @property
    def likelihood(self) -> str:
        """The likelihood's name."""
        return self.options["likelihood"]

    @property
    def is_local(self) -> bool:
        """Whether there is no encoder, so that q is fitted to every example that is measured."""
        return self.options.get("inference") == "local"

    @property
    def given(self) -> str:
        """What log p(x) is given, in words: the label, or columns of a table, and the size; empty without any."""
        condition = self.options.get("condition", "none")
        c = ["the label"] if condition == "labels" else [*columns_of(condition)]
        return ", ".join([*c, *[self.size] * self.is_sized])

    @property
    def is_sized(self) -> bool:
        """Whether means of counts are multiplied by the size of their row."""
        return self.options.get("size_factor", "none") != "none"

    @property
    def size(self) -> str:
        """What the size s of log p(x|s) is, in words."""
        source = self.options.get("size_factor", "none")
        return "the row's total s" if source == "observed" else f"the size s ({source})"

    @property
    def is_conditional(self) -> bool:
        """Whether log p(x) is given something: the class, columns, or the size of a row."""
        return bool(self.given)

    @property
    def models_missing(self) -> bool:
        """Whether log p(x) is really log p(x, mask), because the model describes which cells are missing."""
        return self.options.get("missing_model", "none") != "none"

    @property
    def log_px(self) -> str:
        """The name of log p(x): log p(x|c) given c, log p(x|s) given a size, log p(x, mask) with a mask described."""
        given = ["c"] * (self.options.get("condition", "none") != "none") + ["s"] * self.is_sized
        return f"log p(x{', mask' * self.models_missing}{'|' * bool(given)}{','.join(given)})"

    @property
    def settings(self) -> dict[str, Any]:
        """Recipe options and training settings by name."""
        return {**self.options, **vars(self.training)}

    def as_json(self) -> dict[str, Any]:
        """The config in JSON types, as in ``config.json``."""
        made = {} if self.recipe is not None else {"objective": self.objective}
        sections = {name: getattr(self, name) for name in SECTIONS}
        return _plain({"format": FORMAT, "subo": self.subo, "recipe": self.recipe, **made, **sections})

    @classmethod
    def from_json(cls, stored: Any, *, where: str) -> "RunConfig":
        """Reads what :meth:`as_json` returned, in this version or an earlier one.

        Args:
            stored: Contents of the file.
            where: Name of the file, for error messages.

        Raises:
            InputError: The file is not the config of a run, or contains something that this version does not know.
        """
        check_record(stored, dict.fromkeys(SECTIONS, "a group of settings"), where=where, remedy=_REMEDY)
        if stored.get("format", 0) not in range(FORMAT + 1):
            raise InputError(
                f"{where} has format {stored['format']}, and this version of subo ({version('subo')}) reads formats up "
                f"to {FORMAT}: it was written by version {stored.get('subo')}. Use that version, or a later one."
            )
        filled = completed(stored)
        check_record(filled, CONFIG, where=where, remedy=_REMEDY)
        _check_known(filled, {"format", "recipe", "objective", "subo", "replacing", *SECTIONS}, where)
        data = dict(filled["data"])
        meaning = data["meaning"] if "meaning" in data else meaning_of(data, filled["options"])
        data.pop("feature_names", None)  # in configs of before, and part of the meaning
        data["meaning"] = _meaning(meaning, f"{where}: data.meaning")
        return cls(
            recipe=filled["recipe"],
            options=_options(filled["recipe"], filled["options"], where),
            data=_record(DataConfig, data, f"{where}: data"),
            training=_record(TrainingConfig, filled["training"], f"{where}: training"),
            device=_record(DeviceConfig, filled["device"], f"{where}: device"),
            objective=filled.get("objective", {}),
            subo=filled.get("subo", "an unknown version"),
        )


def _options(recipe: str | None, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A recipe's options, settled; as they are where no recipe of this version has them."""
    if recipe not in RECIPES:
        return _tuples(stored)
    _check_known(stored, set(defaults_of(RECIPES[recipe])), f"{where}: options")
    try:
        return settled(RECIPES[recipe], _tuples(stored))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _meaning(stored: Any, where: str) -> Meaning:
    """What the data mean, with the columns of a table."""
    meaning = _record(Meaning, stored, where)
    named = {"table": meaning.table, "beside": meaning.beside}
    schemas = {name: value and Schema.from_json(value, where=where) for name, value in named.items()}
    sizes = None if meaning.sizes is None else _record(SizeFactor, meaning.sizes, f"{where}.sizes")
    return replace(meaning, **schemas, sizes=sizes)


def _record(kind: type[R], stored: Any, where: str) -> R:
    """A record of the names in a section, which are all that it needs and no others."""
    check_record(stored, {}, where=where, remedy=_REMEDY)
    known = {field.name: field for field in fields(kind)}
    _check_known(stored, set(known), where)
    needed = [name for name, field in known.items() if field.default is field.default_factory is MISSING]
    if missing := [name for name in needed if name not in stored]:
        raise InputError(f"{where} has no {missing[0]}. {_REMEDY}")
    return kind(**_tuples(stored))


def _check_known(stored: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuses unknown settings: a version cannot honor a setting that it does not know."""
    if others := sorted(set(stored) - known):
        raise InputError(
            f"{where} has {', '.join(others)}, which this version of subo ({version('subo')}) does not know: the run "
            "was made by another version, or the file was changed. Use that version, or restore the file from a copy."
        )


def _plain(value: Any) -> Any:
    """A setting in JSON types."""
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, Optimizer):
        return type(value).__name__
    return value.item() if hasattr(value, "item") else value  # a NumPy number


def _tuples(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as in Python: tuples where JSON only has lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
