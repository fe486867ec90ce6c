"""Evaluation: retrieval in every direction, classes, probes, frame-level detection, and a report that opens anywhere.

Nothing here imports matplotlib, except `peav.evaluation.report` and its plots.
"""

from peav.evaluation.directions import Evaluation, evaluate_table
from peav.evaluation.models import EvaluatedModel, PeavModel
from peav.evaluation.run import evaluate
from peav.evaluation.table import EmbeddingTable

__all__ = ["EmbeddingTable", "EvaluatedModel", "Evaluation", "PeavModel", "evaluate", "evaluate_table"]
