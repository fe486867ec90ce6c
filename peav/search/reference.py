"""Windows drawn from an index, kept beside it: what a query's scores look like over windows that it does not ask for."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peav.atomic import replacing
from peav.search.segment import Segment
from peav.search.store import Store

#: So many windows are drawn.
REFERENCE_WINDOWS = 10_000

_FILE = "reference.npz"


def draw_reference(segments: Sequence[Segment], names: Sequence[str], alive: np.ndarray) -> dict[str, np.ndarray]:
    """Draws windows: those with the smallest hashes of their ids, so that the same windows give the same draw.

    Args:
        segments: of the index.
        names: the embeddings.
        alive: numbers of the files whose windows may be drawn.

    Returns:
        by embedding the vectors (N, D) fp16 of the windows drawn that have it.
    """
    drawn: dict[str, np.ndarray] = {}
    for name in names:
        keys, places = [], []
        for number, segment in enumerate(segments):
            if name in segment.rows:
                rows = segment.rows[name]
                rows = rows[np.isin(segment.windows["file"][rows], alive)]
                keys.append(_hash(segment.windows["id"][rows]))
                places.append(np.stack([np.full(len(rows), number), rows], 1))
        if not keys:
            continue
        order = np.argsort(np.concatenate(keys), kind="stable")[:REFERENCE_WINDOWS]
        chosen = np.concatenate(places)[order]
        parts = [
            segments[number].take(name, np.sort(chosen[chosen[:, 0] == number, 1]))
            for number in np.unique(chosen[:, 0])
        ]
        if parts:
            drawn[name] = np.concatenate(parts).astype(np.float16)
    return drawn


def keep_reference(store: Store) -> None:
    """Draws windows, and keeps them beside the index; whoever opens it before that draws them anew."""
    state = store.catalog.state
    if _read(store.folder / _FILE, state) is not None:
        return
    drawn = draw_reference(list(store.segments.values()), store.names, np.array(store.catalog.file_ids(), np.int64))
    with replacing(store.folder / _FILE, durable=True) as partial, partial.open("wb") as stream:
        np.savez(stream, state=np.array(state), **drawn)  # type: ignore[arg-type]


def read_reference(store: Store) -> dict[str, np.ndarray]:
    """Returns the windows that were drawn; draws them where they are not those of the index as it is."""
    kept = _read(store.folder / _FILE, store.catalog.state)
    if kept is not None:
        return kept
    return draw_reference(list(store.segments.values()), store.names, np.array(store.catalog.file_ids(), np.int64))


def _read(path: Path, state: str) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as archive:
            found = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError):  # missing or damaged: it is drawn anew
        return None
    return found if str(found.pop("state", "")) == state else None


def _hash(ids: np.ndarray) -> np.ndarray:
    """Mixes 64 bits (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
