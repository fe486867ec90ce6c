"""`peav prepare SOURCE OUT`: checks media, leaves out what cannot be decoded, and packs the rest.

OUT holds shards/SPLIT/ (LitData, the bytes), manifest/SPLIT.jsonl.gz (Lhotse, everything else), tokenizer.json, rejects.jsonl
(what was left out and why) and prepare.json (counts and settings; written last, so that its presence says that the rest is
whole).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lhotse import CutSet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from peav.data.checks import find_ffmpeg
from peav.data.examine import Examined, Job, crashed, examine
from peav.data.manifest import make_cut, manifest_path, shards_path
from peav.data.records import Note, Record, RecordFile, Reject, read_records
from peav.data.shards import CHUNK_BYTES, Sample, ShardWriter, verify_shards
from peav.data.tokenizer import save_tokenizer, train_tokenizer
from peav.data.workers import available_cpus, resilient_map
from peav.types import Seconds

_log = logging.getLogger(__name__)

_FORMAT = 1
_UNFINISHED = ".unfinished"
_OUTPUTS = ("shards", "manifest", "scratch", "tokenizer.json", "rejects.jsonl", "prepare.json", _UNFINISHED)
_GROUP = 8


class PrepareError(RuntimeError):
    """Data that cannot be prepared at all, or an output folder that is in the way."""


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` made.

    Attributes:
        out: the prepared folder.
        clips: clips packed, by split.
        domains: clips by domain.
        modalities: clips that have `audio`, `video` and `audio_video`.
        captions: clips that have a caption, by type.
        annotated: clips with annotated events.
        events: annotated events.
        hours: total duration.
        rejects: what was left out, and why.
        notes: what was kept, but not as given.
        done_before: whether the folder was finished already and nothing was done.
        seconds: wall time.
    """

    out: str
    clips: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    modalities: dict[str, int] = field(default_factory=dict)
    captions: dict[str, int] = field(default_factory=dict)
    annotated: int = 0
    events: int = 0
    hours: float = 0.0
    rejects: list[Reject] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    done_before: bool = False
    seconds: Seconds = 0.0


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
) -> PrepareReport:
    """Prepares media and captions for training.

    Args:
        source: folder that holds the media; paths in the records are relative to it.
        out: folder to write; made if needed.
        captions: JSONL file of the clips, relative to `source` or absolute. See `peav.data.records` for its fields.
        workers: processes that check and cut media; the CPUs by default, 0 for none.
        overwrite: replace what an earlier run left in `out`.
        strict: stop at the first record or file that cannot be used.
        min_seconds: shorter clips are left out.
        max_caption_words: longer captions are dropped.
        check_video: decode video by the `ffmpeg` command with all errors fatal; the only way to notice damaged frames.
        vocab_size: tokens of the tokenizer trained on the training texts.
        chunk_bytes: size of a shard file in bytes.
        progress: show a progress bar.

    Returns:
        Counts, and everything that was left out.

    Raises:
        PrepareError: if no clip could be used, if `out` holds something else, or if `strict` and a file is bad.
        FileNotFoundError: if there are no records.
    """
    began = time.perf_counter()
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}: give the folder that holds the media and {captions}")
    settings: dict[str, Any] = {
        "captions": captions,
        "min_seconds": min_seconds,
        "max_caption_words": max_caption_words,
        "check_video": check_video,
        "vocab_size": vocab_size,
        "chunk_bytes": chunk_bytes,
    }
    records = read_records(source / captions, strict, max_caption_words)
    digest = _digest(source, source / captions, records, settings)
    done = _finished(out, digest, overwrite)
    if done is not None:
        _log.info("%s is prepared already from the same source and settings: nothing to do", out)
        return done
    if check_video or any(record.start or record.duration for record in records.records):
        find_ffmpeg()
    _start(out)
    report = _pack(source, out, records, settings, available_cpus() if workers is None else workers, strict, progress)
    report = _with_seconds(report, time.perf_counter() - began)
    _write_report(out, report, digest, settings, source)
    (out / _UNFINISHED).unlink()
    _summarize(report)
    return report


