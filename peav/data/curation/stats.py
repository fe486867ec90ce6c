"""What a manifest holds, in numbers: one pass over the clips, 16 bytes a distinct id, sound, picture and caption in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from peav.data.curation.counting import FrequentTexts, GroupCounts, LabelCounts, Repeats, Share
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import ABSENT, bytes_group, text_group
from peav.data.manifests.texts import CAPTION_ORIGINS
from peav.fields import order_caption_types
from peav.types import Seconds

#: Lower edges of the bins of durations, in seconds; the last bin has no upper one.
DURATION_EDGES: tuple[Seconds, ...] = (0, 0.5, 1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600)

TOP_PHRASES = 20
TOP_CAPTIONS = 10

#: Captions with more words are counted as having so many.
_MAX_WORDS = 10_000

#: How people read the vocabulary "".
ALL_ELSE_ABSENT = "(all else is absent)"

_RARE = "(a text too rare to be held)"


@dataclass(frozen=True)
class Coverage:
    """How far a caption type covers the clips; each by origin, and `any`.

    Attributes:
        clips: clips that have such a caption.
        captions: such captions.
    """

    clips: dict[str, int]
    captions: dict[str, int]


@dataclass(frozen=True)
class ManifestStats:
    """The numbers of a manifest.

    Attributes:
        clips: all of them.
        hours: their duration.
        parts: clips that are a part of their packed media.
        repeated_ids: ids that two clips have, which must not be.
        domains: by domain, the most hours first; likewise
        datasets: by data set, and
        licences: by licence.
        modalities: clips that have `audio`, `video`, `audio_video`, or `none`.
        captions: coverage by caption type, PE-AV's three first.
        fields: clips that have a field of the user's own kinds, by name.
        without_caption: clips that have none.
        captions_a_clip: mean.
        words_mean: words a caption.
        words_p95: the least number that 95 of 100 captions do not exceed.
        transcripts: clips that have one.
        annotated: clips whose events are known.
        with_events: clips that have one at least.
        events: all that are heard.
        event_kinds: events that are `strong` (with times), `weak` (without) or `absent` (the phrase is not in the clip), and how many of
            the former two are `soft` (their confidence lies between 0 and 1).
        vocabularies: annotated clips and their hours by the closed vocabulary that was annotated; "" where whatever is not among the
            events is absent, `open` where nothing else is known.
        phrases: distinct ones, in any spelling of case, spaces and final punctuation.
        top_phrases: the most frequent, and how often they occur.
        duration_counts: clips in each bin of `DURATION_EDGES`.
        shortest: seconds.
        longest: seconds.
        shared_audio: sounds that several clips have, and how many clips these are.
        shared_video: pictures, likewise.
        repeated_captions: captions that several clips have, and in how many clips they occur.
        top_captions: the most frequent of these, and in how many clips they occur.
    """

    clips: int
    hours: float
    parts: int
    repeated_ids: int
    domains: dict[str, Share]
    datasets: dict[str, Share]
    licences: dict[str, Share]
    modalities: dict[str, int]
    captions: dict[str, Coverage]
    fields: dict[str, int]
    without_caption: int
    captions_a_clip: float
    words_mean: float
    words_p95: int
    transcripts: int
    annotated: int
    with_events: int
    events: int
    event_kinds: dict[str, int]
    vocabularies: dict[str, Share]
    phrases: int
    top_phrases: list[tuple[str, int]]
    duration_counts: list[int]
    shortest: Seconds
    longest: Seconds
    shared_audio: Repeats
    shared_video: Repeats
    repeated_captions: Repeats
    top_captions: list[tuple[str, int]]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON can hold it."""
        return {**asdict(self), "duration_edges": list(DURATION_EDGES)}

    def to_rich(self) -> Group:
        """Returns tables for a terminal."""
        head = Table("clips", "hours", "audio", "video", "both", "annotated", "events", "phrases", "transcripts")
        kinds = self.modalities
        held = (kinds["audio"], kinds["video"], kinds["audio_video"], self.annotated, self.events, self.phrases)
        head.add_row(f"{self.clips:,}", f"{self.hours:.2f}", *(f"{n:,}" for n in (*held, self.transcripts)))
        captions = Table("captions", "clips", "of all", "real", "synthetic", "captions", "real", "synthetic")
        for kind, coverage in self.captions.items():
            clips, texts = coverage.clips, coverage.captions
            numbers = [f"{counts[name]:,}" for counts in (clips, texts) for name in ("any", *CAPTION_ORIGINS)]
            captions.add_row(kind, numbers[0], f"{percent(clips['any'], self.clips)} %", *numbers[1:])
        tables: list[Any] = [head, captions]
        if self.fields:
            own = Table("field", "clips", "of all")
            for name, count in self.fields.items():
                own.add_row(Text(name), f"{count:,}", f"{percent(count, self.clips)} %")
            tables.append(own)
        for name, shares in (("domain", self.domains), ("dataset", self.datasets), ("licence", self.licences)):
            if set(shares) - {""}:
                table = Table(name, "clips", "hours")
                for label, share in shares.items():
                    table.add_row(Text(label or "(none)"), f"{share.clips:,}", f"{share.hours:.2f}")
                tables.append(table)
        if set(self.vocabularies) - {""}:
            table = Table("vocabulary", "annotated clips", "hours")
            for label, share in self.vocabularies.items():
                table.add_row(Text(label or ALL_ELSE_ABSENT), f"{share.clips:,}", f"{share.hours:.2f}")
            tables.append(table)
        durations = Table("seconds", "clips", "of all")
        for label, count in self.duration_bins():
            durations.add_row(label, f"{count:,}", f"{percent(count, self.clips)} %")
        tables.append(durations)
        for name, top in (("phrase", self.top_phrases), ("caption of several clips", self.top_captions)):
            if top:
                table = Table(name, "times")
                for text, count in top:
                    table.add_row(Text(text), f"{count:,}")
                tables.append(table)
        return Group(*tables, *self.sentences())

    def duration_bins(self) -> list[tuple[str, int]]:
        """Returns the bins of durations from the first to the last that is not empty: label and clips."""
        filled = [index for index, count in enumerate(self.duration_counts) if count]
        if not filled:
            return []
        edges = [f"{edge:g}" for edge in DURATION_EDGES]
        labels = [f"{low} to {high}" for low, high in pairwise(edges)] + [f"from {edges[-1]}"]
        chosen = range(filled[0], filled[-1] + 1)
        return [(labels[index], self.duration_counts[index]) for index in chosen]

    def sentences(self) -> list[str]:
        """Returns what is neither a count of clips nor a table."""
        lines = [
            f"{self.captions_a_clip:.2f} captions a clip of {self.words_mean:.1f} words (95 % have at most {self.words_p95}); "
            f"{self.without_caption:,} clips have none.",
            f"{self.with_events:,} of {self.annotated:,} annotated clips have events.",
        ]
        kinds = self.event_kinds
        if kinds["weak"] or kinds["absent"] or kinds["soft"]:
            lines.append(
                f"{kinds['strong']:,} events have times, {kinds['weak']:,} are somewhere in their clip, {kinds['soft']:,} of these have a "
                f"soft label; {kinds['absent']:,} phrases are said to be absent from a clip."
            )
        if self.clips:
            lines.append(
                f"Clips last {self.shortest:.2f} to {self.longest:.2f} s; {self.parts:,} are parts of longer media."
            )
        for what, repeats in (("sounds", self.shared_audio), ("pictures", self.shared_video)):
            if repeats.distinct:
                lines.append(f"{repeats.distinct:,} {what} are shared by {repeats.occurrences:,} clips.")
        if self.repeated_captions.distinct:
            repeats = self.repeated_captions
            lines.append(
                f"{repeats.distinct:,} captions belong to several clips; they occur {repeats.occurrences:,} times."
            )
        if self.repeated_ids:
            lines.append(
                f"{self.repeated_ids:,} ids belong to several clips, which must not be: run `peav data validate`."
            )
        return lines


