"""Which ids are taken, while the records of a data set are read: by a clip, or by the chunks that it may be cut into."""

from __future__ import annotations

import re

from peav.data.manifests.fields import RecordError
from peav.data.manifests.identities import bytes_group

#: What the chunks of a recording are called: see `peav.data.packing.chunking`.
_CHUNK = re.compile(r"(.+)#\d{4,}", re.DOTALL)


class TakenIds:
    """The ids of a data set; what stays in memory is about 100 bytes an id."""

    def __init__(self) -> None:
        self._lines: dict[int, int] = {}
        self._cut: set[int] = set()

    def take(self, clip_id: str, line: int = 0) -> None:
        """Takes an id.

        Args:
            clip_id: the id.
            line: of its record, from 1, for the message of a later one; 0 where it has none.

        Raises:
            RecordError: if another clip has it, a chunk of another clip would be called so, or the other way round; or no file can hold
                it.

        >>> taken = TakenIds()
        >>> taken.take("talk", 1)
        >>> taken.take("talk#0000", 2)
        Traceback (most recent call last):
        peav.data.manifests.fields.RecordError: the id 'talk#0000' is what a chunk of the clip 'talk' would be called: rename one of them
        """
        key = _key(clip_id)
        if key in self._lines:
            holder = f"line {self._lines[key]} has it already" if self._lines[key] else "an earlier clip has it"
            raise RecordError(f"duplicate id {clip_id!r}: {holder}; ids must be unique")
        if key in self._cut:
            raise RecordError(
                f"the chunks of {clip_id!r} would be called '{clip_id}#0000' and so on, as an earlier clip is: rename one of them"
            )
        chunk = _CHUNK.fullmatch(clip_id)
        if chunk is not None:
            whole = _key(chunk[1])
            if whole in self._lines:
                raise RecordError(
                    f"the id {clip_id!r} is what a chunk of the clip {chunk[1]!r} would be called: rename one of them"
                )
            self._cut.add(whole)
        self._lines[key] = line


def _key(clip_id: str) -> int:
    try:
        return bytes_group(clip_id.encode())
    except UnicodeEncodeError:
        raise RecordError(f"the id holds what is no character: {clip_id!r}") from None
