"""After packing: every row is read back, and the clips are counted; what `prepare` says of a folder when it is done."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peav.atomic import replacing
from peav.data.manifests.clip import Clip
from peav.data.manifests.fields import RecordError
from peav.data.manifests.index import IndexBuilder
from peav.data.manifests.manifest import iter_manifest, manifest_path, shards_path
from peav.data.manifests.records import Note, Reject
from peav.data.packing.tokenizer import train_tokenizer
from peav.data.stores.samples import ShardError
from peav.data.stores.shards import verify_shards, write_json
from peav.types import Seconds

_log = logging.getLogger(__name__)

#: Rejects and notes that a report itself holds; all are in rejects.jsonl and notes.jsonl.
REPORTED = 100

#: Kinds of reasons that are counted; further ones are counted together.
_KINDS = 100

#: Texts that a tokenizer is trained on at most.
_TOKENIZER_TEXTS = 1_000_000


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` made.

    Attributes:
        out: the prepared folder.
        clips: clips packed, by split.
        domains: clips by domain.
        modalities: clips that have `audio`, `video` and `audio_video`.
        captions: clips that have a caption, by type.
        fields: clips that have a field of the user's own kinds, by name.
        annotated: clips with annotated events.
        events: annotated events that are heard.
        hours: total duration.
        rejected: how many were left out.
        rejects: the first of them, and why; all are in rejects.jsonl.
        reasons: how many were left out, by kind of reason.
        noted: how many notes there are.
        notes: the first, about what was kept, but not as given; all are in notes.jsonl.
        partial: clips that were kept without a medium which could not be read, by that medium.
        coverage: clips whose media are there, and all clips, by data set; empty without a reader.
        done_before: whether the folder was finished already and nothing was done.
        seconds: wall time of the last run.
    """

    out: str
    clips: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    modalities: dict[str, int] = field(default_factory=dict)
    captions: dict[str, int] = field(default_factory=dict)
    fields: dict[str, int] = field(default_factory=dict)
    annotated: int = 0
    events: int = 0
    hours: float = 0.0
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    noted: int = 0
    notes: list[Note] = field(default_factory=list)
    partial: dict[str, int] = field(default_factory=dict)
    coverage: dict[str, tuple[int, int]] = field(default_factory=dict)
    done_before: bool = False
    seconds: Seconds = 0.0


@dataclass
class Tally:
    """Counts of what was left out or noted, in the order of the records."""

    records: int = 0
    missing: int = 0
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    noted: int = 0
    notes: list[Note] = field(default_factory=list)
    partial: Counter[str] = field(default_factory=Counter)

    def add(self, rejects: Sequence[Reject], notes: Sequence[Note]) -> None:
        """Counts what came of a record."""
        self.records += 1
        self.missing += any(reject.missing for reject in rejects)
        self.rejected += len(rejects)
        self.noted += len(notes)
        self.rejects += rejects[: REPORTED - len(self.rejects)]
        self.notes += notes[: REPORTED - len(self.notes)]
        self.partial.update(note.lost for note in notes if note.lost)
        for reject in rejects:
            kind = re.sub(r"\d+(\.\d+)?", "N", reject.reason.split(":")[0])  # times and counts make no kind
            self.reasons[kind if kind in self.reasons or len(self.reasons) < _KINDS else "other reasons"] += 1


def verify_and_count(out: Path, rows: dict[str, int], advance: Callable[[], None] = lambda: None) -> PrepareReport:
    """Reads every row back, compares ids and checksums with the manifests, and counts what the clips have.

    Args:
        out: the folder.
        rows: clips that were packed, by split.
        advance: is called after each clip.

    Raises:
        ShardError: if anything differs, or two clips have the same id.
    """
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("domains", "modalities", "captions", "fields", "single")
    }
    hours = 0.0

    def count(split: str, index: IndexBuilder) -> Iterator[tuple[int, str, int]]:
        nonlocal hours
        for _, clip in iter_manifest(manifest_path(out, split)):
            index.add(clip, 0)
            _count(clip, counts)
            hours += clip.duration / 3600
            yield clip.row, clip.id, clip.crc32

    for split, number in rows.items():
        index = IndexBuilder()
        verify_shards(shards_path(out, split), count(split, index), number, advance)
        try:
            index.build()
        except RecordError as error:
            raise ShardError(f"{manifest_path(out, split)}: {error}") from None
    return PrepareReport(
        out=str(out),
        clips=rows,
        domains=dict(counts["domains"]),
        modalities={kind: counts["modalities"][kind] for kind in ("audio", "video", "audio_video")},
        captions=dict(counts["captions"]),
        fields=dict(counts["fields"]),
        annotated=counts["single"]["annotated"],
        events=counts["single"]["events"],
        hours=hours,
    )


