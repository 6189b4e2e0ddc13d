"""Where the files of a run are."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["PICTURES", "SPLITS", "RunPaths"]

SPLITS = ("test", "validation", "train")

_MEASURED = ("gaps", "gaps-per-datum", "calibration", "gap-over-training")
PICTURES = (
    *("training.png", "reconstructions.png", "samples.png", "kl.png", "activity.png", "layers.png", "gradients.png"),
    *("columns.png", "pairs.png", "missing.png", "oddest.png"),
    *("latent_plane.png", "latent_plane.gif", "decoder_grid.png", "decoder_grid-[0-9].png"),
    *(f"{name}{of}.png" for name in _MEASURED for of in ("", *(f"-{split}" for split in SPLITS[1:]))),
)
"""Name patterns of a run's own pictures in ``figures/``: they are removed with its weights, all others stay."""


@dataclass(frozen=True)
class RunPaths:
    """The paths of a run's files, existing or not.

    Args:
        path: The run's folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """``config.json``."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def gradients(self) -> Path:
        """``gradients.csv``."""
        return self.path / "gradients.csv"

    @property
    def checkpoint(self) -> Path:
        """``checkpoint.pt``."""
        return self.path / "checkpoint.pt"

    @property
    def model(self) -> Path:
        """``model.safetensors``."""
        return self.path / "model.safetensors"

    @property
    def evaluation(self) -> Path:
        """``evaluation.json``."""
        return self.evaluation_of("test")

    def evaluation_of(self, split: str) -> Path:
        """``evaluation.json`` for the test data, ``evaluation-SPLIT.json`` for other splits."""
        return self.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")

    def pieces(self, split: str) -> Path:
        """``evaluation-pieces/SPLIT/``: what a full evaluation has done so far."""
        return self.path / "evaluation-pieces" / split

    def per_datum(self, split: str) -> Path:
        """``evaluation.csv`` for the test data, ``evaluation-SPLIT.csv`` for other splits."""
        return self.evaluation_of(split).with_suffix(".csv")

    @property
    def snapshots(self) -> Path:
        """``snapshots/``."""
        return self.path / "snapshots"

    @property
    def figures(self) -> Path:
        """``figures/``."""
        return self.path / "figures"

    def picture(self, name: str) -> Path:
        """``figures/NAME``, for a name that matches PICTURES."""
        assert any(fnmatchcase(name, pattern) for pattern in PICTURES), f"{name} is not among PICTURES"
        return self.figures / name

    def weights_after(self, epoch: int) -> Path:
        """``snapshots/weights-EPOCH.safetensors``."""
        return self.snapshots / f"weights-{epoch:06d}.safetensors"

    def kept_epochs(self) -> list[int]:
        """Epochs whose weights were kept, in order."""
        files = self.snapshots.glob(f"weights-{'[0-9]' * 6}.safetensors")
        return sorted(int(file.stem.removeprefix("weights-")) for file in files)
