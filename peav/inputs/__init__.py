"""From what a user has to embeddings: media and texts in, one vector an item out; see `PEAV.embed`.

`embed` and `find_events` are the methods of that name of `peav.model.PEAV`; `MediaEmbedder` is what they are built of, for those who
decode elsewhere.
"""

from peav.inputs.embedding import (
    BATCH_SECONDS,
    TextKind,
    embed,
    embedding_names,
    find_events,
    media_settings,
    resolve_window,
)
from peav.inputs.items import Loaded, MediaItem, Request, item_of_file, probe_file, read_items
from peav.inputs.running import MediaEmbedder, Output, Precision, computes_in_half, embed_texts, tokenize
from peav.inputs.windows import Window, check_windows, group_by_length, plan_windows

__all__ = [
    "BATCH_SECONDS",
    "Loaded",
    "MediaEmbedder",
    "MediaItem",
    "Output",
    "Precision",
    "Request",
    "TextKind",
    "Window",
    "check_windows",
    "computes_in_half",
    "embed",
    "embed_texts",
    "embedding_names",
    "find_events",
    "group_by_length",
    "item_of_file",
    "media_settings",
    "plan_windows",
    "probe_file",
    "read_items",
    "resolve_window",
    "tokenize",
]
