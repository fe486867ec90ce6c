"""Duplicates among the clips of manifests: ids, rows of shards, and media that two splits have in common."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from peav.data.curation.clip_table import ClipTable
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import ABSENT
from peav.data.manifests.records import SPLITS


def duplicate_ids(table: ClipTable) -> Iterator[tuple[int, int]]:
    """Yields (position, first position) of clips whose id another clip of their split has before them."""
    split, ids = table.column("split"), table.column("id")
    order = np.lexsort((np.arange(len(ids)), ids, split))
    yield from _followers(order, (ids[order], split[order]))


def duplicate_rows(table: ClipTable) -> Iterator[tuple[int, int, str]]:
    """Yields (position, first position, why) of clips that use the row of another, and cannot both be right.

    Clips that are parts of one row are right; so is a clip that stands in two splits, which is another fault.
    """
    store, row, span = (table.column(name) for name in ("store", "row", "span"))
    order = np.lexsort((np.arange(len(row)), row, store))
    for position, first in _followers(order, (row[order], store[order])):
        if span[position] != span[first]:
            yield position, first, "with other media"
    packed = table.column("packed")
    whole = order[table.column("partial")[order] == 0]
    for position, first in _followers(whole, (row[whole], store[whole])):
        if packed[position] != packed[first] and span[position] == span[first]:
            yield position, first, "and neither of them is a part of the media"


class CrossSplitDuplicates:
    """Sounds and pictures that several splits have: 16 bytes a clip."""

    def __init__(self) -> None:
        self._groups = {(medium, split): array("q") for medium in ("audio", "video") for split in SPLITS}

    def add(self, clip: Clip, split: str) -> None:
        """Adds a clip of a split."""
        for medium in ("audio", "video"):
            if (group := clip.group(medium)) != ABSENT:
                self._groups[medium, split].append(group)

    def sentences(self) -> list[str]:
        """Returns a sentence for each medium and two splits that share some."""
        lines = []
        for medium, noun in (("audio", "sound"), ("video", "picture")):
            held = {split: np.array(self._groups[medium, split], np.int64) for split in SPLITS}
            for split, other in combinations(SPLITS, 2):
                if shared := int(np.isin(held[other], held[split]).sum()):
                    lines.append(f"{shared} clips of {other} have a {noun} that {split} has too")
        return lines


def _followers(
    order: NDArray[np.int64], keys: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> Iterator[tuple[int, int]]:
    """Yields (position, first position) of those whose two keys, sorted, equal the ones before."""
    same = np.zeros(len(order), bool)
    same[1:] = (np.diff(keys[0]) == 0) & (np.diff(keys[1]) == 0)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    for place in np.flatnonzero(same).tolist():
        yield int(order[place]), int(order[first[place]])
