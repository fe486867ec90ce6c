"""Semantic duplicates among the clips of a job: told by vectors that `peav embed` or `peav predict` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from peav.data.curation.clip_duplicates import (
    ClipDuplicates,
    ClipRows,
    SemanticOptions,
    check_clips,
    find_clip_duplicates,
)
from peav.data.curation.semdedup import import_faiss
from peav.data.curation.vector_table import VectorTable
from peav.data.manifests.clip import Clip
from peav.engine.job import Job
from peav.engine.survey import LeftOut, texts_of_column

#: Type and text of each caption of a clip.
TypedTexts = Sequence[tuple[str, str]]


class WithSemantic(Mapping[str, LeftOut]):
    """Clips that get no caption, by id: semantic duplicates, and those of which that was known before.

    Args:
        before: which were known.
        found: semantic duplicates; none of them is among those.
    """

    def __init__(self, before: Mapping[str, LeftOut], found: ClipDuplicates) -> None:
        self._before, self._found = before, found

    def __getitem__(self, name: str) -> LeftOut:
        if name in self._before:
            return self._before[name]
        found = self._found[name]
        why = f"the vector of the clip is nearly that of {found.stays!r} (similarity {found.similarity})"
        return LeftOut("semantic duplicate", why, found.stays, found.similarity)

    def __len__(self) -> int:
        return len(self._before) + len(self._found)

    def __iter__(self) -> Iterator[str]:
        return chain(self._before, self._found)


def check_semantic(job: Job, options: SemanticOptions) -> None:
    """Sees before a job begins that its clips have vectors.

    Raises:
        VectorsError: if the vectors cannot be read, or are not those of the clips.
        FileNotFoundError: if they are not there.
        ImportError: if there are so many that faiss is wanted, and it is not installed.
    """
    table, found = VectorTable(Path(options.vectors)), ClipRows()
    for part in job.parts:
        for clip in job.all_clips(part):
            found.add(clip, job.condition(clip))
    rows, _ = found.match(table)
    check_clips(found, rows, _Names(job).name, options)
    if options.settings.clusters_of(len(rows)) > 1:
        import_faiss()


def with_semantic(
    job: Job, options: SemanticOptions, before: Mapping[str, LeftOut], gets_caption: Callable[[Clip, TypedTexts], bool]
) -> WithSemantic:
    """Adds the clips of a job that are semantic duplicates of one that stays. Only those count for which a caption is there to be written.

    Args:
        job: all of whose parts are done.
        options: which vectors, and how.
        before: clips that are known to get no caption.
        gets_caption: says of a clip, and the types and texts that were made for it, whether it gets one of them; asked for the clips in
            their order. Others are neither left out nor stay in favour of one.

    Raises:
        VectorsError: if the vectors cannot be read, or are not those of the clips.
    """
    found = find_clip_duplicates(_candidates(job, gets_caption), _Names(job).name, options, job.work / "semantic")
    return WithSemantic(before, found)


def _candidates(job: Job, gets_caption: Callable[[Clip, TypedTexts], bool]) -> Iterator[tuple[Clip, bool]]:
    for part in job.parts:
        for clip, columns, _ in job.results(part):
            texts = list(texts_of_column(columns.get("texts"))) if columns is not None else []
            yield clip, bool(texts) and gets_caption(clip, texts)


class _Names:
    """The ids of the clips of a job, by their positions in the order of its parts."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def name(self, position: int) -> str:
        """Returns the id of a clip."""
        for split, manifest in self._job.manifests.items():
            if position < len(manifest):
                return self._job.clip(split, position).id
            position -= len(manifest)
        raise IndexError("the job has fewer clips")
