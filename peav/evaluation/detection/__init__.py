"""Frame-level detection: what is heard when, against what is annotated. Definitions and sources: docs/frame_level.md.

Pure functions over clips (`ScoredClip`); `peav.evaluation.detection.metrics` has them as torchmetrics classes.
"""

from peav.evaluation.detection.bootstrap import Interval, bootstrap, paired_bootstrap
from peav.evaluation.detection.calibration import (
    Calibration,
    calibration,
    calibration_sums,
    calibration_sums_by_label,
)
from peav.evaluation.detection.clips import ScoredClip, merged_events
from peav.evaluation.detection.collar import Collar
from peav.evaluation.detection.f1 import F1, best_thresholds, clip_counts, f1_of_counts, f1_score
from peav.evaluation.detection.false_alarms import FalseAlarms, absent_counts, false_alarms
from peav.evaluation.detection.frames import (
    auroc_in_blocks,
    event_labels,
    frame_auroc,
    frame_labels,
    rank_auroc,
)
from peav.evaluation.detection.intersection import Intersection
from peav.evaluation.detection.psds import PSDS, PSDS1, PSDS2, PSDCounts, PSDSettings, psds
from peav.evaluation.detection.roc import FrameROC, active_frames, auroc, frame_roc
from peav.evaluation.detection.segments import Segments

__all__ = [
    "F1",
    "PSDS",
    "PSDS1",
    "PSDS2",
    "Calibration",
    "Collar",
    "FalseAlarms",
    "FrameROC",
    "Intersection",
    "Interval",
    "PSDCounts",
    "PSDSettings",
    "ScoredClip",
    "Segments",
    "absent_counts",
    "active_frames",
    "auroc",
    "auroc_in_blocks",
    "best_thresholds",
    "bootstrap",
    "calibration",
    "calibration_sums",
    "calibration_sums_by_label",
    "clip_counts",
    "event_labels",
    "f1_of_counts",
    "f1_score",
    "false_alarms",
    "frame_auroc",
    "frame_labels",
    "frame_roc",
    "merged_events",
    "paired_bootstrap",
    "psds",
    "rank_auroc",
]