def _count(clip: Clip, counts: dict[str, Counter[str]]) -> None:
    both = clip.has_audio and clip.has_video
    counts["domains"][clip.domain] += 1
    counts["modalities"].update({"audio": clip.has_audio, "video": clip.has_video, "audio_video": both})
    counts["captions"].update(clip.captions.keys())
    counts["fields"].update(clip.own.keys())
    counts["single"].update(
        {"annotated": clip.events is not None, "events": sum(not event.is_absent for event in clip.events or ())}
    )


def write_tokenizer(out: Path, split: str, vocab_size: int, most: int = _TOKENIZER_TEXTS) -> bool:
    """Trains a tokenizer on the texts of a split, evenly chosen where there are very many.

    Args:
        out: the folder; tokenizer.json is written there.
        split: whose texts.
        vocab_size: tokens.
        most: texts to train on at most.

    Returns:
        Whether there were texts.

    Raises:
        OSError: if the disk is full.
    """
    path = manifest_path(out, split)
    total = sum(len(_texts(clip)) for _, clip in iter_manifest(path)) if path.exists() else 0
    if not total:
        return False
    stride = -(-total // most)
    texts = (text for _, clip in iter_manifest(path) for text in _texts(clip))
    tokenizer = train_tokenizer((text for number, text in enumerate(texts) if number % stride == 0), vocab_size)
    with replacing(out / "tokenizer.json") as partial:
        partial.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return True


def _texts(clip: Clip) -> list[str]:
    texts = [text for items in clip.texts.values() for text in items]
    texts += [clip.transcript] if clip.transcript else []
    return texts + [event.phrase for event in clip.events or ()]


def write_report(out: Path, report: PrepareReport, digest: str, settings: dict[str, Any], source: Path) -> None:
    """Writes prepare.json, whose presence says that the folder is whole."""
    data = {
        "digest": digest,
        "source": str(source),
        "settings": settings,
        "versions": {name: version(name) for name in ("torchcodec", "litdata", "lhotse", "tokenizers")},
        "report": asdict(report),
    }
    write_json(out / "prepare.json", data)


def read_report(out: Path) -> tuple[str, PrepareReport]:
    """Returns the digest and the report of a finished folder.

    Raises:
        ValueError: if prepare.json is damaged.
    """
    path = out / "prepare.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        report = PrepareReport(**data["report"])
        rejects = [Reject(**reject) for reject in data["report"]["rejects"]]
        notes = [Note(**note) for note in data["report"]["notes"]]
        coverage = {name: (have, total) for name, (have, total) in report.coverage.items()}
        return data["digest"], replace(report, out=str(out), rejects=rejects, notes=notes, coverage=coverage)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or of another version ({error}); give --overwrite true") from None


def describe_coverage(report: PrepareReport) -> list[str]:
    """Returns a sentence for each data set on how many of its clips have their media.

    >>> describe_coverage(PrepareReport("out", coverage={"AudioCaps": (812, 1000)}))
    ['AudioCaps: 812 of 1,000 clips have their media (81.2 %)']
    """
    return [
        f"{name}: {have:,} of {total:,} clips have their media ({100 * have / max(total, 1):.1f} %)"
        for name, (have, total) in report.coverage.items()
    ]


def describe_partial(report: PrepareReport) -> list[str]:
    """Returns a sentence for each medium that clips were kept without.

    >>> describe_partial(PrepareReport("out", partial={"video": 2}))
    ['2 clips kept without their video, which cannot be read: out/notes.jsonl has the reasons']
    """
    return [
        f"{count:,} clips kept without their {kind}, which cannot be read: {Path(report.out) / 'notes.jsonl'} has the reasons"
        for kind, count in sorted(report.partial.items())
    ]


def log_report(report: PrepareReport) -> None:
    """Writes what was made to the log."""
    total = sum(report.clips.values())
    splits = ", ".join(f"{count} {split}" for split, count in report.clips.items())
    _log.info(
        "packed %d clips (%s), %.2f hours, in %.1f s into %s", total, splits, report.hours, report.seconds, report.out
    )
    for line in describe_coverage(report):
        _log.info("%s", line)
    if report.rejected:
        kinds = Counter(report.reasons).most_common(5)
        listed = "; ".join(f"{count} x {kind}" for kind, count in kinds)
        _log.warning("left out %d clips (%s); see %s", report.rejected, listed, Path(report.out) / "rejects.jsonl")
    for line in describe_partial(report):
        _log.warning("%s", line)
    if report.noted:
        _log.warning("%d notes on clips that were kept; see %s", report.noted, Path(report.out) / "notes.jsonl")
