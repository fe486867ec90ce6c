"""The last step: what a job made goes into the manifest, with a line of provenance for each caption. The media stay as they are."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from peav.atomic import replacing
from peav.data.curation.clip_duplicates import SemanticOptions
from peav.data.locks import locked
from peav.data.manifests.clip import Clip
from peav.data.manifests.fields import RecordError
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.manifest import write_manifest
from peav.data.manifests.records import OPEN, Event
from peav.data.manifests.texts import Caption, missing_media, parse_captions
from peav.engine.blacklist import left_out, read_for
from peav.engine.job import Job
from peav.engine.rows import OWN_MARK, owned, read_lines
from peav.engine.semantic import with_semantic
from peav.engine.stage import EngineError
from peav.engine.survey import Duplicates, LeftOut, MediaGroups, Survey, boilerplate, texts_of_column

#: The most words of a caption that a manifest is given, as `peav prepare` has it.
MAX_WORDS = 1000


@dataclass
class Published:
    """What was written.

    Attributes:
        captions: new ones by type.
        kept: by type, how many clips kept synthetic captions that they had.
        dropped: by reason, captions that the job made and that were not written.
        withdrawn: by type, captions of earlier jobs in whose place this one writes nothing.
        standing: by type, captions of earlier jobs that stay though what this one made of their clips was dropped: without `replace`.
        filled: transcripts, domains and annotations that were written.
        survey: of what the job made.
    """

    captions: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    withdrawn: Counter[str] = field(default_factory=Counter)
    standing: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    survey: Survey = field(default_factory=Survey)


@dataclass(frozen=True)
class PublishOptions:
    """How results are written.

    Attributes:
        replace: whether synthetic captions that clips have, and what an earlier job wrote of transcripts, domains and events, give way;
            captions of an earlier job also where this one has none to put in their place.
            What people wrote never does.
        unique_media: whether a clip whose media another one has gets no caption.
        max_copies: captions of a type that may say the same; 0 for any number.
        max_opening_share: of the captions of a type that may begin with the same three words, else nothing is written.
        min_opening_captions: of a type, from which on that is looked at.
        blacklist: clips that get no caption: a file or a folder, see `peav.engine.blacklist.Blacklist`; "" for none.
        near_duplicates: whether a clip that is nearly an earlier one gets none, where the stage `Fingerprint` looked at them.
        semantic: vectors by which semantic duplicates are found, which get none; None for no such look.
    """

    replace: bool = False
    unique_media: bool = True
    max_copies: int = 0
    max_opening_share: float = 0.5
    min_opening_captions: int = 100
    blacklist: str = ""
    near_duplicates: bool = True
    semantic: SemanticOptions | None = None

    def __post_init__(self) -> None:
        if self.max_copies < 0:
            raise ValueError(f"max_copies must be 0, for any number, or more, got {self.max_copies}")
        if not 0 < self.max_opening_share <= 1:
            raise ValueError(f"max_opening_share is a share above 0, and up to 1, got {self.max_opening_share:g}")


def survey_of(job: Job, groups: MediaGroups) -> Survey:
    """Counts what a job made, and takes down the media of its clips."""
    survey = Survey()
    for part in job.parts:
        for clip, columns, failed in job.results(part):
            if columns is not None:
                survey.add(clip, columns, failed)
                groups.add(clip)
    return survey


def publish(job: Job, options: PublishOptions) -> Published:
    """Writes the results of a job into its manifests.

    Args:
        job: all of whose parts are done.
        options: how.

    Raises:
        EngineError: if the manifests hold other clips than those of the job, or too many captions begin alike.
        FolderInUse: if another process is at work in the folder.
        OSError: if the disk is full; the manifest stays as it was.
    """
    with _only_one(job.work / "publish.lock"), locked(Path(job.spec.data)):
        job.check_manifests()
        fresh = Job(job.spec)  # its lines are those that the manifest has now
        _check_keys(job, fresh)
        groups = MediaGroups()
        report = Published(survey=survey_of(fresh, groups))
        opening = boilerplate(report.survey, options.max_opening_share, options.min_opening_captions)
        if opening is not None:
            raise EngineError(
                f"{opening}: nothing was written into the manifest, and what was computed is kept. Change the prompt or the templates, or "
                "raise --max_opening_share"
            )
        repeated = groups.repeated()
        blacklist = read_for(fresh, options.blacklist)
        excluded: Mapping[str, LeftOut] = left_out(fresh, blacklist, options.near_duplicates, repeated)
        media = repeated if options.unique_media else None
        if options.semantic is not None:
            before = Duplicates(media, options.max_copies, excluded)
            excluded = with_semantic(
                fresh, options.semantic, excluded, lambda clip, texts: bool(_writable(clip, texts, before))
            )
        duplicates = Duplicates(media, options.max_copies, excluded)
        with _lines(job.work / "dropped.jsonl") as dropped:
            for split, manifest in fresh.manifests.items():
                with _lines(Path(job.spec.data) / "provenance" / f"{split}.jsonl") as provenance:
                    write_manifest(
                        manifest.path, _edited(fresh, split, options, duplicates, report, provenance, dropped)
                    )
    return report


def _check_keys(job: Job, fresh: Job) -> None:
    """Sees that results of the stages still lie where they were looked for when the run began.

    Raises:
        EngineError: if what they depend on changed meanwhile.
    """
    for name, stage in fresh.pipeline.stages.items():
        if stage.key != job.pipeline.stages[name].key:
            raise EngineError(
                f"what the results of the stage {name} depend on changed during the run, such as the weights of its model: nothing was "
                f"written into the manifest. Run the command again; if it says this again, {stage.cls.__name__}.identity, or that of a "
                "stage that it reads, does not return the same twice"
            )


def _edited(
    job: Job,
    split: str,
    options: PublishOptions,
    duplicates: Duplicates,
    report: Published,
    provenance: TextIO,
    dropped: TextIO,
) -> Iterator[Clip]:
    earlier = _ProvenanceReader(Path(job.spec.data) / "provenance" / f"{split}.jsonl", job.manifests[split].index.id)
    stages = job.pipeline.provenance("texts")
    said = {
        "key": stages[-1].key if stages else "",
        "stages": {stage.name: stage.key for stage in stages},
        "models": {name: licence or "unknown" for stage in stages for name, licence in stage.models.items()},
    }
    for part in job.parts:
        if part.split != split:
            continue
        for clip, columns, _ in job.results(part):
            before = earlier.of(clip.id)
            if columns is None:
                provenance.writelines(before)
                yield clip
                continue
            own = {_key_of(old) for old in before}
            edited, new = _edit(clip, columns, options, duplicates, report, dropped, own)
            here = {(kind, caption.text) for kind, items in edited.captions.items() for caption in items}
            # Of what an earlier job wrote and is still there.
            provenance.writelines(old for old in before if _key_of(old) in here and _key_of(old) not in new)
            for kind, text in new:
                verdicts = [v for v in columns.get("verdicts") or () if v["kind"] == kind]
                line: dict[str, Any] = {"id": clip.id, "type": kind, "text": text, **said, "scores": _scores(columns)}
                line["gates"] = [{"gate": v["gate"], "reason": v["reason"], "outcome": v["outcome"]} for v in verdicts]
                provenance.write(json.dumps(line, ensure_ascii=False) + "\n")
            yield edited


def _edit(
    clip: Clip,
    columns: Mapping[str, Any],
    options: PublishOptions,
    duplicates: Duplicates,
    report: Published,
    dropped: TextIO,
    own: Set[tuple[str, str]],
) -> tuple[Clip, list[tuple[str, str]]]:
    """Returns the clip as the manifest has it from now on, and its new captions by type and text; `own` are those of earlier jobs."""
    made = list(texts_of_column(columns.get("texts")))
    lost, excluded = duplicates.judge(clip, made), duplicates.excluded.get(clip.id)
    wanted: dict[str, list[str]] = {}
    for kind, text in made:
        reason = lost.get((kind, text)) or _unwritable(clip, kind, text)
        if reason is None:
            wanted.setdefault(kind, []).append(text)
        else:
            what = excluded.what if excluded else "duplicate" if (kind, text) in lost else "unwritable"
            report.dropped[what] += 1
            line: dict[str, Any] = {"id": clip.id, "type": kind, "text": text[:500], "reason": reason}
            if excluded and excluded.stays:
                line["stays"] = excluded.stays
            if excluded and excluded.similarity is not None:
                line["similarity"] = excluded.similarity
            dropped.write(json.dumps(line, ensure_ascii=True) + "\n")
    captions = dict(clip.captions)
    new: list[tuple[str, str]] = []
    for kind, texts in wanted.items():
        real = [caption for caption in captions.get(kind, ()) if caption.origin == "real"]
        old = [caption for caption in captions.get(kind, ()) if caption.origin != "real"]
        texts = [text for text in dict.fromkeys(texts) if text not in {caption.text for caption in real}]
        if old and not options.replace and {caption.text for caption in old} != set(texts):
            report.kept[kind] += 1
            continue
        if texts:
            captions[kind] = (*real, *(Caption(text, "synthetic") for text in texts))
            new += [(kind, text) for text in texts]
            report.captions[kind] += len(texts)
    if options.replace and columns.get("texts") is not None:
        # What the engine said before and does not say any more gives way, too; of a clip that failed it stays.
        for kind in set(captions) - set(wanted):
            kept = tuple(c for c in captions[kind] if c.origin == "real" or (kind, c.text) not in own)
            report.withdrawn[kind] += len(captions[kind]) - len(kept)
            captions[kind] = kept
        captions = {kind: items for kind, items in captions.items() if items}
    else:
        for kind in {kind for kind, _ in made} - set(wanted):
            report.standing[kind] += sum((kind, caption.text) in own for caption in captions.get(kind, ()))
    return _fill(replace(clip, captions=captions), columns, options, report), new


def _writable(clip: Clip, texts: Sequence[tuple[str, str]], duplicates: Duplicates) -> list[tuple[str, str]]:
    """Returns which of the captions that were made for a clip it gets; asked for the clips in their order."""
    lost = duplicates.judge(clip, texts)
    return [one for one in texts if one not in lost and _unwritable(clip, *one) is None]


def _unwritable(clip: Clip, kind: str, text: str) -> str | None:
    if missing := missing_media(kind, clip.has_audio, clip.has_video):
        return f"the clip has no {missing[0]}"
    notes: list[str] = []
    try:
        parse_captions({kind: [{"text": text, "origin": "synthetic"}]}, MAX_WORDS, notes)
    except RecordError as error:
        return str(error)
    return notes[0] if notes and "type of their own" not in notes[0] else None


def _fill(clip: Clip, columns: Mapping[str, Any], options: PublishOptions, report: Published) -> Clip:
    """Writes transcript, domain and events where the clip has none, or those of an earlier job."""
    wrote = owned(clip)
    changes: dict[str, Any] = {}
    speech = columns.get("speech") or {}
    if speech.get("text") and (clip.transcript is None or ("transcript" in wrote and options.replace)):
        segments = tuple(
            Caption(item["text"], "real", item["start"], min(item["end"], clip.duration))
            for item in speech.get("segments") or ()
            if 0 <= item["start"] < min(item["end"], clip.duration) and item["text"].strip()
        )
        changes |= {"transcript": speech["text"], "segments": segments}
    domain = columns.get("domain")
    if domain and (not clip.domain or ("domain" in wrote and options.replace)):
        changes["domain"] = domain
    events = columns.get("events")
    if events and (clip.events is None or ("events" in wrote and options.replace)):
        found = tuple(
            Event(event["phrase"], event["onset"], event["offset"], confidence=event.get("confidence", 1.0))
            for event in events
            if event["onset"] < event["offset"]
        )
        # What the model did not find may be there all the same.
        changes |= {"events": found, "vocabulary": OPEN}
    if not changes:
        return clip
    filled = [name for name in ("transcript", "domain", "events") if name in changes]
    report.filled.update(filled)
    mark = {"wrote": sorted({*wrote, *filled})}
    return replace(clip, **changes, extra={**clip.extra, OWN_MARK: mark})


def _scores(columns: Mapping[str, Any]) -> dict[str, Any]:
    tags = [[tag["phrase"], tag.get("score"), tag.get("confidence")] for tag in columns.get("tags") or ()]
    candidates = [
        {k: item[k] for k in ("kind", "by", "text", "score", "confidence") if k in item}
        for item in columns.get("candidates") or ()
    ]
    return {name: held for name, held in (("tags", tags), ("candidates", candidates)) if held}


@contextmanager
def _lines(path: Path) -> Iterator[TextIO]:
    """Gives a file of lines that takes its place when it is whole, and not at all where an error comes before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path, durable=True) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        yield stream


