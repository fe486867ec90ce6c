"""What edits of manifests share: an output folder that never is an input, manifests written together, and a report of it."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from peav.data.manifests.clip import Clip
from peav.data.manifests.labels import Labels, write_labels
from peav.data.manifests.manifest import manifest_path
from peav.data.manifests.records import SPLITS
from peav.data.packing.report import PrepareReport, write_report
from peav.data.stores.outside import open_address, remember
from peav.data.stores.remote import ChunkCache, StoreError, StoreOptions, is_remote
from peav.types import Seconds

#: In a folder at which an edit is at work, or was when its process was killed.
_UNFINISHED = ".edit-unfinished"


class EditError(ValueError):
    """An edit that would lose or mix up data. The message says why, and what to do."""


@dataclass
class EditReport:
    """What an edit wrote.

    Attributes:
        out: the folder.
        clips: clips by split.
        seconds: their duration, by split.
        notes: what its author should know.
    """

    out: str
    clips: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, Seconds] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """Duration of all clips."""
        return sum(self.seconds.values()) / 3600


def absolute_store(data: str, store: str, options: StoreOptions | None = None) -> str:
    """Returns the address of a store so that it means the same in another folder's manifest.

    Raises:
        OutsideStoreError: if it lies outside the folder of the data, and nobody said that it may be read.

    >>> absolute_store("/mnt/a", "shards/train"), absolute_store("s3://b/data", "shards/train")
    ('/mnt/a/shards/train', 's3://b/data/shards/train')
    """
    return open_address(data if is_remote(data) else os.path.abspath(data), store, options)


def check_out(out: Path, sources: Iterable[str], command: str, overwrite: bool) -> None:
    """Refuses a folder whose manifests an edit must not replace.

    Args:
        out: the folder.
        sources: what the edit reads.
        command: that edits.
        overwrite: whether what an edit wrote there may be replaced.

    Raises:
        EditError: if it is a source, holds anything but the result of an edit, or holds one and `overwrite` is not given. What an edit
            left that was killed is no result: it is written anew.
    """
    for source in sources:
        if not is_remote(source) and out.resolve() == Path(source).resolve():
            raise EditError(f"{out} is read by `{command}`, which never writes over its input: give another folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        made_by = json.loads((out / "prepare.json").read_text(encoding="utf-8"))["settings"].get("made_by")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        made_by = None
    if made_by is None and (out / _UNFINISHED).is_file():
        return
    if made_by is None:
        raise EditError(f"{out} is not empty and was not written by an edit such as `{command}`: give another folder")
    if not overwrite:
        raise EditError(f"{out} holds the result of `{made_by}`: give another folder, or overwrite=true to replace it")


class EditWriter:
    """Writes the manifests of several splits, all of them or nothing; `finish` then says that the folder is whole.

    Args:
        out: the folder.
        command: that edits.
        settings: what it was given.
        sources: what it read.
        labels: of the clips.
    """

    def __init__(
        self, out: Path, command: str, settings: dict[str, Any], sources: Iterable[str], labels: Labels
    ) -> None:
        self.out = out
        self.report = EditReport(str(out))
        self._settings = {"made_by": command, **settings} | ({"labels": labels.digest} if labels else {})
        self._labels = labels
        self._sources = ", ".join(sources)
        self._streams: dict[str, TextIO] = {}
        self._stores: dict[str, None] = {}

    def __enter__(self) -> EditWriter:
        """Makes the folder, and says in it that it is not whole."""
        (self.out / "manifest").mkdir(parents=True, exist_ok=True)
        marker = self.out / _UNFINISHED
        self._went_on = marker.exists()
        marker.touch()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for stream in self._streams.values():
            stream.close()
        if kind is None:
            self._publish()
            return
        for split in self._streams:
            self._partial(split).unlink()
        if not self._went_on:
            (self.out / _UNFINISHED).unlink()
        with suppress(OSError):  # not empty: an earlier edit stays as it was
            (self.out / "manifest").rmdir()
            self.out.rmdir()

    def add(self, clip: Clip) -> None:
        """Writes a clip into the manifest of its split."""
        if clip.split not in self._streams:
            self._streams[clip.split] = self._partial(clip.split).open("w", encoding="utf-8")
        self._streams[clip.split].write(clip.to_line() + "\n")
        self._stores[clip.store] = None
        self.report.clips[clip.split] += 1
        self.report.seconds[clip.split] = self.report.seconds.get(clip.split, 0.0) + clip.duration

    def _publish(self) -> None:
        for split in SPLITS:
            path = manifest_path(self.out, split)
            if split in self._streams:
                self._partial(split).replace(path)
            else:
                path.unlink(missing_ok=True)
        for name in ("tokenizer.json", "prepare.json"):
            (self.out / name).unlink(missing_ok=True)
        write_labels(self.out, self._labels)

    def finish(self) -> EditReport:
        """Writes prepare.json, whose presence says that the folder is whole, and remembers that its author knows its stores."""
        try:
            remember(self.out, self._stores)
        except OSError as error:
            self.report.notes.append(
                f"it cannot be remembered that you know the stores of these clips ({error}): set data.store.trust=true to read them"
            )
        clips = {split: self.report.clips[split] for split in SPLITS if split in self._streams}
        report = PrepareReport(str(self.out), clips, hours=self.report.hours)
        write_report(self.out, report, "", self._settings, Path(self._sources))
        (self.out / _UNFINISHED).unlink(missing_ok=True)
        return self.report

    def _partial(self, split: str) -> Path:
        return self.out / "manifest" / f".{split}.jsonl.partial"


def copy_tokenizer(data: str, out: Path, options: StoreOptions | None = None) -> bool:
    """Copies the tokenizer of a prepared folder; returns whether it has one."""
    if is_remote(data):
        try:
            path = ChunkCache(data, options or StoreOptions()).refresh("tokenizer.json")
        except StoreError:
            return False
    else:
        path = Path(data) / "tokenizer.json"
    if not path.is_file():
        return False
    shutil.copyfile(path, out / "tokenizer.json")
    return True
