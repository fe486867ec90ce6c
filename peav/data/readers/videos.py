"""Data sets of described videos: VALOR and MSR-VTT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips, reject
from peav.data.readers.json_files import load_json, required_text
from peav.data.readers.media_folder import MediaFolder
from peav.data.readers.splits import check_splits, choose_splits, split_of_name


class VALOR(Reader):
    """VALOR (arXiv 2304.08345; https://casia-iva-group.github.io/projects/VALOR): captions of what is both seen and heard.

    Reads desc_train.json, desc_val.json and desc_test.json: lists of `{"video_id", "desc"}`, or `"descs"` for several, which
    become `audio_video` captions. A video is a file named by its video_id, which is also the id. Lines in rejects count entries.

    Args:
        media: sub-folder of the videos, searched at any depth.
        splits: those of `train`, `validation` and `test` to read; by default those whose file is there.
        domain: label of the clips; none by default.

    Raises:
        ValueError: if a split is unknown.
    """

    tables: ClassVar[dict[str, str]] = {
        "train": "desc_train.json",
        "validation": "desc_val.json",
        "test": "desc_test.json",
    }

    def __init__(self, media: str = "media", splits: Sequence[str] | None = None, domain: str = "") -> None:
        self.media, self.splits, self.domain = media, check_splits(splits), domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of the entries; see `Reader.read`.

        Raises:
            FileNotFoundError: if a JSON file or the folder of the media is not there.
            RecordError: if a JSON file holds no list.
        """
        tables = choose_splits(source, self.tables, self.splits)
        entries = {split: load_json(source, table, list, "entries") for split, table in tables.items()}
        folder, clips = MediaFolder(source, self.media), Clips(source, "VALOR", self.domain)
        for split, listed in entries.items():
            for number, entry in enumerate(listed, start=1):
                clip_id: str | None = None
                try:
                    clip_id = required_text(entry, "video_id")
                    texts = entry.get("descs", entry.get("desc"))
                    files = folder.find(clip_id)
                except RecordError as error:
                    yield reject(error, clip_id, number, tables[split])
                    continue
                captions = {"audio_video": texts}
                yield clips.make(clip_id, number, tables[split], captions=captions, split=split, **files)


class MSRVTT(Reader):
    """MSR-VTT (Xu et al., CVPR 2016): videos of 10 to 30 s with twenty captions each, of what is seen.

    Reads train_val_videodatainfo.json and test_videodatainfo.json, or other files of their form: `{"videos": [{"video_id",
    "split"}, ...], "sentences": [{"video_id", "caption"}, ...]}`. The sentences become `video` captions. A video is a file named
    by its video_id, already cut, which is also the id; `start time` and `end time` are about the video on YouTube. Lines in
    rejects count the entries of their list.

    Args:
        media: sub-folder of the videos, searched at any depth.
        tables: the JSON files; by default those of the two that are there.
        domain: label of the clips; none by default.
    """

    published: ClassVar[dict[str, str]] = {"train": "train_val_videodatainfo.json", "test": "test_videodatainfo.json"}

    def __init__(self, media: str = "media", tables: Sequence[str] | None = None, domain: str = "") -> None:
        self.media, self.tables, self.domain = media, tables, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, file by file, in the order of `videos`; see `Reader.read`.

        Raises:
            FileNotFoundError: if a JSON file or the folder of the media is not there.
            RecordError: if a JSON file holds no object with the lists `videos` and `sentences`.
        """
        tables = self.tables if self.tables is not None else choose_splits(source, self.published, None).values()
        loaded = {table: load_json(source, table, dict, "videos and sentences") for table in tables}
        for table, data in loaded.items():
            for name in ("videos", "sentences"):
                if not isinstance(data.get(name), list):
                    raise RecordError(f"{source / table}: the JSON object must hold a list {name!r}")
        folder, clips = MediaFolder(source, self.media), Clips(source, "MSR-VTT", self.domain)
        for table, data in loaded.items():
            captions: dict[str, list[str]] = {}
            for number, sentence in enumerate(data["sentences"], start=1):
                try:
                    captions.setdefault(required_text(sentence, "video_id"), []).append(
                        required_text(sentence, "caption")
                    )
                except RecordError as error:
                    yield Reject(None, table, number, f"in 'sentences': {error}")
            for number, video in enumerate(data["videos"], start=1):
                clip_id: str | None = None
                try:
                    clip_id = required_text(video, "video_id")
                    if (split := split_of_name(required_text(video, "split"))) is None:
                        raise RecordError(f"'split' must be train, validate or test, got {video['split']!r}")
                    files = folder.find(clip_id)
                except RecordError as error:
                    yield reject(error, clip_id, number, table)
                    continue
                texts = {"video": captions.get(clip_id, [])}
                yield clips.make(clip_id, number, table, captions=texts, split=split, **files)
