"""What is measured, said and drawn of one fitted model."""

from subo.report.findings import Depth, Findings
from subo.report.full import evaluate_fully
from subo.report.sentences import sentences
from subo.report.table import Number, numbers

__all__ = ["Depth", "Findings", "Number", "evaluate_fully", "numbers", "sentences"]
