"""What `peav detect` has found so far, in a file that survives an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peav.cli.partial_folder import open_partial
from peav.cli.span_files import FileSpans
from peav.spans import Span

_RESULTS = "results.jsonl"


class ResultStore:
    """A folder with a line of JSON for each file that is done.

    Args:
        folder: where; made where it is missing.
        settings: all that the results depend on besides the media.

    Raises:
        ValueError: if the folder holds results of other settings, or something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        open_partial(folder, settings, _RESULTS, "peav detect")
        self._found: dict[str, FileSpans] = {}
        path = folder / _RESULTS
        if not path.is_file():
            return
        whole = 0
        with path.open("rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):  # cut off when the run was
                    break
                record = json.loads(line)
                spans = [[Span(*span) for span in own] for own in record["spans"]]
                self._found[record["key"]] = FileSpans(record["file"], record["seconds"], spans)
                whole += len(line)
        with path.open("rb+") as stream:
            stream.truncate(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> FileSpans:
        return self._found[key]

    def add(self, key: str, found: FileSpans) -> None:
        """Notes what was found in a file."""
        spans = [[[span.onset, span.offset, span.score] for span in own] for own in found.spans]
        line = json.dumps({"key": key, "file": found.file, "seconds": found.seconds, "spans": spans})
        with (self.folder / _RESULTS).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        self._found[key] = found

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)
