"""Semantic duplicates among clips: which row of a table of vectors is whose, and which clips are left out in favour of which."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from peav.data.curation.semdedup import SemDedup, semantic_duplicates
from peav.data.curation.vector_table import UnitRows, VectorsError, VectorTable
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import ABSENT, bytes_group

_log = logging.getLogger(__name__)

#: What is compared of a clip: the first of these that its row has. A clip is held against those alone of which the same is compared.
EMBEDDINGS = ("audio_video", "audio", "video")

#: What becomes of clips without a vector: an `error`, or they all `stay`.
Missing = Literal["error", "stay"]

#: Rows whose ids are looked up at once.
_ROWS_AT_ONCE = 65536


@dataclass(frozen=True)
class SemanticOptions:
    """Which vectors clips are compared by, and how.

    Attributes:
        vectors: the .npz of `peav embed` over their files, or the folder of `peav predict` over the clips.
        settings: how.
        missing: what becomes of clips without a vector.

    Raises:
        ValueError: if `missing` is neither.
    """

    vectors: str
    settings: SemDedup = field(default_factory=SemDedup)
    missing: Missing = "error"

    def __post_init__(self) -> None:
        if self.missing not in get_args(Missing):
            raise ValueError(f"missing must be {' or '.join(get_args(Missing))}, got {self.missing!r}")


@dataclass(frozen=True)
class ClipDuplicate:
    """A clip that is left out.

    Attributes:
        stays: id of the clip in whose favour it is.
        similarity: cosine similarity of the two.
    """

    stays: str
    similarity: float


class ClipDuplicates(Mapping[str, ClipDuplicate]):
    """The clips that are left out, by id: 28 bytes each.

    Args:
        positions: (K,) of these clips, in falling or rising order.
        ids: (K,) identity of the id of each.
        stays: (K,) positions of those in whose favour they are left out.
        similarity: (K,) to them.
        name_of: gives the id of the clip at a position.
    """

    def __init__(
        self,
        positions: NDArray[np.int64],
        ids: NDArray[np.int64],
        stays: NDArray[np.int64],
        similarity: NDArray[np.float32],
        name_of: Callable[[int], str],
    ) -> None:
        order = np.argsort(ids)
        self._positions, self._ids = positions[order], ids[order]
        self._stays, self._similarity, self._name_of = stays[order], similarity[order], name_of

    def __getitem__(self, name: str) -> ClipDuplicate:
        key = bytes_group(name.encode())
        place = int(np.searchsorted(self._ids, key))
        if place == len(self._ids) or self._ids[place] != key:
            raise KeyError(name)
        return ClipDuplicate(self._name_of(int(self._stays[place])), round(float(self._similarity[place]), 4))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return (self._name_of(int(position)) for position in np.sort(self._positions))


def find_clip_duplicates(
    clips: Iterable[tuple[Clip, bool]], name_of: Callable[[int], str], options: SemanticOptions, folder: Path
) -> ClipDuplicates:
    """Finds clips that are semantic duplicates of one that stays.

    Args:
        clips: all of them, each with whether it may stay or be left out.
        name_of: gives the id of the clip at a position among them.
        options: how.
        folder: in which results are kept, see :func:`peav.data.curation.semdedup.semantic_duplicates`.

    Raises:
        VectorsError: if the vectors cannot be read, or are not those of the clips.
        FileNotFoundError: if they are not there.
        ImportError: if faiss is wanted and not installed.
    """
    table, found = VectorTable(Path(options.vectors)), ClipRows()
    for clip, asked in clips:
        found.add(clip, asked)
    rows, kinds = found.match(table)
    check_clips(found, rows, name_of, options)
    by, similarity = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.float32)
    for kind, name in enumerate(EMBEDDINGS):
        own = np.flatnonzero(kinds == kind)
        if not found.asked[own].any():
            continue
        stamp = [table.stamp, name, hashlib.blake2b(rows[own].tobytes()).hexdigest()]
        left = semantic_duplicates(UnitRows(table, name, rows[own]), options.settings, folder, stamp, found.asked[own])
        out = left.by >= 0
        by[own[out]], similarity[own] = own[left.by[out]], left.similarity
    gone = np.flatnonzero(by >= 0)
    return ClipDuplicates(gone, found.ids[gone], by[gone], similarity[gone], name_of)


class ClipRows:
    """Collects clips, and finds their rows in a table: 17 bytes a clip.

    A row belongs to the clip whose id it has, or to the one whose file its path ends with, where that is the only clip of the file and
    the whole of it.
    """

    def __init__(self) -> None:
        self._ids, self._files, self._asked = array("q"), array("q"), array("b")

    def add(self, clip: Clip, asked: bool = True) -> None:
        """Takes a clip, and whether its vector is asked for."""
        self._ids.append(bytes_group(clip.id.encode()))
        path = _whole_file(clip)
        self._files.append(bytes_group(path.encode("utf-8", "surrogateescape")) if path else ABSENT)
        self._asked.append(asked)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Returns (N,) identities of the ids."""
        return np.array(self._ids, np.int64)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Returns (N,) whose vectors are asked for."""
        return np.array(self._asked, bool)

    def match(self, table: VectorTable) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Finds the row of each clip, and which of `EMBEDDINGS` it has.

        Returns:
            (N,) rows and (N,) places in `EMBEDDINGS`; -1 for none.

        Raises:
            VectorsError: if the table has none of these embeddings, two rows could be the file of one clip, or two rows of one clip differ.
        """
        names = [name for name in EMBEDDINGS if name in table.names]
        if not names:
            raise VectorsError(
                f"{table.path} holds the embeddings {', '.join(table.names)}; clips are compared by {', '.join(EMBEDDINGS)}"
            )
        kinds = np.full(len(table), -1, np.int8)
        for name in reversed(names):
            kinds[table.present(name)] = EMBEDDINGS.index(name)
        rows = np.full(len(self._ids), -1, np.int64)
        by_id, by_file = _Places(self.ids, unique=False), _Places(np.array(self._files, np.int64), unique=True)
        begin, names_of_rows = 0, table.ids()
        while some := list(islice(names_of_rows, _ROWS_AT_ONCE)):
            own = [(begin + number, name) for number, name in enumerate(some) if kinds[begin + number] >= 0]
            begin += len(some)
            left = []
            for (row, name), place in zip(own, by_id.of(name for _, name in own), strict=True):
                if place < 0:
                    left.append((row, name))
                elif not _take(rows, place, row):
                    _check_equal(table, kinds, int(rows[place]), row)
            self._match_files(table, rows, left, by_file)
        return rows, np.where(rows >= 0, kinds[rows], -1).astype(np.int8)

    @staticmethod
    def _match_files(
        table: VectorTable, rows: NDArray[np.int64], left: list[tuple[int, str]], by_file: _Places
    ) -> None:
        """Finds the clips of rows by the ends of their paths, the longest first."""
        ends = [(row, name) for row, name in left]
        while ends:
            places = by_file.of(end for _, end in ends)
            for (row, end), place in zip(ends, places, strict=True):
                if place >= 0 and not _take(rows, place, row):
                    raise VectorsError(
                        f"{table.id_of(int(rows[place]))!r} and {table.id_of(row)!r} of {table.path} could both be the file {end!r} of a "
                        "clip: embed the folder that was prepared alone, or take the vectors of `peav predict`, which go by the clips' ids"
                    )
            ends = [
                (row, end.partition("/")[2])
                for (row, end), place in zip(ends, places, strict=True)
                if place < 0 and "/" in end
            ]


