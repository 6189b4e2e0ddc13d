"""Data: what values mean, how files become arrays, and how arrays become splits and batches."""

from subo.data.batches import Batch, batches
from subo.data.dataset import Data, split
from subo.data.loading import load_data, load_rows
from subo.data.quantization import binarized, dequantized
from subo.data.splits import Split
from subo.data.values import Kind, kind_of

__all__ = [
    "Batch",
    "Data",
    "Kind",
    "Split",
    "batches",
    "binarized",
    "dequantized",
    "kind_of",
    "load_data",
    "load_rows",
    "split",
]
