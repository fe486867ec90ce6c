"""WebDataset: tars in which the files of a clip share a name."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject, parse_line
from peav.data.manifests.texts import parse_caption_type
from peav.data.media.folders import MEDIA_EXTENSIONS, PICTURE_EXTENSIONS, VIDEO_EXTENSIONS, extension_of, walk
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips
from peav.data.readers.media_folder import holds, seen_only
from peav.data.readers.splits import check_split, split_by_name
from peav.data.readers.tars import CHUNK_BYTES, GuardedFile, GuardedMember, member_chunks, refusal
from peav.data.readers.unpack import Unpacked
from peav.fields import fields as own_fields

_TEXTS = (".json", ".txt")
_KNOWN = MEDIA_EXTENSIONS + PICTURE_EXTENSIONS + _TEXTS

#: A caption of more bytes is none.
_MAX_TEXT_BYTES = 2**24


class WebDatasetTars(Reader):
    """Tars as LAION-CLAP publishes its data sets (https://github.com/LAION-AI/audio-dataset): KEY.flac beside KEY.json.

    Those of images and texts, KEY.jpg beside KEY.txt or KEY.json, are read as well.

    Reads *.tar at any depth. Members that follow each other and whose names differ only in the extension are one clip: a media
    file, or one with sound and one with a picture, and KEY.json with the captions under `text` or `caption`, a string or a list,
    and those of further types under `captions`, as in a record (`peav.data.manifests.records`), or KEY.txt with one. The JSON may hold
    values of fields of your own kinds under their names. Other members are passed over;
    so are the folders. The media are unpacked a clip at a time. An id is `<path of the tar>/<KEY>` without `.tar`.

    A tar that ends too early gives a reject; its clips before that are read, and so are the other tars. A member that is a link,
    or whose name leads out of the archive, gives a reject.

    Args:
        caption_type: what `text` describes: `audio`, `video` or `audio_video`; or a type of your own. Of a still picture without sound
            it is never `audio` or `audio_video` but `video`. A still beside a video is its thumbnail, and passed over.
        split: of all clips; by default the one that a word of the name of the tar, or of a folder of it, means, else `train`.
        dataset: name of the data set.
        domain: label of the clips.

    Raises:
        ValueError: if the split is unknown, or captions cannot be of a type of that name.
    """

    def __init__(
        self,
        caption_type: str = "audio",
        split: str | None = None,
        dataset: str = "",
        domain: str = "",
    ) -> None:
        self.caption_type, self.split = parse_caption_type(caption_type), check_split(split)
        self.dataset, self.domain = dataset, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by path of the tar, in the order of its members; see `Reader.read`.

        Raises:
            FileNotFoundError: if there is no tar.
            OSError: if the media cannot be unpacked into `scratch`.
        """
        names = list(walk(source, (".tar",)))
        if not names:
            raise FileNotFoundError(f"no file *.tar in {source}, at any depth: they should hold the clips")
        clips = Clips(source, self.dataset, self.domain)
        for name in names:
            yield from self._read_tar(source, name, scratch, skip, clips)

    def _read_tar(
        self, source: Path, name: str, scratch: Path, skip: Callable[[str], bool], clips: Clips
    ) -> Iterator[Record | Reject]:
        split = self.split or split_by_name(name) or "train"
        sample: _Sample | None = None
        try:
            with (
                GuardedFile(source / name) as raw,
                tarfile.open(fileobj=raw, mode="r|", bufsize=CHUNK_BYTES, tarinfo=GuardedMember) as archive,
            ):
                for member in archive:
                    path = PurePosixPath(member.name)
                    if member.isdir() or path.name.startswith(".") or path.suffix.lower() not in _KNOWN:
                        continue
                    if (reason := refusal(member)) is not None:
                        yield Reject(None, name, 0, f"member {member.name!r} {reason}: refused")
                        continue
                    key = str(path.with_suffix(""))
                    if sample is None or sample.key != key:
                        if sample is not None:
                            yield sample.finish(clips, self.caption_type, split)
                        clip_id = f"{name.removesuffix('.tar')}/{key}"
                        sample = _Sample(key, Unpacked.begin(clips, clip_id, name, scratch, skip))
                    sample.take(archive, member)
                raw.seek(archive.offset)
                if raw.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("no mark of the end where it should be")  # tarfile takes this for the end
        except tarfile.TarError as error:
            lost = "" if sample is None else f"; its clip {sample.key!r} may not be whole and is left out"
            if sample is not None:
                sample.media.delete()
            yield Reject(None, name, 0, f"the tar is cut short or damaged: {error}{lost}")
            return
        if sample is not None:
            yield sample.finish(clips, self.caption_type, split)


@dataclass
class _Sample:
    """The members of a tar that are one clip."""

    key: str
    media: Unpacked
    texts: dict[str, bytes] = field(default_factory=dict)

    @property
    def still(self) -> bool:
        """Whether its video, so far, is a still picture."""
        return extension_of(self.media.files.get("video", "")) in PICTURE_EXTENSIONS

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        suffix = PurePosixPath(member.name).suffix.lower()
        if suffix in PICTURE_EXTENSIONS and "video" in self.media.files and not self.still:
            return  # a thumbnail
        if suffix in VIDEO_EXTENSIONS and self.still:
            self.media.drop("video")
        if suffix not in _TEXTS:
            self.media.write(member_chunks(archive, member), holds(member.name), suffix)
        elif member.size > _MAX_TEXT_BYTES:
            self.media.problem = RecordError(f"{member.name!r} has {member.size:,} bytes, too many for captions")
        else:
            self.texts[suffix] = b"".join(member_chunks(archive, member))

    def finish(self, clips: Clips, caption_type: str, split: str) -> Record | Reject:
        def describe() -> dict[str, Any]:
            if not self.media.files:
                raise RecordError(f"no media file beside {self.key}{'/'.join(self.texts)}")
            silent = self.still and "audio" not in self.media.files
            kind = seen_only(caption_type) if silent else caption_type
            return {"captions": self._captions(kind), "split": split, **self._own()}

        return self.media.finish(clips, describe)

    def _own(self) -> dict[str, Any]:
        data = parse_line(self.texts[".json"]) if ".json" in self.texts else {}
        return {name: data[name] for name in own_fields if name in data}

    def _captions(self, caption_type: str) -> dict[str, Any]:
        captions: dict[str, Any] = {}
        if ".json" in self.texts:
            data = parse_line(self.texts[".json"])
            given = data.get("captions")
            captions = given if isinstance(given, dict) else {}  # data sets may mean something else by it
            given = data.get("text", None if ".txt" in self.texts else data.get("caption"))
            if given is not None:
                if caption_type in captions:
                    raise RecordError(f"{self.key}.json gives {caption_type} captions by 'captions' and by 'text'")
                return {**captions, caption_type: given}
            if ".txt" not in self.texts and not captions:
                raise RecordError(f"{self.key}.json has no 'text'")
        if caption_type in captions or ".txt" not in self.texts:
            return captions
        try:
            return {**captions, caption_type: self.texts[".txt"].decode("utf-8-sig").strip()}
        except UnicodeDecodeError as error:
            raise RecordError(f"{self.key}.txt is not UTF-8: {error}") from None
