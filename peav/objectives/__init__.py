"""Objectives: what makes embeddings that belong together alike. Each is a plugin; see docs/objective_plugin.md."""

from peav.objectives.base import Objective, ScoredObjective
from peav.objectives.best_rq import BestRQ
from peav.objectives.frame import FrameAlignment
from peav.objectives.infonce import InfoNCE
from peav.objectives.pairs import CaptionPair, PairObjective, SegmentPair
from peav.objectives.teacher import FusionTeacher

__all__ = [
    "BestRQ",
    "CaptionPair",
    "FrameAlignment",
    "FusionTeacher",
    "InfoNCE",
    "Objective",
    "PairObjective",
    "ScoredObjective",
    "SegmentPair",
]
