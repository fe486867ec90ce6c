"""New manifests out of old ones: other splits, or several data sets in one. The shards stay where they are.

The clips of the new manifests point at the shards of the old ones by absolute path or address. No clip is ever written twice: how
often a data set or a domain is seen is the loader's to decide (`domain_weights` of `ClipDataModule`).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peav.data.curation.duplicates import CrossSplitDuplicates
from peav.data.curation.editing import EditError, EditReport, EditWriter, absolute_store, check_out, copy_tokenizer
from peav.data.curation.grouping import SourceGroups, source_keys
from peav.data.curation.sampling import uniform
from peav.data.curation.validate import splits_of
from peav.data.curation.where import SeenLabels, Where
from peav.data.manifests.clip import PACKED_ID, Clip
from peav.data.manifests.fields import hint
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.labels import Labels, load_labels
from peav.data.manifests.manifest import find_manifest, iter_manifest
from peav.data.manifests.records import SPLITS
from peav.data.packing.report import write_tokenizer
from peav.data.stores.remote import StoreOptions, is_remote

By = Literal["recording", "id", "dataset"]


def split_manifest(
    data: str | Path,
    out: str | Path,
    splits: Sequence[str] = (),
    by: By = "recording",
    validation: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
    overwrite: bool = False,
    options: StoreOptions | None = None,
) -> EditReport:
    """Distributes clips anew among train, validation and test.

    A clip goes where a random number of its group says, so it does not depend on the other clips or their order, and shares are met on
    average, not exactly.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        out: folder to write.
        splits: whose clips are distributed; those of other splits stay in theirs. All by default.
        by: what stays together: `recording`, clips of one source file, or with the same sound or picture, directly or by way of
            others; `dataset`, clips of a data set; `id`, nothing but a clip.
        validation: share of the groups.
        test: likewise; the rest is for training.
        seed: of the numbers.
        overwrite: replace what an earlier edit wrote to `out`.
        options: of object stores.

    Returns:
        What was written.

    Raises:
        EditError: if `out` holds other data, two clips would have one id, or a split would be empty.
        FileNotFoundError: if there is no such split.
        ManifestError: if a manifest cannot be read.
        ValueError: if a share is out of range.
    """
    data, out = str(data), Path(out)
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(
            f"the shares of validation and test must leave some for train, got {validation:g} and {test:g}"
        )
    if by not in ("recording", "id", "dataset"):
        raise ValueError(f"'by' must be recording, id or dataset, got {by!r}{hint(by, ('recording', 'id', 'dataset'))}")
    check_out(out, [data], "peav data split", overwrite)
    paths = {split: find_manifest(data, split, options) for split in splits_of(data, options)}
    for split in splits:
        if split not in paths:
            find_manifest(data, split, options)
    chosen = tuple(splits) or tuple(paths)
    address = cache(partial(absolute_store, data, options=options))
    labels = _split_labels(address, {split: paths[split] for split in paths if split in chosen}, by)
    numbers = uniform(labels, "split", seed)
    place = np.where(numbers < test, 2, np.where(numbers < test + validation, 1, 0))
    for number, share in ((1, validation), (2, test)):
        if share and not (place == number).any():
            raise EditError(
                f"no clip fell to {SPLITS[number]}: {len(np.unique(labels))} groups are few for a share of {share:g}; "
                "give another seed, a larger share, or by=id"
            )
    settings = {"splits": chosen, "by": by, "validation": validation, "test": test, "seed": seed}
    seen = {split: array("q") for split in SPLITS}
    with EditWriter(out, "peav data split", settings, [data], load_labels(data, options)) as writer:
        position = 0
        for split, path in paths.items():
            for _, clip in iter_manifest(path):
                target = split
                if split in chosen:
                    target, position = SPLITS[place[position]], position + 1
                seen[target].append(bytes_group(clip.id.encode()))
                writer.add(replace(clip, split=target, store=address(clip.store)))
        _check_unique(seen)
    copy_tokenizer(data, out, options)
    return writer.finish()


def _split_labels(address: Callable[[str], str], paths: Mapping[str, Path], by: By) -> NDArray[np.int64]:
    groups, labels = SourceGroups(), array("q")
    for path in paths.values():
        for _, clip in iter_manifest(path):
            if by == "recording":
                groups.add(source_keys(clip, address(clip.store)), bytes_group(clip.id.encode()))
            else:
                labels.append(bytes_group(getattr(clip, by).encode()))
    return groups.labels() if by == "recording" else np.array(labels, dtype=np.int64)


def _check_unique(seen: Mapping[str, array[int]]) -> None:
    for split, ids in seen.items():
        if (repeated := len(ids) - len(np.unique(np.array(ids, np.int64)))) > 0:
            raise EditError(f"{repeated} clips of {split} would have the id of another clip; rename them first")


@dataclass(frozen=True)
class Source:
    """A prepared folder in a mix: the name that tells it from the others, and its address."""

    name: str
    data: str


def parse_source(text: str) -> Source:
    """Reads an address, or NAME=ADDRESS; the last part of the address is the name by default.

    >>> parse_source("talks=/mnt/a/data"), parse_source("s3://bucket/songs/")
    (Source(name='talks', data='/mnt/a/data'), Source(name='songs', data='s3://bucket/songs/'))
    """
    named = re.fullmatch(r"([\w.-]+)=(.+)", text)
    if named:
        return Source(named[1], named[2])
    return Source(text.rstrip("/").rpartition("/")[2] if is_remote(text) else Path(text).resolve().name, text)


def parse_share(text: str | float) -> tuple[float, bool]:
    """Reads how much of a source is taken: a factor, or hours; returns the number and whether it is hours.

    Raises:
        ValueError: if it is neither, or would take clips twice.

    >>> parse_share("0.5"), parse_share("1"), parse_share("10h")
    ((0.5, False), (1.0, False), (10.0, True))
    """
    hours = str(text).endswith("h")
    try:
        number = float(str(text).removesuffix("h"))
    except ValueError:
        raise ValueError(f"a share is a factor up to 1, such as 0.5, or hours, such as 10h; got {text!r}") from None
    if not number > 0:
        raise ValueError(f"a share must be above 0, got {text!r}; leave the source out instead")
    if not hours and number > 1:
        raise ValueError(
            f"a share is at most 1, got {text!r}: a mix never holds a clip twice; what is seen more often is the loader's to decide "
            "(domain_weights)"
        )
    return number, hours


def mix(
    out: str | Path,
    sources: Sequence[str],
    where: Where | None = None,
    shares: Mapping[str, str | float] | None = None,
    tokenizer: Literal["train", "copy"] = "train",
    vocab_size: int = 2048,
    seed: int = 0,
    overwrite: bool = False,
    options: StoreOptions | None = None,
) -> EditReport:
    """Puts clips of several prepared folders into one. Where they have no data set yet, they get the name of their folder.

    A clip whose id another folder has too is called NAME/ID, and so is a vocabulary (`labels.json`) that holds other phrases than the one
    of its name in another folder; the parents of phrases are put together. The same packed clip in two sources is an error; equal media
    that were packed twice are noted where they are in two splits.

    Args:
        out: folder to write.
        sources: prepared folders or their addresses, each as ADDRESS or NAME=ADDRESS.
        where: which clips; all by default.
        shares: by name, how much of the training clips: a factor up to 1, or hours such as `10h`; all by default.
        tokenizer: `train` one on the training texts of the mix, or `copy` that of the first source.
        vocab_size: tokens of one that is trained.
        seed: of which clips a share takes.
        overwrite: replace what an earlier edit wrote to `out`.
        options: of object stores.

    Returns:
        What was written.

    Raises:
        EditError: if `out` holds other data, names clash, two sources have the same packed clip, or no clip is left.
        LabelsError: if the labels of a folder cannot be read, or the parents of phrases form a circle once they are put together.
        FileNotFoundError: if a folder was not prepared.
        ManifestError: if a manifest cannot be read.
        ValueError: if a share or a filter cannot be met.
    """
    out, where = Path(out), where or Where()
    folders = [parse_source(source) for source in sources]
    if not folders:
        raise ValueError("give at least one prepared folder to mix")
    names = tuple(folder.name for folder in folders)
    for name in names:
        if names.count(name) > 1:
            raise EditError(f"two sources are called {name!r}: tell them apart by NAME=FOLDER")
    limits = {name: parse_share(share) for name, share in (shares or {}).items()}
    for name in limits:
        if name not in names:
            raise ValueError(f"no source is called {name!r}{hint(name, names)} The names are {', '.join(names)}")
    check_out(out, [folder.data for folder in folders], "peav data mix", overwrite)
    plan = _Plan(folders, where, limits, seed, options)
    settings = {"where": asdict(where), "shares": dict(shares or {}), "tokenizer": tokenizer, "seed": seed}
    seen, media = {split: array("q") for split in SPLITS}, CrossSplitDuplicates()
    with EditWriter(out, "peav data mix", settings, sources, plan.labels) as writer:
        writer.report.notes += plan.notes
        for folder, clip in plan.clips():
            clip = plan.adopt(folder, clip)
            seen[clip.split].append(bytes_group(clip.id.encode()))
            media.add(clip, clip.split)
            writer.add(clip)
        writer.report.notes += media.sentences()
        if not writer.report.clips:
            raise EditError("no clip is left: the filter takes none of the sources")
        _check_unique(seen)
    made = (
        copy_tokenizer(folders[0].data, out, options)
        if tokenizer == "copy"
        else write_tokenizer(out, "train", vocab_size)
    )
    if not made:
        why = f"{folders[0].data} has none" if tokenizer == "copy" else "the training clips have no text"
        writer.report.notes.append(f"no tokenizer.json was written: {why}")
    return writer.finish()


class _Plan:
    """Which clips of the sources a mix takes, and which of them it renames, after a first reading."""

    def __init__(
        self,
        folders: Sequence[Source],
        where: Where,
        limits: Mapping[str, tuple[float, bool]],
        seed: int,
        options: StoreOptions | None,
    ) -> None:
        self.notes: list[str] = []
        self._folders, self._where, self._seed, self._options = folders, where, seed, options
        self._below: dict[str, float] = {}
        self._address = cache(partial(absolute_store, options=options))
        self._vocabularies: dict[str, dict[str, str]] = {}
        self.labels = self._merge_labels()
        seen, held, packed = SeenLabels(where), [], []
        for folder in folders:
            ids, training, seconds, spans = array("q"), array("q"), array("d"), array("q")
            for clip in self._read(folder, seen.add):
                ids.append(bytes_group(clip.id.encode()))
                store = self._address(folder.data, clip.store)
                spans.append(bytes_group(f"{store}\0{clip.row}\0{clip.offset:.6f}\0{clip.duration:.6f}".encode()))
                if clip.split == "train":
                    training.append(ids[-1])
                    seconds.append(clip.duration)
            if folder.name in limits:
                self._limit(folder.name, np.array(training, np.int64), np.array(seconds), *limits[folder.name])
            if not ids:
                self.notes.append(f"the filter takes no clip of {folder.name}")
            held.append(np.unique(np.array(ids, np.int64)))
            packed.append(np.unique(np.array(spans, np.int64)))
            for other, before in zip(folders, packed[:-1], strict=False):
                if same := len(np.intersect1d(before, packed[-1], assume_unique=True)):
                    raise EditError(
                        f"{same} clips of {folder.name} are clips of {other.name} too, the same rows of the same shards: a mix holds no "
                        "clip twice; leave one of the two out"
                    )
        seen.check()
        unique, counts = np.unique(np.concatenate(held), return_counts=True)
        self._clashing = set(unique[counts > 1].tolist())
        if self._clashing:
            self.notes.append(f"{len(self._clashing)} ids belong to several sources: their clips are called NAME/ID")

    def clips(self) -> Iterator[tuple[Source, Clip]]:
        """Yields the clips that are taken."""
        for folder in self._folders:
            for clip in self._read(folder):
                below = self._below.get(folder.name, 1.0) if clip.split == "train" else 1.0
                if below >= 1.0 or self._numbers(np.array([bytes_group(clip.id.encode())]))[0] < below:
                    yield folder, clip

    def adopt(self, folder: Source, clip: Clip) -> Clip:
        """Returns a clip as the mix has it."""
        extra, name = clip.extra, clip.id
        if bytes_group(name.encode()) in self._clashing:
            if not clip.is_part:
                extra = {**extra, PACKED_ID: clip.packed_id}
            name = f"{folder.name}/{name}"
        store = self._address(folder.data, clip.store)
        vocabulary = self._vocabularies[folder.name].get(clip.vocabulary, clip.vocabulary)
        return replace(clip, id=name, store=store, vocabulary=vocabulary, extra=extra)

    def _merge_labels(self) -> Labels:
        held = {folder.name: load_labels(folder.data, self._options) for folder in self._folders}
        clashing = {name for one in held.values() for other in held.values() for name in one.clashing(other)}
        merged = Labels()
        for source, labels in held.items():
            names = {name: f"{source}/{name}" for name in labels.vocabularies if name in clashing}
            self._vocabularies[source] = names
            merged = merged.merged(labels.renamed(names))
        if clashing:
            self.notes.append(
                f"several sources have other phrases in the vocabularies {', '.join(sorted(clashing))}: they are called NAME/VOCABULARY"
            )
        return merged

    def _read(self, folder: Source, look: Callable[[Clip], None] = lambda clip: None) -> Iterator[Clip]:
        for split in splits_of(folder.data, self._options):
            for _, clip in iter_manifest(find_manifest(folder.data, split, self._options)):
                # The file that a clip stands in is what training reads.
                clip = replace(clip, split=split, dataset=clip.dataset or folder.name)
                look(clip)
                if self._where.keeps(clip):
                    yield clip

    def _numbers(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        return uniform(ids, "mix", self._seed)

    def _limit(
        self, name: str, ids: NDArray[np.int64], seconds: NDArray[np.float64], number: float, hours: bool
    ) -> None:
        if not hours:
            self._below[name] = number
            return
        numbers = self._numbers(ids)
        order = np.argsort(numbers)
        passed = np.cumsum(seconds[order]) / 3600
        have = float(passed[-1]) if len(passed) else 0.0
        if have < number:
            self.notes.append(
                f"{name} has {have:.2f} h of training clips, fewer than the {number:g} h asked for: all are taken"
            )
            return
        first_left = int(np.searchsorted(passed, number)) + 1
        self._below[name] = float(numbers[order[first_left]]) if first_left < len(order) else 1.0