def _pack(
    source: Path, out: Path, records: RecordFile, settings: dict[str, Any], workers: int, strict: bool, progress: bool
) -> PrepareReport:
    scratch = out / "scratch"
    scratch.mkdir()
    jobs = [
        Job(index, record, source, scratch, settings["min_seconds"], settings["check_video"])
        for index, record in enumerate(records.records)
    ]
    size = max(1, min(_GROUP, len(jobs) // max(1, workers)))
    groups = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    # One process for one group would cost seconds to start and save nothing.
    workers = min(workers, len(groups)) if len(groups) > 1 else 0
    counts = _Counts(list(records.rejects), list(records.notes))
    texts: list[str] = []
    with ExitStack() as stack:
        packer = _Packer(out, settings["chunk_bytes"], stack)
        results = resilient_map(examine, groups, workers, crashed, preload=["peav.data.examine"])
        for outcome in _track([job.record for job in jobs], results, progress):
            if outcome.reject is not None:
                if strict:
                    raise PrepareError(f"line {outcome.reject.line}, {outcome.reject.file}: {outcome.reject.reason}")
                counts.rejects.append(outcome.reject)
                continue
            packer.add(outcome)
            counts.add(outcome)
            if outcome.record.split == "train":
                texts += _texts(outcome.record)
        packer.close()
    shutil.rmtree(scratch)
    rejects = sorted(counts.rejects, key=lambda reject: reject.line)
    _write_lines(out / "rejects.jsonl", (asdict(reject) for reject in rejects))
    if not packer.ids:
        raise PrepareError(_nothing_left(source / settings["captions"], rejects))
    for split, ids in packer.ids.items():
        verify_shards(shards_path(out, split), ids)
    if texts:
        save_tokenizer(train_tokenizer(texts, settings["vocab_size"]), out / "tokenizer.json")
    else:
        _log.warning("the training clips have no text: no tokenizer.json is written")
    return PrepareReport(
        out=str(out),
        clips={split: len(ids) for split, ids in packer.ids.items()},
        domains=dict(counts.domains),
        modalities={kind: counts.modalities[kind] for kind in ("audio", "video", "audio_video")},
        captions=dict(counts.captions),
        annotated=counts.annotated,
        events=counts.events,
        hours=counts.seconds / 3600,
        rejects=rejects,
        notes=counts.notes,
    )


class _Packer:
    """Writes shards and manifests of all splits."""

    def __init__(self, out: Path, chunk_bytes: int, stack: ExitStack) -> None:
        self.ids: dict[str, list[str]] = {}
        self._out = out
        self._chunk_bytes = chunk_bytes
        self._stack = stack
        self._shards: dict[str, ShardWriter] = {}
        self._manifests: dict[str, Any] = {}

    def add(self, outcome: Examined) -> None:
        """Packs a clip."""
        record = outcome.record
        split = record.split
        if split not in self._shards:
            self.ids[split] = []
            self._shards[split] = ShardWriter(shards_path(self._out, split), self._chunk_bytes)
            manifest_path(self._out, split).parent.mkdir(exist_ok=True)
            self._manifests[split] = self._stack.enter_context(CutSet.open_writer(manifest_path(self._out, split)))
        sample = Sample(record.id, **{role: path.read_bytes() for role, path in outcome.paths.items()})
        row = self._shards[split].add(sample)
        cut = make_cut(record, outcome.infos, outcome.duration, outcome.events, sample, row, outcome.source_seconds)
        self._manifests[split].write(cut)
        self.ids[split].append(record.id)
        for path in outcome.scratch:
            path.unlink()

    def close(self) -> None:
        """Finishes all shards."""
        for writer in self._shards.values():
            writer.close()


@dataclass
class _Counts:
    rejects: list[Reject]
    notes: list[Note]
    domains: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)
    annotated: int = 0
    events: int = 0
    seconds: Seconds = 0.0

    def add(self, outcome: Examined) -> None:
        record = outcome.record
        audio = any(info.audio is not None for role, info in outcome.infos.items() if role != "video")
        video = any(info.video is not None for role, info in outcome.infos.items() if role != "audio")
        self.modalities.update({"audio": audio, "video": video, "audio_video": audio and video})
        self.domains[record.domain] += 1
        self.captions.update(record.captions.keys())
        self.annotated += outcome.events is not None
        self.events += len(outcome.events or ())
        self.seconds += outcome.duration
        self.notes += [Note(record.id, record.line, note) for note in outcome.notes]


class _Rate(ProgressColumn):
    """Clips a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} clips/s" if speed else "- clips/s")


def _track(records: list[Record], results: Iterable[list[Examined]], progress: bool) -> Iterator[Examined]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("prepare", total=len(records))
        for group in results:
            yield from group
            bar.advance(task, len(group))


def _texts(record: Record) -> list[str]:
    texts = [text for kind in record.captions.values() for text in kind]
    texts += [record.transcript] if record.transcript else []
    return texts + [event.phrase for event in record.events or ()]


def _digest(source: Path, path: Path, records: RecordFile, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, settings], sort_keys=True).encode())
    digest.update(path.read_bytes())
    for file in sorted({file for record in records.records for file in record.files.values()}):
        try:
            stat = (source / file).stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        except OSError:
            digest.update(f"{file}\0missing\0".encode())
    return digest.hexdigest()


def _finished(out: Path, digest: str, overwrite: bool) -> PrepareReport | None:
    """Returns the report of an earlier run with the same digest; None when there is work to do."""
    if not out.exists() or not any(out.iterdir()) or overwrite:
        return None
    path = out / "prepare.json"
    if path.is_file():
        data = json.loads(path.read_text())
        if data["digest"] != digest:
            raise PrepareError(
                f"{out} was prepared from another source, other files or other settings: "
                "give another folder, or overwrite=True to replace it"
            )
        report = data["report"]
        report["rejects"] = [Reject(**reject) for reject in report["rejects"]]
        report["notes"] = [Note(**note) for note in report["notes"]]
        return PrepareReport(**{**report, "out": str(out), "done_before": True})
    if not (out / _UNFINISHED).is_file():
        raise PrepareError(f"{out} is not empty and was not made by `peav prepare`: give another folder")
    _log.info("%s was left unfinished by an earlier run: starting again", out)
    return None


def _start(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in _OUTPUTS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (out / _UNFINISHED).touch()


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _write_report(out: Path, report: PrepareReport, digest: str, settings: dict[str, Any], source: Path) -> None:
    packages = ("torchcodec", "litdata", "lhotse", "tokenizers")
    data = {
        "digest": digest,
        "source": str(source),
        "settings": settings,
        "versions": {name: version(name) for name in packages},
        "report": asdict(report),
    }
    partial = out / "prepare.json.partial"
    partial.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(out / "prepare.json")


def _with_seconds(report: PrepareReport, seconds: Seconds) -> PrepareReport:
    return PrepareReport(**{**report.__dict__, "seconds": seconds})


def _nothing_left(path: Path, rejects: list[Reject]) -> str:
    if not rejects:
        return f"{path} holds no record: nothing to prepare"
    shown = "; ".join(
        f"line {reject.line}: {reject.file + ': ' if reject.file else ''}{reject.reason}" for reject in rejects[:3]
    )
    return (
        f"none of the {len(rejects)} clips of {path} can be used. The first reasons: {shown}. All are in rejects.jsonl"
    )


def _summarize(report: PrepareReport) -> None:
    total = sum(report.clips.values())
    splits = ", ".join(f"{count} {split}" for split, count in report.clips.items())
    _log.info(
        "packed %d clips (%s), %.2f hours, in %.1f s into %s", total, splits, report.hours, report.seconds, report.out
    )
    if report.rejects:
        kinds = Counter(reject.reason.split(":")[0] for reject in report.rejects)
        listed = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5))
        _log.warning("left out %d clips (%s); see %s", len(report.rejects), listed, Path(report.out) / "rejects.jsonl")
    if report.notes:
        _log.warning("%d notes on clips that were kept; see prepare.json", len(report.notes))
