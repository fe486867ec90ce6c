"""Where the captions of a blind test come from: a prepared folder, those of one origin in it, or what a job of `peav caption` made."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.manifests.texts import CAPTION_ORIGINS, parse_caption_type
from peav.engine.job import clips_digest
from peav.engine.rows import PartFile, Rows, media_key
from peav.engine.stage import EngineError
from peav.engine.survey import texts_of_column
from peav.opening import read_json


class Source:
    """Captions of one type.

    Args:
        name: as it was given.
        data: the prepared folder of the clips.
        manifest: of its split.
        texts: from the position of a clip, and the clip, to its captions.
    """

    def __init__(self, name: str, data: str, manifest: Manifest, texts: Callable[[int, Clip], list[str]]) -> None:
        self.name, self.data, self._manifest, self._texts = name, data, manifest, texts
        self.ids: NDArray[np.int64] = np.asarray(manifest.index.id)
        self._order = np.argsort(self.ids, kind="stable")

    def read(self, group: int) -> tuple[Clip, list[str]]:
        """Returns the clip of an identity out of `ids`, and its captions."""
        position = int(self._order[np.searchsorted(self.ids, group, sorter=self._order)])
        clip = self._manifest[position]
        return clip, self._texts(position, clip)


def open_source(name: str, kind: str, split: str, data: str | None = None) -> Source:
    """Opens a source.

    Args:
        name: a prepared folder; `FOLDER:real` or `FOLDER:synthetic`, its captions by people or by models alone; or the folder of the
            work of a job.
        kind: the caption type.
        split: of the clips.
        data: the prepared folder of a job whose work is not in it.

    Raises:
        EngineError: if the folder of a work cannot be read, or the clips changed since.
        FileNotFoundError: if there is no such folder, or the split was not prepared.
        ManifestError: if the manifest cannot be read.
        ValueError: if the caption type is none.
    """
    parse_caption_type(kind)
    folder, origin = parted(name)
    if (Path(folder) / "job.json").is_file():
        if origin:
            raise ValueError(
                f"{name}: {folder} is the work of a job, whose captions are all synthetic: leave out :{origin}"
            )
        return _of_work(Path(folder), kind, split, data)
    return Source(name, folder, open_manifest(folder, split), lambda position, clip: _written(clip, kind, origin))


def parted(name: str) -> tuple[str, str]:
    """Returns the folder of a source, and of which origin its captions are, "" for any.

    >>> parted("my_data:real"), parted("s3:odd/name")
    (('my_data', 'real'), ('s3:odd/name', ''))
    """
    folder, colon, origin = name.rpartition(":")
    return (folder, origin) if colon and origin in CAPTION_ORIGINS else (name, "")


def _written(clip: Clip, kind: str, origin: str) -> list[str]:
    """Returns the captions of a clip that are about the whole of it."""
    held = clip.captions.get(kind, ())
    return [caption.text for caption in held if caption.start is None and origin in ("", caption.origin)]


def _of_work(work: Path, kind: str, split: str, data: str | None) -> Source:
    try:
        said = read_json(work / "job.json")
        clips, part_clips, keys = said["identity"]["clips"], int(said["identity"]["part_clips"]), dict(said["keys"])
        stage, reads_texts, home = said["texts"]["stage"], bool(said["texts"]["reads_texts"]), said["data"]
    except (ValueError, KeyError, TypeError):
        raise EngineError(
            f"{work}/job.json is damaged or of an earlier peav: run the same `peav caption` once more, which computes nothing anew"
        ) from None
    if stage is None:
        raise EngineError(f"{work} is a job without a stage that writes captions")
    if split not in clips:
        raise EngineError(f"{work} is a job over the split {', '.join(clips)}, not {split!r}: say --split")
    if data is None:
        data = str(work.parent) if (work.parent / "manifest").is_dir() else home
    manifest = open_manifest(data, split)
    if clips_digest(manifest) != clips[split]:
        raise EngineError(
            f"{work} is a job over other clips than {manifest.path} has now: name the folder of its clips by --data"
        )
    folder = work / split / f"{stage}-{keys[stage]}"

    @lru_cache(maxsize=8)
    def rows(part: int) -> Rows:
        return PartFile(folder, part).load()

    def texts(position: int, clip: Clip) -> list[str]:
        row = rows(position // part_clips).get(clip.id)
        if row is None or row["media"] != media_key(clip, reads_texts) or "out" not in row:
            return []
        return [text for of, text in texts_of_column(row["out"].get("texts")) if of == kind]

    return Source(str(work), data, manifest, texts)