def percent(part: int, whole: int) -> str:
    """Returns a share in percent, with one digit after the point.

    >>> percent(1, 3), percent(0, 0)
    ('33.3', '0.0')
    """
    return f"{100 * part / max(whole, 1):.1f}"


def manifest_stats(clips: Iterable[Clip]) -> ManifestStats:
    """Counts what clips have, in one pass.

    Args:
        clips: such as a `Manifest`.
    """
    builder = StatsBuilder()
    for clip in clips:
        builder.add(clip)
    return builder.build()


class StatsBuilder:
    """Collects the numbers of clips as they come."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._shortest, self._longest = float("inf"), 0.0
        self._labels = {name: LabelCounts() for name in ("domain", "dataset", "licence")}
        self._covered: Counter[tuple[str, str]] = Counter()
        self._captions: Counter[tuple[str, str]] = Counter()
        self._fields: Counter[str] = Counter()
        self._event_kinds: Counter[str] = Counter()
        self._vocabularies = LabelCounts()
        self._words: Counter[int] = Counter()
        self._durations = [0] * len(DURATION_EDGES)
        self._groups = {name: GroupCounts() for name in ("id", "audio", "video", "caption", "phrase")}
        self._texts = {name: FrequentTexts() for name in ("caption", "phrase")}

    def add(self, clip: Clip) -> None:
        """Counts a clip."""
        held = {
            "clips": True,
            "parts": clip.is_part,
            "audio": clip.has_audio,
            "video": clip.has_video,
            "audio_video": clip.has_audio and clip.has_video,
            "none": not (clip.has_audio or clip.has_video),
            "transcripts": bool(clip.transcript),
            "annotated": clip.events is not None,
            "with_events": not all(event.is_absent for event in clip.events or ()),
            "without_caption": not clip.captions,
        }
        for name in held:
            self._counts[name] += held[name]
        self._seconds += clip.duration
        self._shortest, self._longest = min(self._shortest, clip.duration), max(self._longest, clip.duration)
        self._durations[bisect_right(DURATION_EDGES, clip.duration) - 1] += 1
        for name, labels in self._labels.items():
            labels.add(getattr(clip, name), clip.duration)
        self._groups["id"].add(bytes_group(clip.id.encode()))
        for kind in ("audio", "video"):
            if (group := clip.group(kind)) != ABSENT:
                self._groups[kind].add(group)
        if clip.events is not None:
            self._vocabularies.add(clip.vocabulary, clip.duration)
        for event in clip.events or ():
            self._counts["events"] += not event.is_absent
            self._event_kinds["absent" if event.is_absent else "weak" if event.is_weak else "strong"] += 1
            self._event_kinds["soft"] += event.is_soft
            self._add_text("phrase", event.phrase)
        self._fields.update(clip.own.keys())
        self._add_captions(clip)

    def build(self) -> ManifestStats:
        """Returns the numbers."""
        counts, clips = self._counts, self._counts["clips"]
        num_captions = self._words.total()
        origins = ("any", *CAPTION_ORIGINS)
        return ManifestStats(
            clips=clips,
            hours=self._seconds / 3600,
            parts=counts["parts"],
            repeated_ids=self._groups["id"].repeats().distinct,
            domains=self._labels["domain"].shares(),
            datasets=self._labels["dataset"].shares(),
            licences=self._labels["licence"].shares(),
            modalities={kind: counts[kind] for kind in ("audio", "video", "audio_video", "none")},
            captions={
                kind: Coverage(
                    {origin: self._covered[kind, origin] for origin in origins},
                    {origin: self._captions[kind, origin] for origin in origins},
                )
                for kind in order_caption_types({kind for kind, _ in self._covered})
            },
            fields=dict(sorted(self._fields.items())),
            without_caption=counts["without_caption"],
            captions_a_clip=num_captions / max(clips, 1),
            words_mean=sum(words * count for words, count in self._words.items()) / max(num_captions, 1),
            words_p95=_percentile(self._words, 0.95),
            transcripts=counts["transcripts"],
            annotated=counts["annotated"],
            with_events=counts["with_events"],
            events=counts["events"],
            event_kinds={kind: self._event_kinds[kind] for kind in ("strong", "weak", "absent", "soft")},
            vocabularies=self._vocabularies.shares(),
            phrases=self._groups["phrase"].distinct,
            top_phrases=self._top("phrase", TOP_PHRASES, 1),
            duration_counts=list(self._durations),
            shortest=self._shortest if clips else 0.0,
            longest=self._longest,
            shared_audio=self._groups["audio"].repeats(),
            shared_video=self._groups["video"].repeats(),
            repeated_captions=self._groups["caption"].repeats(),
            top_captions=self._top("caption", TOP_CAPTIONS, 2),
        )

    def _add_captions(self, clip: Clip) -> None:
        seen: set[int] = set()
        for kind, items in clip.captions.items():
            for origin in {caption.origin for caption in items}:
                self._covered[kind, origin] += 1
            self._covered[kind, "any"] += bool(items)
            for caption in items:
                self._captions[kind, caption.origin] += 1
                self._captions[kind, "any"] += 1
                self._words[min(len(caption.text.split()), _MAX_WORDS)] += 1
                if (group := text_group(caption.text)) not in seen:  # a clip that says it twice does not share it
                    seen.add(group)
                    self._add_text("caption", caption.text)

    def _add_text(self, name: str, text: str) -> None:
        group = text_group(text)
        self._groups[name].add(group)
        self._texts[name].add(group, text)

    def _top(self, name: str, number: int, minimum: int) -> list[tuple[str, int]]:
        found = self._groups[name].top(number, minimum)
        texts = self._texts[name]
        return sorted(
            ((texts.get(group) or _RARE, count) for group, count in found), key=lambda item: (-item[1], item[0])
        )


def _percentile(counts: Counter[int], share: float) -> int:
    total, passed = counts.total(), 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= share * total:
            return value
    return 0