class _ProvenanceReader:
    """The lines of an earlier provenance, by clip.

    Mostly they have the order of the manifest, and are read along with it. Where they do not, as after another `peav prepare`, all are
    held that are of clips in the manifest.

    Args:
        path: of the file.
        ids: numbers of the clips, `bytes_group` of their ids, in the order of the manifest.
    """

    def __init__(self, path: Path, ids: NDArray[np.int64]) -> None:
        self._held: dict[str, list[str]] | None = None
        if not _follows(_provenance(path), ids):
            self._held = {}
            known = set(ids.tolist())
            for line in _provenance(path):
                if bytes_group(line["id"].encode("utf-8", "surrogatepass")) in known:
                    self._held.setdefault(line["id"], []).append(_said(line))
        self._lines = _provenance(path)
        self._next = next(self._lines, None)

    def of(self, clip: str) -> list[str]:
        if self._held is not None:
            return self._held.get(clip, [])
        held = []
        while self._next is not None and self._next["id"] == clip:
            held.append(_said(self._next))
            self._next = next(self._lines, None)
        return held


def _provenance(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines that say of which caption they are."""
    return (
        line for line in read_lines(path) if all(isinstance(line.get(name), str) for name in ("id", "type", "text"))
    )


def _said(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _follows(lines: Iterable[Mapping[str, Any]], ids: NDArray[np.int64]) -> bool:
    """Returns whether lines are of clips of a manifest, in its order, all of a clip together."""
    place, last, block = -1, None, 1 << 12
    for line in lines:
        if line["id"] == last:
            continue
        last, group = line["id"], bytes_group(line["id"].encode("utf-8", "surrogatepass"))
        for first in range(place + 1, len(ids), block):
            found = np.flatnonzero(ids[first : first + block] == group)
            if len(found):
                place = first + int(found[0])
                break
        else:
            return False
    return True


def _key_of(line: str) -> tuple[str, str]:
    item = json.loads(line)
    return item["type"], item["text"]


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Lets one process at a time publish; the others wait, and find the work done."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
