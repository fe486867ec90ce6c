"""The columns of a manifest that a plan needs, and where its lines begin: 45 bytes a clip in place of a kilobyte of objects.

They are read once and kept beside the manifest, in a folder that is made anew whenever the manifest has changed. So a training run
opens ten million clips by mapping a few files into memory, and reads a line only when its clip is needed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.atomic import replacing, sweep
from peav.data.manifests.clip import Clip, clip_from_line
from peav.data.manifests.fields import RecordError
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.texts import CLASS
from peav.opening import lines_of, read_json

_log = logging.getLogger(__name__)

_FORMAT = 2

#: Columns and their types.
COLUMNS = {
    "line": "<u8",
    "id": "<i8",
    "row": "<i8",
    "duration": "<f8",
    "domain": "<u4",
    "store": "<u2",
    "flags": "u1",
}

#: Bits of the column `flags`.
HAS_AUDIO, HAS_VIDEO, ANNOTATED, REAL_CAPTIONS, SYNTHETIC_CAPTIONS, HAS_TRANSCRIPT, AUDIO_CAPTIONS, IS_STILL = (
    1 << bit for bit in range(8)
)

#: Lines between two messages about how far the reading is.
_REPORT_LINES = 1_000_000


class ManifestError(ValueError):
    """A manifest that cannot be read. The message names the file and the line."""


@dataclass(frozen=True)
class ManifestIndex:
    """What a plan knows of N clips.

    Attributes:
        line: (N,) byte at which each line begins.
        id: (N,) identity of each id.
        row: (N,) row in its store.
        duration: (N,) seconds.
        domain: (N,) position in `domains`.
        store: (N,) position in `stores`.
        flags: (N,) bits, such as `HAS_AUDIO`.
        domains: names.
        stores: as the manifest has them.
    """

    line: NDArray[np.uint64]
    id: NDArray[np.int64]
    row: NDArray[np.int64]
    duration: NDArray[np.float64]
    domain: NDArray[np.uint32]
    store: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    domains: tuple[str, ...]
    stores: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.line)

    def has(self, flag: int) -> NDArray[np.bool_]:
        """Returns (N,) which clips have a bit of `flags`."""
        return (self.flags & flag) > 0

    @property
    def digest(self) -> str:
        """Which clips these are, in which order: equal before and after captions were rewritten."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("id", "row", "duration", "domain", "store"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        digest.update(json.dumps([self.domains, self.stores]).encode())
        return digest.hexdigest()


def load_index(path: Path) -> ManifestIndex:
    """Returns the columns of a manifest: from the folder beside it if that is as new, else from its lines.

    Raises:
        ManifestError: if a line cannot be read, or two clips have one id.
    """
    stat = path.stat()
    stamp = {"format": _FORMAT, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    folder = path.with_suffix(".index")
    found = _load(folder, stamp)
    if found is None:
        found = read_index(path)
        try:
            _save(folder, stamp, found)
        except OSError as error:
            _log.warning("the index of %s cannot be kept beside it (%s): it is made anew at every start", path, error)
        else:  # mapped files are given back to whoever wants the memory
            found = _load(folder, stamp) or found
    return found


def read_index(path: Path) -> ManifestIndex:
    """Reads the columns of a manifest from its lines.

    Raises:
        ManifestError: if a line cannot be read, or two clips have one id.
    """
    builder = IndexBuilder()
    with path.open("rb") as stream:
        begin = 0
        for number, line in enumerate(lines_of(stream), start=1):
            if line.strip():
                try:
                    builder.add(clip_from_line(line), begin)
                except RecordError as error:
                    raise ManifestError(f"{path}, line {number}: {error}") from None
            begin += len(line)
            if number % _REPORT_LINES == 0:
                _log.info("reading %s: %d million clips", path, number // _REPORT_LINES)
    try:
        return builder.build()
    except RecordError as error:
        raise ManifestError(f"{path}: {error}") from None


class IndexBuilder:
    """Collects the columns of clips as they come."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        self._pending: list[tuple[int, int, int, float, int, int, int]] = []
        self._domains: dict[str, int] = {}
        self._stores: dict[str, int] = {}

    def add(self, clip: Clip, line: int) -> None:
        """Adds a clip whose line begins at byte `line`."""
        flags = HAS_AUDIO * clip.has_audio | HAS_VIDEO * clip.has_video | ANNOTATED * (clip.events is not None)
        flags |= HAS_TRANSCRIPT * (clip.transcript is not None) | AUDIO_CAPTIONS * bool(clip.captions.get("audio"))
        flags |= IS_STILL * clip.is_still
        for kind, items in clip.captions.items():
            for caption in items if kind != CLASS else ():  # a class is an answer to evaluate by, nobody's caption
                flags |= REAL_CAPTIONS if caption.origin == "real" else SYNTHETIC_CAPTIONS
        domain = self._domains.setdefault(clip.domain, len(self._domains))
        store = self._stores.setdefault(clip.store, len(self._stores))
        group = bytes_group(clip.id.encode())
        self._pending.append((line, group, clip.row, clip.duration, domain, store, flags))
        if len(self._pending) >= 1 << 16:
            self._flush()

    def build(self) -> ManifestIndex:
        """Returns the columns.

        Raises:
            RecordError: if two clips have one id, or there are more than 65,536 stores.
        """
        self._flush()
        if len(self._stores) > 1 << 16:
            raise RecordError(f"the clips name {len(self._stores)} stores, at most 65,536 are possible")
        # A column at a time, and what it was made of is let go: all columns twice would be 90 bytes a clip.
        columns = {name: np.concatenate([np.zeros(0, kind), *self._blocks.pop(name)]) for name, kind in COLUMNS.items()}
        ids = np.sort(columns["id"])
        repeated = ids[1:][ids[1:] == ids[:-1]]
        if len(repeated):
            first, second = np.flatnonzero(columns["id"] == repeated[0])[:2].tolist()
            raise RecordError(f"clips {first + 1} and {second + 1} have the same id; ids must be unique")
        return ManifestIndex(**columns, domains=tuple(self._domains), stores=tuple(self._stores))

    def _flush(self) -> None:
        if self._pending:
            table = np.array(self._pending, dtype=list(COLUMNS.items()))
            for name, blocks in self._blocks.items():
                blocks.append(np.ascontiguousarray(table[name]))
            self._pending = []


def _load(folder: Path, stamp: dict[str, int]) -> ManifestIndex | None:
    try:
        head = read_json(folder / "index.json")
        if head["stamp"] != stamp:
            return None
        columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in COLUMNS}
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    if any(len(column) != head["clips"] for column in columns.values()):
        return None
    return ManifestIndex(**columns, domains=tuple(head["domains"]), stores=tuple(head["stores"]))


def _save(folder: Path, stamp: dict[str, int], index: ManifestIndex) -> None:
    folder.mkdir(exist_ok=True)
    sweep(folder)
    (folder / "index.json").unlink(missing_ok=True)  # written last: its presence says that the rest is whole
    for name in COLUMNS:
        with replacing(folder / f"{name}.npy", shared=True) as partial, partial.open("wb") as stream:
            np.save(stream, getattr(index, name))
    head = {"stamp": stamp, "clips": len(index), "domains": index.domains, "stores": index.stores}
    with replacing(folder / "index.json", shared=True) as partial:
        partial.write_text(json.dumps(head))
