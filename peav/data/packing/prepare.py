"""`peav prepare SOURCE OUT`: checks media, leaves out what cannot be decoded, and packs the rest.

OUT holds shards/SPLIT/ (LitData, the bytes), manifest/SPLIT.jsonl (Lhotse, everything else), labels.json (where the source has
vocabularies or an ontology), tokenizer.json, rejects.jsonl (what
was left out and why), notes.jsonl (what was kept, but not as given) and prepare.json (counts and settings; written last, so that
its presence says that the rest is whole). Until then it also holds the logs of `peav.data.packing.journal`: a run that was killed, or
found the disk full, goes on where it was when the same command is given again, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from peav.data.locks import locked
from peav.data.manifests.labels import LABELS_FILE, Labels, read_labels, write_labels
from peav.data.manifests.records import Record, Reject, iter_records
from peav.data.media.ffmpeg import FULL_DISK, find_ffmpeg
from peav.data.media.normalize import Normalize
from peav.data.media.stills import Animations
from peav.data.packing.checking import check_records
from peav.data.packing.chunking import ChunkCaptions
from peav.data.packing.jobs import CheckedRecord, Job, PackSettings, Partial, Settled, crashed
from peav.data.packing.journal import EARLIER, JOURNAL, OUTCOMES, LineFile, Outcome, read_journal
from peav.data.packing.listing import list_reader, list_records
from peav.data.packing.packer import Packer, remove_logs
from peav.data.packing.report import (
    PrepareReport,
    Tally,
    log_report,
    read_report,
    verify_and_count,
    write_report,
    write_tokenizer,
)
from peav.data.progress import tracked
from peav.data.readers.base import Reader
from peav.data.stores.shards import CHUNK_BYTES
from peav.data.workers import available_cpus, ends_on_terminate, resilient_map
from peav.fields import Field, build_fields
from peav.types import Seconds

__all__ = ["PrepareError", "PrepareReport", "prepare"]

_log = logging.getLogger(__name__)

_UNFINISHED = ".unfinished"
_LOGS = (OUTCOMES, EARLIER, JOURNAL)
_OUTPUTS = (
    "shards",
    "manifest",
    "features",
    "scratch",
    "tokenizer.json",
    LABELS_FILE,
    "rejects.jsonl",
    "notes.jsonl",
    "prepare.json",
    *_LOGS,
)

#: Records that a worker gets at once.
_GROUP = 8


class PrepareError(RuntimeError):
    """Data that cannot be prepared at all, or an output folder that is in the way."""


def prepare(
    source: str | Path,
    out: str | Path,
    captions: str = "clips.jsonl",
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    min_seconds: Seconds = 0.1,
    max_caption_words: int = 1000,
    check_video: bool = True,
    vocab_size: int = 2048,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = True,
    chunk_seconds: Seconds | None = 30.0,
    chunk_captions: ChunkCaptions = "copy",
    normalize: Normalize | None = None,
    reader: Reader | None = None,
    still_seconds: Seconds = 1.0,
    animations: Animations = "first",
    cover_art: bool = False,
    partial: Partial = "reject",
) -> PrepareReport:
    """Prepares media and captions for training. Killed at any point, it goes on where it was when it is called again.

    Args:
        source: folder that holds the media; paths in the records are relative to it. Symbolic links are followed.
        out: folder to write; made if needed.
        captions: JSONL file of the clips, relative to `source` or absolute. See `peav.data.manifests.records` for its fields.
        workers: processes that check and cut media; the CPUs by default, 0 for none. The result is the same for any number.
        overwrite: replace what an earlier run left in `out`, finished or not.
        strict: stop at the first record or file that cannot be used.
        min_seconds: shorter clips are left out.
        max_caption_words: longer captions are dropped.
        check_video: decode video by the `ffmpeg` command with all errors fatal; the only way to notice damaged frames.
        vocab_size: tokens of the tokenizer trained on the training texts.
        chunk_bytes: size of a shard file in bytes.
        progress: show how far it is: a bar on a terminal, else lines in the log.
        chunk_seconds: recordings that are longer become clips ID#0000, ID#0001, ... of so many seconds; a rest of less than a second is
            dropped, and noted. 0 or None leaves them whole.
        chunk_captions: what becomes of a caption without times when its recording is cut: `copy` gives it to each clip, `drop` to none.
        normalize: re-encode clips to small frames and aligned sound, see `peav.data.media.normalize`; None packs media as they are.
        reader: of a data set in the form in which its authors published it; None reads `captions`.
        still_seconds: duration of a clip that is nothing but a still picture, where its record has none; beside sound a still lasts
            as long as the sound.
        animations: what is taken of GIF, APNG and animated WebP: the `first` picture, or `all` as a video.
        cover_art: take the cover of a file of sound as its picture.
        partial: what becomes of a clip of which a medium cannot be read, and another can: `reject` leaves it out, `keep` keeps it
            without that medium, and notes it. A file that is not there is a reject either way.

    Returns:
        Counts, and the first of what was left out.

    Raises:
        PrepareError: if no clip could be used, if `out` holds something else, if `strict` and a file is bad, or if the disk is full.
        LabelsError: if `labels.json` of the source cannot be used.
        FileNotFoundError: if there are no records.
        FolderInUse: if another process is at work in `out`.
    """
    began = time.perf_counter()
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}: give the folder that holds the media and {captions}")
    pack = PackSettings(
        min_seconds,
        check_video,
        chunk_seconds or 0.0,
        chunk_captions,
        normalize,
        still_seconds,
        animations,
        cover_art,
        partial,
    )
    settings: dict[str, Any] = {
        **asdict(pack),
        "captions": captions if reader is None else None,
        "reader": None if reader is None else repr_reader(reader),
        "max_caption_words": max_caption_words,
        "vocab_size": vocab_size,
        "chunk_bytes": chunk_bytes,
    }
    labels = read_labels(source) if reader is None else reader.labels(source)
    if labels:
        settings["labels"] = labels.digest
    file = source / captions
    listing = list_records(source, file, settings) if reader is None else list_reader(source, settings, exclude=out)
    if not overwrite:
        done = _finished(out, listing.digest)
        if done is not None:
            _log.info("%s is prepared already from the same source and settings: nothing to do", out)
            return done
    if check_video or normalize is not None or listing.spans or cover_art:
        find_ffmpeg()
    workers = available_cpus() if workers is None else workers
    run = _Run(
        source,
        out,
        source / captions,
        listing.records,
        pack,
        workers,
        strict,
        progress,
        reader,
        max_caption_words,
        build_fields(listing.fields),
        labels,
    )
    with _full_disk_explained(out), locked(out), ends_on_terminate():
        _start(out, listing.digest, overwrite)
        rows, tally = run.pack(chunk_bytes)
        if not rows:
            raise PrepareError(_nothing_left(file if reader is None else source, tally))
        with tracked("verify", sum(rows.values()), progress) as advance:
            report = verify_and_count(out, rows, advance)
        if not write_tokenizer(out, "train", vocab_size):
            _log.warning("the training clips have no text: no tokenizer.json is written")
        write_labels(out, labels)
        report = replace(
            report,
            rejected=tally.rejected,
            rejects=tally.rejects,
            reasons=dict(tally.reasons),
            noted=tally.noted,
            notes=tally.notes,
            partial=dict(tally.partial),
            coverage={} if reader is None else {run.dataset: (tally.records - tally.missing, tally.records)},
            seconds=time.perf_counter() - began,
        )
        write_report(out, report, listing.digest, settings, source)
        remove_logs(out)
        (out / _UNFINISHED).unlink()
    log_report(report)
    return report


def repr_reader(reader: Reader) -> str:
    """Returns what tells one reader, with its choices, from another."""
    # A reader within a reader would be told by its place in memory, which is another one the next time.
    choices = {name: repr_reader(value) if isinstance(value, Reader) else value for name, value in vars(reader).items()}
    return f"{type(reader).__module__}.{type(reader).__qualname__} {sorted(choices.items())}"


@dataclass
class _Run:
    """One run: from records to packed clips.

    Attributes:
        dataset: what the coverage is reported under.
    """

    source: Path
    out: Path
    captions: Path
    total: int | None
    settings: PackSettings
    workers: int
    strict: bool
    progress: bool
    reader: Reader | None
    max_caption_words: int
    fields: dict[str, Field]
    labels: Labels
    dataset: str = ""

    def pack(self, chunk_bytes: int) -> tuple[dict[str, int], Tally]:
        """Packs all records; returns clips by split, and what was left out."""
        self.dataset = type(self.reader).__name__
        self.unpacked, self.scratch = self.out / "scratch" / "unpacked", self.out / "scratch" / "cut"
        shutil.rmtree(self.out / "scratch", ignore_errors=True)
        self.unpacked.mkdir(parents=True)
        self.scratch.mkdir()
        tally = Tally()
        with ExitStack() as stack:
            packer = Packer(self.out, chunk_bytes, bool(self.fields))
            stack.callback(lambda: _quietly(packer.abort))
            rejects = LineFile(self.out / "rejects.jsonl", 0)
            stack.callback(rejects.close)
            notes = LineFile(self.out / "notes.jsonl", 0)
            stack.callback(notes.close)
            advance = stack.enter_context(tracked("prepare", self.total, self.progress))
            groups = self._groups(packer)
            # One process for one group would cost seconds to start and save nothing.
            first = list(islice(groups, 2))
            workers = self.workers if len(first) > 1 else 0
            results = resilient_map(
                check_records, chain(first, groups), workers, crashed, preload=["peav.data.packing.checking"]
            )
            for group in stack.enter_context(closing(results)):
                for item in group:
                    outcome = self._take(packer, item)
                    tally.add(outcome.rejects, outcome.notes)
                    for reject in outcome.rejects:
                        rejects.append(json.dumps(asdict(reject), ensure_ascii=False))
                        if self.strict:
                            raise PrepareError(f"line {reject.line}, {reject.file}: {reject.reason}")
                    for note in outcome.notes:
                        notes.append(json.dumps(asdict(note), ensure_ascii=False))
                    advance()
            packer.close()
            rows = packer.rows
        shutil.rmtree(self.out / "scratch")
        return rows, tally

    def _take(self, packer: Packer, item: CheckedRecord | Settled) -> Outcome:
        if isinstance(item, Settled):
            packer.keep(item.outcome)
            return item.outcome
        outcome = packer.add(item.record.id, item.clips)
        for clip in item.clips:
            for path in clip.scratch:
                path.unlink(missing_ok=True)
        _delete_temporary(item.record)
        return outcome

    def _groups(self, packer: Packer) -> Iterator[list[Job | Settled]]:
        """Yields what the workers get: a few jobs, and any settled records between them, but not too many."""
        total = self.total
        size = _GROUP if total is None else max(1, min(_GROUP, total // max(1, self.workers)))
        group: list[Job | Settled] = []
        jobs = 0
        for index, item in enumerate(self._items(packer.will_settle)):
            outcome = packer.settled()
            if isinstance(item, Record):
                self.dataset = item.dataset or self.dataset
            if outcome is not None:
                group.append(Settled(outcome))
                if isinstance(item, Record):
                    _delete_temporary(item)
            elif isinstance(item, Reject):
                group.append(Settled(Outcome(item.id or "", rejects=(item,))))
            else:
                group.append(Job(index, item, item.root or self.source, self.scratch, self.settings, self.fields))
                jobs += 1
            if jobs >= size or len(group) >= 256:
                yield group
                group, jobs = [], 0
        if group:
            yield group

    def _items(self, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        if self.reader is None:
            items = iter_records(self.captions, self.max_caption_words)
        else:
            items = self.reader.read(self.source, self.unpacked, skip)
        for item in items:
            if isinstance(item, Record) and (why := self.labels.problem(item.vocabulary, item.events or ())):
                _delete_temporary(item)
                item = Reject(item.id, next(iter(item.files.values()), None), item.line, why)
            yield item


def _delete_temporary(record: Record) -> None:
    if record.temporary and record.root is not None:
        for file in record.files.values():
            (record.root / file).unlink(missing_ok=True)


def _finished(out: Path, digest: str) -> PrepareReport | None:
    """Returns the report of an earlier run with the same digest; None when there is work to do."""
    if not out.exists() or not any(out.iterdir()):
        return None
    if (out / "prepare.json").is_file():
        try:
            held, report = read_report(out)
        except ValueError as error:
            raise PrepareError(str(error)) from None
        if held != digest:
            raise PrepareError(
                f"{out} was prepared from another source, other files or other settings: "
                "give another folder, or --overwrite true to replace it"
            )
        remove_logs(out)
        (out / _UNFINISHED).unlink(missing_ok=True)
        return replace(report, done_before=True)
    if not (out / _UNFINISHED).is_file():
        raise PrepareError(f"{out} is not empty and was not made by `peav prepare`: give another folder")
    return None


def _start(out: Path, digest: str, overwrite: bool) -> None:
    """Goes on in a folder that an earlier run left unfinished, or begins anew where there is nothing to go on with."""
    mark = out / _UNFINISHED
    held = mark.read_text() if mark.exists() else ""
    packed = sum(durable.rows for durable in read_journal(out).values())
    if not overwrite and held == digest:
        _log.info("%s was left unfinished by an earlier run: going on after %d packed clips", out, packed)
        return
    if not overwrite and packed:
        raise PrepareError(
            f"{out} was left unfinished, with {packed:,} clips packed, by a run with another source, other files or other "
            "settings: give those again, another folder, or --overwrite true to begin anew"
        )
    for name in _OUTPUTS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    mark.write_text(digest)


@contextmanager
def _full_disk_explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise PrepareError(
            f"the disk is full: {out} cannot be written ({error.strerror}); free space and run the same command again: it goes on "
            "where it was"
        ) from error


def _quietly(close: Callable[[], None]) -> None:
    with suppress(OSError):
        close()


def _nothing_left(path: Path, tally: Tally) -> str:
    if not tally.rejected:
        return f"{path} holds no record: nothing to prepare"
    shown = "; ".join(
        f"line {reject.line}: {reject.file + ': ' if reject.file else ''}{reject.reason}"
        for reject in tally.rejects[:3]
    )
    return (
        f"none of the {tally.records} clips of {path} can be used. The first reasons: {shown}. All are in rejects.jsonl"
    )
