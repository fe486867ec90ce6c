"""Data sets of music by class: GTZAN and NSynth."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, get_args

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.media.folders import MEDIA_EXTENSIONS, walk
from peav.data.readers.classified import Classified
from peav.data.readers.clips import Clips, reject
from peav.data.readers.entries import Entry, MediaTree, records_of
from peav.data.readers.json_files import load_json, required_text
from peav.data.readers.labels import check_template, class_captions, spaced
from peav.data.readers.rows import Rows
from peav.data.readers.splits import check_splits, choose_splits

#: A track of GTZAN: its folder is its genre.
_TRACK = re.compile(r"(?:.*/)?(?P<name>(?P<genre>[^/]+)/(?P=genre)\.\d{5})")


class GTZAN(Classified):
    """GTZAN (Tzanetakis and Cook, 2002): a hundred excerpts of 30 s of each of ten genres.

    Reads GENRE/GENRE.NNNNN.wav, or .au, at any depth, as in genres/ of the first release and genres_original/ of later ones; the class
    is the genre. Ids are `GENRE/GENRE.NNNNN`. The set has no list of its files: a genre without files is no class, and what is not there
    is missed by nobody. The file jazz/jazz.00054.wav of many copies cannot be decoded; `peav prepare` leaves it out with the reason.

    The set has no splits of its own. The usual ones, without repeated artists and faulty tracks (Kereliuk et al., arXiv 1507.04761;
    https://github.com/jongpillee/music_dataset_split), are lists train_filtered.txt, valid_filtered.txt and test_filtered.txt with a line
    GENRE/GENRE.NNNNN.wav a track; by these the tracks that are not there are known, and they are looked for in archives too.

    Args:
        filtered: whether to read the tracks of these lists, in their splits; else every track is of the split `test`, as zero-shot
            classification takes them.
        lists: sub-folder of the lists, "" for the data set's own.
        splits: those of `train`, `validation` and `test` to read by the lists; by default those whose list is there.
        template: `audio` caption with `{label}` in it, marked as synthetic; none by default.
        domain: label of the clips.

    Raises:
        ValueError: if a split is unknown or chosen without lists, or the template does not say where the label goes.
    """

    dataset = "GTZAN"
    tables: ClassVar[dict[str, str]] = {
        "train": "train_filtered.txt",
        "validation": "valid_filtered.txt",
        "test": "test_filtered.txt",
    }

    def __init__(
        self,
        filtered: bool = False,
        lists: str = "",
        splits: Sequence[str] | None = None,
        template: str = "",
        domain: str = "music",
    ) -> None:
        self.filtered, self.lists, self.splits = filtered, lists, check_splits(splits)
        if self.splits is not None and not filtered:
            raise ValueError("GTZAN has splits by its lists alone: set filtered, or leave splits out")
        self.template, self.domain = check_template(template), domain

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the genres in the order of the alphabet; see `Classified.classes`."""
        return tuple(sorted({_genre(entry.id) for entry in self._entries(source) if isinstance(entry, Entry)}))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by name, or in the order of the lists; see `Reader.read`.

        Raises:
            FileNotFoundError: if no track, or no list, is there.
        """
        clips = Clips(source, self.dataset, self.domain)
        yield from records_of(self._entries(source), MediaTree(source), clips, scratch, skip)

    def _entries(self, source: Path) -> Iterator[Entry | Reject]:
        if self.filtered:
            yield from self._listed(source)
            return
        tracks = sorted(
            {
                found["name"]
                for path in walk(source, MEDIA_EXTENSIONS)
                if (found := _TRACK.fullmatch(os.path.splitext(path)[0]))
            }
        )
        if not tracks:
            raise FileNotFoundError(f"no file GENRE/GENRE.NNNNN.wav or .au in {source}, at any depth")
        for number, name in enumerate(tracks, start=1):
            yield self._entry(name, number, "", "test")

    def _listed(self, source: Path) -> Iterator[Entry | Reject]:
        tables = {split: os.path.join(self.lists, table) for split, table in self.tables.items()}
        for split, table in choose_splits(source, tables, self.splits).items():
            for row in Rows(source, table, "a track a line", (), "\t", ("track",), quoted=False):
                name = os.path.splitext(row.values.get("track", ""))[0]
                if row.problem or not (found := _TRACK.fullmatch(name)):
                    yield row.reject(row.problem or f"a line must be GENRE/GENRE.NNNNN.wav, got {name!r}")
                else:
                    yield self._entry(found["name"], row.line, table, split)

    def _entry(self, name: str, line: int, table: str, split: str) -> Entry:
        captions = class_captions([_genre(name)], self.template)
        return Entry(name, (name,), line, table, {"captions": captions, "split": split})


def _genre(track: str) -> str:
    return spaced(track.split("/")[0])


#: What the notes of NSynth are classified by, and the field of examples.json that numbers it.
NSynthTarget = Literal["instrument_family", "instrument_source", "pitch", "qualities"]


class NSynth(Classified):
    """NSynth (Engel et al., ICML 2017; https://magenta.tensorflow.org/datasets/nsynth): notes of 4 s by a thousand instruments.

    Reads nsynth-train/examples.json, nsynth-valid/examples.json and nsynth-test/examples.json: objects of notes by their names; the audio
    is audio/NAME.wav beside each, or anywhere else in the folder, or in archives there. Ids are the names.

    The classes of NSynth are those of the splits that are read: of the eleven families of instruments, the test split has ten.

    Args:
        target: what is the class: `instrument_family`, such as bass; `instrument_source`: acoustic, electronic or synthetic; `pitch`, the
            number of the MIDI note, as text; or `qualities`, such as dark, of which a note may have several or none.
        splits: those of `train`, `validation` and `test` to read; by default those whose file is there.
        template: `audio` caption with `{label}` in it, marked as synthetic; none by default.
        domain: label of the clips.

    Raises:
        ValueError: if the target or a split is unknown, or the template does not say where the label goes.
    """

    dataset = "NSynth"
    tables: ClassVar[dict[str, str]] = {
        "train": "nsynth-train/examples.json",
        "validation": "nsynth-valid/examples.json",
        "test": "nsynth-test/examples.json",
    }

    def __init__(
        self,
        target: NSynthTarget = "instrument_family",
        splits: Sequence[str] | None = None,
        template: str = "",
        domain: str = "music",
    ) -> None:
        if target not in get_args(NSynthTarget):
            targets = ", ".join(get_args(NSynthTarget))
            raise ValueError(f"the notes of NSynth are classified by {targets}, not by {target!r}")
        self.target, self.splits = target, check_splits(splits)
        self.template, self.domain = check_template(template), domain

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the classes by their numbers in the data set, qualities by the alphabet; see `Classified.classes`."""
        found: dict[str, int] = {}
        for notes in self._load(source).values():
            for note in notes.values():
                try:
                    for name, number in self._classes_of(note):
                        found[name] = number
                except RecordError:  # `read` says so
                    continue
        return tuple(sorted(found, key=lambda name: (found[name], name)))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the notes, split by split, in the order of the file; see `Reader.read`.

        Raises:
            FileNotFoundError: if a table is not there.
            RecordError: if it holds no object.
        """
        loaded = self._load(source)
        clips = Clips(source, self.dataset, self.domain)
        yield from records_of(self._entries(loaded), MediaTree(source), clips, scratch, skip)

    def _load(self, source: Path) -> dict[str, dict[str, Any]]:
        chosen = choose_splits(source, self.tables, self.splits)
        return {split: load_json(source, table, dict, "notes by name") for split, table in chosen.items()}

    def _entries(self, loaded: dict[str, dict[str, Any]]) -> Iterator[Entry | Reject]:
        for split, notes in loaded.items():
            table = self.tables[split]
            for number, (name, note) in enumerate(notes.items(), start=1):
                try:
                    captions = class_captions([label for label, _ in self._classes_of(note)], self.template)
                except RecordError as error:
                    yield reject(error, name, number, table)
                    continue
                fields = {"captions": captions, "split": split}
                yield Entry(name, (f"{PurePosixPath(table).parent}/audio/{name}", name), number, table, fields)

    def _classes_of(self, note: Any) -> list[tuple[str, int]]:
        """Returns the classes of a note, each with a number to sort it by."""
        if self.target == "qualities":
            names = note.get("qualities_str") if isinstance(note, dict) else None
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise RecordError(f"'qualities_str' must be a list of names, got {names!r}")
            return [(spaced(name), 0) for name in names]
        number = note.get(self.target) if isinstance(note, dict) else None
        if isinstance(number, bool) or not isinstance(number, int):
            raise RecordError(f"{self.target!r} must be a whole number, got {number!r}")
        if self.target == "pitch":
            return [(str(number), number)]
        return [(spaced(required_text(note, f"{self.target}_str")), number)]
