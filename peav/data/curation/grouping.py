"""Which clips come from one source: those of one recording, and those with the same bytes, directly or by way of others."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import ABSENT, bytes_group


def source_keys(clip: Clip, store: str) -> list[int]:
    """Returns the identities of what a clip was made from: its source files, its packed row, its sound and its picture.

    Args:
        clip: of a manifest.
        store: address of its shards; the paths of files are those of one preparation, so equal ones elsewhere are other files.
    """
    root = store.rstrip("/").rpartition("/")[0]
    files = {*clip.files.values(), *([str(clip.recording.get("id"))] if clip.recording else [])}
    names = [f"file\0{root}\0{path}" for path in sorted(files)] + [f"row\0{store}\0{clip.row}"]
    for kind, group in (("audio", clip.audio_group), ("video", clip.video_group)):
        if group != ABSENT:
            names.append(f"{kind}\0{group}")
    return [bytes_group(name.encode()) for name in names]


class SourceGroups:
    """Collects what clips were made from, and tells which belong together; 16 bytes an identity."""

    def __init__(self) -> None:
        self._labels, self._clips, self._keys = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, keys: list[int], label: int) -> None:
        """Adds a clip by the identities of what it was made from, at least one, and of its id.

        The label of a group is the least of its clips' ids: it does not depend on where the data lie, as some of the keys do.
        """
        self._clips.extend([len(self._labels)] * len(keys))
        self._keys.extend(keys)
        self._labels.append(label)

    def labels(self) -> NDArray[np.int64]:
        """Returns (N,) an identity of the group of each clip, which does not depend on the order of the clips."""
        return connected(*(np.array(values, dtype=np.int64) for values in (self._labels, self._clips, self._keys)))


def connected(labels: NDArray[np.int64], clips: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the least label among all clips that are connected by keys.

    Args:
        labels: (N,) of each clip.
        clips: (M,) position of a clip, and
        keys: (M,) something that it has, possibly together with others.

    Returns:
        (N,) the same number for two clips if a chain of shared keys connects them.

    >>> connected(np.array([5, 3, 9, 4]), np.array([0, 1, 1, 2, 3]), np.array([70, 70, 80, 80, 90])).tolist()
    [3, 3, 3, 4]
    """
    if not len(clips):
        return labels.copy()
    order = np.argsort(keys, kind="stable")
    clips, keys = clips[order], keys[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(keys) != 0]))
    sizes = np.diff(np.append(starts, len(keys)))
    labels = labels.copy()
    while True:  # as often as the longest chain has links
        before = labels.copy()
        least = np.minimum.reduceat(labels[clips], starts)
        np.minimum.at(labels, clips, np.repeat(least, sizes))
        if (labels == before).all():
            return labels
