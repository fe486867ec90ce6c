"""Evaluation: retrieval in every direction, frame-level detection, and a report that opens anywhere.

Nothing here imports matplotlib, except `peav.evaluation.report` and its plots.
"""

from peav.evaluation.suites import Evaluation, evaluate_table
from peav.evaluation.table import EmbeddingTable

__all__ = ["EmbeddingTable", "Evaluation", "evaluate_table"]
