"""Reports on one fitted model: what is measured, said and drawn."""

from subo.evaluation.numbers import Number
from subo.report.depth import Depth
from subo.report.findings import Findings
from subo.report.full import evaluate_fully
from subo.report.sentences import sentences

__all__ = ["Depth", "Findings", "Number", "evaluate_fully", "sentences"]
