"""Objectives: what makes embeddings that belong together alike. Each is a plugin; see docs/objective_plugin.md."""

from peav.objectives.base import Objective
from peav.objectives.frame import FrameAlignment
from peav.objectives.pairs import CaptionPair, PairObjective, SegmentPair

__all__ = ["CaptionPair", "FrameAlignment", "Objective", "PairObjective", "SegmentPair"]
