"""Manifests: one CutSet JSONL a split, the only truth about the clips. `peav.data.manifests.clip` says what a line holds.

Everything about a clip but its bytes is here, so captions, events, domains and splits are edited without packing again: by
`write_manifest`, by Lhotse, or by `peav data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from peav.atomic import replacing
from peav.data.manifests.clip import Clip, clip_from_json, clip_from_line
from peav.data.manifests.fields import RecordError
from peav.data.manifests.index import ManifestError, ManifestIndex, load_index
from peav.data.stores.remote import ChunkCache, StoreError, StoreOptions, is_remote
from peav.opening import MAX_LINE_BYTES, leads_out, lines_of, read_json


def manifest_path(data: Path, split: str) -> Path:
    """Returns where a split's manifest lies."""
    return data / "manifest" / f"{split}.jsonl"


def shards_path(data: Path, split: str) -> Path:
    """Returns the folder of a split's shards."""
    return data / "shards" / split


class Manifest:
    """The clips of a split, by position: the lines stay on disk, and each is read when its clip is asked for.

    Args:
        path: the JSONL file.

    Raises:
        ManifestError: if a line cannot be read, or two clips have one id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index: ManifestIndex = load_index(path)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> Clip:
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path} holds {len(self)} clips, asked for number {position}")
        with self.path.open("rb") as stream:
            stream.seek(int(self.index.line[position]))
            line = stream.readline(MAX_LINE_BYTES + 1)
        try:
            return clip_from_line(line)
        except RecordError as error:
            raise ManifestError(
                f"{self.path}, clip {position}: {error}; was the file changed during the run?"
            ) from None

    def __iter__(self) -> Iterator[Clip]:
        for _, clip in iter_manifest(self.path):
            yield clip


def find_manifest(data: str | Path, split: str, options: StoreOptions | None = None) -> Path:
    """Returns where the manifest of a split lies; that of an object store is copied to this machine first.

    Raises:
        FileNotFoundError: if the split was not prepared; names those that were.
        StoreError: if it cannot be fetched, or is a link out of the folder.
    """
    if is_remote(data):
        return ChunkCache(str(data), options or StoreOptions()).refresh(f"manifest/{split}.jsonl")
    path = manifest_path(Path(data), split)
    if not Path(data).is_dir():
        raise FileNotFoundError(f"no folder {data}: give one that `peav prepare` wrote")
    if not path.is_file():
        have = sorted(file.stem for file in (Path(data) / "manifest").glob("*.jsonl"))
        held = f"it holds the splits {', '.join(have)}; `peav data split {data} OUT` makes others of them"
        hint = held if have else "run `peav prepare SOURCE OUT` first and give OUT"
        raise FileNotFoundError(f"no split {split!r} in {data}: {hint}")
    if leads_out(path, Path(data)) and not (options is not None and options.trust):
        raise StoreError(
            f"{path} is a link out of its folder, to {path.resolve()}: it is not followed; put the file itself there, or, if you know "
            "where the data come from, set data.store.trust=true"
        )
    return path


def has_split(data: str | Path, split: str, options: StoreOptions | None = None) -> bool:
    """Returns whether a split was prepared; of an object store its list of splits, prepare.json, is asked.

    Raises:
        StoreError: if the store cannot be reached.
    """
    if is_remote(data):
        path = ChunkCache(str(data), options or StoreOptions()).refresh("prepare.json")
        try:
            return split in read_json(path)["report"]["clips"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{data}/prepare.json is damaged ({type(error).__name__}: {error})") from None
    return manifest_path(Path(data), split).is_file()


def open_manifest(data: str | Path, split: str, options: StoreOptions | None = None) -> Manifest:
    """Opens the manifest of a split.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        split: `train`, `validation` or `test`.
        options: of object stores.

    Raises:
        FileNotFoundError: if the split was not prepared; names those that were.
        ManifestError: if it cannot be read.
    """
    return Manifest(find_manifest(data, split, options))


def iter_manifest(path: Path) -> Iterator[tuple[int, Clip]]:
    """Reads a manifest a line at a time, and yields each clip with the number of its line, from 1.

    Raises:
        ManifestError: if a line cannot be read.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(lines_of(stream), start=1):
            if line.strip():
                try:
                    yield number, clip_from_line(line)
                except RecordError as error:
                    raise ManifestError(f"{path}, line {number}: {error}") from None


def load_manifest(data: str | Path, split: str) -> CutSet:
    """Opens the manifest of a split as Lhotse sees it, once its lines are known to be cuts that peav can read.

    Raises:
        FileNotFoundError: if the split was not prepared; names those that were.
        ManifestError: if a line cannot be read, such as one whose recording Lhotse would get by running a command.
    """
    path = find_manifest(data, split)
    load_index(path)
    return CutSet.from_file(path)


def save_manifest(data: str | Path, split: str, clips: Iterable[Clip | Cut]) -> Path:
    """Writes the manifest of a split, such as one with rewritten captions; the shards stay as they are.

    Args:
        data: folder that `peav prepare` wrote.
        split: `train`, `validation` or `test`.
        clips: clips, or Lhotse's cuts.

    Raises:
        RecordError: if a cut is none that peav can read.
    """
    return write_manifest(manifest_path(Path(data), split), clips)


def write_manifest(path: Path, clips: Iterable[Clip | Cut]) -> Path:
    """Writes a manifest, all of it or nothing, and waits until it is on the disk.

    Raises:
        RecordError: if a cut is none that peav can read.
        OSError: if the disk is full; what was there stays.
        ValueError: if there is no clip.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as partial:
        empty = True
        with partial.open("w", encoding="utf-8") as stream:
            for clip in clips:
                empty = False
                clip = clip if isinstance(clip, Clip) else clip_from_json(clip.to_dict())
                stream.write(clip.to_line() + "\n")
        if empty:
            raise ValueError(f"there is no clip to write: {path} stays as it is")
    return path