class _Places:
    """Finds identities in a list: (N,), of which ABSENT is none, and with `unique` one that occurs twice neither."""

    def __init__(self, values: NDArray[np.int64], unique: bool) -> None:
        found, first, counts = np.unique(values, return_index=True, return_counts=True)
        held = (found != ABSENT) & ((counts == 1) | (not unique))
        self._values, self._first = found[held], first[held]

    def of(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Returns the places of the identities of texts, -1 for those that are not there."""
        keys = np.fromiter((bytes_group(text.encode("utf-8", "surrogateescape")) for text in texts), np.int64)
        if not len(self._values):
            return np.full(len(keys), -1, np.int64)
        near = np.minimum(np.searchsorted(self._values, keys), len(self._values) - 1)
        return np.where(self._values[near] == keys, self._first[near], -1)


def _take(rows: NDArray[np.int64], place: int, row: int) -> bool:
    """Gives a clip its row, unless it has one or there is no clip; returns whether it did."""
    if place < 0 or rows[place] >= 0:
        return False
    rows[place] = row
    return True


def _check_equal(table: VectorTable, kinds: NDArray[np.int8], first: int, again: int) -> None:
    """Sees that two rows of one clip say the same of it, as after a table was written twice.

    Raises:
        VectorsError: if they do not.
    """
    rows, name = np.array([first, again]), EMBEDDINGS[kinds[first]]
    one, other = table.take(name, rows)
    if kinds[first] != kinds[again] or not np.array_equal(one, other, equal_nan=True):
        raise VectorsError(
            f"rows {first} and {again} of {table.path} both belong to the clip {table.id_of(again)!r}, and their vectors differ: leave out "
            "the one that is not its own"
        )


def _whole_file(clip: Clip) -> str:
    """Returns the file that a clip is the whole of, as its record names it; "" where it is a part of one, or of several."""
    files = set(clip.files.values())
    if len(files) != 1 or clip.start > 0 or clip.is_part:
        return ""
    length = clip.recording.get("duration") if clip.recording else None
    if isinstance(length, int | float) and clip.duration < length - 0.1:
        return ""
    return files.pop().removeprefix("./")


def check_clips(
    found: ClipRows, rows: NDArray[np.int64], name_of: Callable[[int], str], options: SemanticOptions
) -> None:
    """Sees that clips can be told by their ids, and that those that are asked for have vectors.

    Raises:
        VectorsError: if two have one id; if none has a vector, or some have not and they may not simply stay.
    """
    _, first = np.unique(found.ids, return_index=True)
    if len(first) < len(rows):
        again = np.setdiff1d(np.arange(len(rows)), first)
        raise VectorsError(
            f"{len(again):,} clips have the id of another one, such as {name_of(int(again[0]))!r}, and vectors go by ids: rename them, or "
            "take one split alone"
        )
    asked = np.flatnonzero(found.asked)
    without = asked[rows[asked] < 0]
    if not len(without):
        return
    some = ", ".join(repr(name_of(int(place))) for place in without[:3])
    if len(without) == len(asked):
        raise VectorsError(
            f"{options.vectors} holds a vector of none of the {len(asked):,} clips, such as {some}: no row is called by the id or the file "
            "of one. Is it of other data?"
        )
    if options.missing == "error":
        raise VectorsError(
            f"{options.vectors} holds no vector of {len(without):,} of {len(asked):,} clips, such as {some}. Embed them too, or let clips "
            "without a vector stay (missing: stay). A clip that is a part of a file, or of two files, has one by `peav predict` alone"
        )
    _log.warning("%s holds no vector of %d of %d clips: they all stay", options.vectors, len(without), len(asked))
