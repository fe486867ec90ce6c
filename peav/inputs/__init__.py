"""From what a user has to embeddings and events: media and texts in, vectors and spans out; see `PEAV.embed` and `PEAV.detect`.

`embed`, `detect` and `detect_stream` are the methods of that name of `peav.model.PEAV`; `MediaEmbedder` and `Detector` are what they are
built of, for those who decode elsewhere.
"""

from peav.inputs.detection import (
    ClipSpans,
    Detector,
    detect,
    detect_items,
)
from peav.inputs.detection_rules import (
    DetectionRules,
    check_detects,
    check_queries,
    detection_rules,
    detection_windows,
)
from peav.inputs.detection_stream import (
    detect_stream,
)
from peav.inputs.embedding import (
    BATCH_SECONDS,
    TextKind,
    embed,
    embedding_names,
    media_kinds,
    media_settings,
    resolve_window,
)
from peav.inputs.items import Loaded, MediaItem, Request, item_of_file, items_of_arrays, probe_file, read_items
from peav.inputs.running import MediaEmbedder, Output, Precision, computes_in_half, embed_texts, tokenize
from peav.inputs.windows import Window, check_windows, group_by_length, plan_windows

__all__ = [
    "BATCH_SECONDS",
    "ClipSpans",
    "DetectionRules",
    "Detector",
    "Loaded",
    "MediaEmbedder",
    "MediaItem",
    "Output",
    "Precision",
    "Request",
    "TextKind",
    "Window",
    "check_detects",
    "check_queries",
    "check_windows",
    "computes_in_half",
    "detect",
    "detect_items",
    "detect_stream",
    "detection_rules",
    "detection_windows",
    "embed",
    "embed_texts",
    "embedding_names",
    "group_by_length",
    "item_of_file",
    "items_of_arrays",
    "media_kinds",
    "media_settings",
    "plan_windows",
    "probe_file",
    "read_items",
    "resolve_window",
    "tokenize",
]
