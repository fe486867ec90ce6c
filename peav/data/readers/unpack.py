"""Media out of archives: where they are unpacked, under names that cannot lead anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.records import Record, Reject
from peav.data.readers.clips import Clips, reject
from peav.data.readers.media_folder import as_fields


@dataclass
class Unpacked:
    """A clip that is taken out of an archive, file by file.

    The names of its files are made from its id, never from a name in the archive. Clips whose ids differ have different names.

    Attributes:
        id: of the clip; must not be taken.
        archive: path of the archive, relative to the data set, for rejects.
        scratch: folder for the files.
        needed: whether its files are written at all; their names are the same without.
        line: number of its entry, from 1; 0 where entries have none.
        problem: the first thing that was wrong with it.
        files: names of its files in `scratch`, by what they hold: `audio` or `video`.
    """

    id: str
    archive: str
    scratch: Path
    needed: bool
    line: int = 0
    problem: RecordError | None = None
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(
        cls, clips: Clips, clip_id: str, archive: str, scratch: Path, skip: Callable[[str], bool], line: int = 0
    ) -> Unpacked:
        """Takes the id before anything is written: an earlier clip of that id may still lie in `scratch`."""
        try:
            clips.reserve_id(clip_id)
        except RecordError as error:
            return cls(clip_id, archive, scratch, False, line, error)
        return cls(clip_id, archive, scratch, not skip(clip_id), line)

    def write(self, chunks: Iterable[bytes | memoryview], holds: str, suffix: str) -> None:
        """Unpacks a file.

        Args:
            chunks: its bytes, in pieces.
            holds: `audio`, or `video` for a picture with or without sound.
            suffix: its extension.

        Raises:
            OSError: if it cannot be written.
        """
        if self.problem is None and holds in self.files:
            self.problem = RecordError(f"the clip has two {holds} files")
        if self.problem is not None:
            return
        name = f"{bytes_group(self.id.encode()):016x}-{holds}{suffix}"
        self.files[holds] = name
        if self.needed:
            self.scratch.mkdir(parents=True, exist_ok=True)
            with (self.scratch / name).open("wb") as output:
                for chunk in chunks:
                    output.write(chunk)

    def drop(self, holds: str) -> None:
        """Deletes one of its files."""
        name = self.files.pop(holds)
        if self.needed:
            (self.scratch / name).unlink(missing_ok=True)

    def delete(self) -> None:
        """Deletes what was unpacked."""
        if self.needed:
            for name in self.files.values():
                (self.scratch / name).unlink(missing_ok=True)

    def finish(self, clips: Clips, describe: Callable[[], Mapping[str, Any]]) -> Record | Reject:
        """Returns the record, or deletes the files and returns the reject.

        Args:
            clips: of the data set.
            describe: returns the fields of the record, besides its files; may raise a RecordError.
        """
        try:
            if self.problem is not None:
                raise self.problem
            record = clips.parse(self.id, self.line, {**describe(), **as_fields(self.files)})
        except RecordError as error:
            self.delete()
            return reject(error, self.id, self.line, self.archive)
        return replace(record, root=self.scratch, temporary=True)
