"""The numbers of a manifest against a slow count of the same clips."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from rich.console import Console

from peav.data.curation.counting import Repeats
from peav.data.curation.stats import DURATION_EDGES, manifest_stats
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import normalize_text
from peav.data.manifests.manifest import open_manifest
from peav.data.manifests.records import Event
from peav.data.manifests.texts import Caption
from peav.types import CAPTION_TYPES
from tests.data.world import make_data

WORDS = ("rain", "wind", "a dog", "barks", "loudly", "[bold]", "$x$")


def some_clips(number: int, seed: int = 0) -> list[Clip]:
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 4))) + rng.choice(["", ".", "  "])

    clips = []
    for index in range(number):
        duration = rng.choice([0.1, 0.5, 1.0, 2.9, 10.0, 61.0, 7200.0])
        captions = {
            kind: tuple(Caption(text(), rng.choice(["real", "synthetic"])) for _ in range(rng.randint(1, 3)))
            for kind in CAPTION_TYPES
            if rng.random() < 0.5
        }
        events = [Event(text(), 0.0, duration) for _ in range(rng.randint(0, 3))]
        audio, video = rng.random() < 0.7, rng.random() < 0.5
        clips.append(
            Clip(
                f"clip-{index}",
                duration,
                captions=captions,
                transcript=rng.choice([None, "la"]),
                events=tuple(events) if rng.random() < 0.6 else None,
                domain=rng.choice(["", "music", "speech"]),
                dataset=rng.choice(["X", "Y"]),
                licence=rng.choice(["CC0", ""]),
                has_audio=audio,
                has_video=video,
                media_duration=duration if rng.random() < 0.8 else duration * 2,
                audio_group=rng.randint(0, 40) if audio else -1,
                video_group=rng.randint(0, 40) if video else -1,
            )
        )
    return clips


@pytest.mark.parametrize("number", [1, 7, 200])
def test_the_numbers_are_those_of_a_slow_count(number: int) -> None:
    clips = some_clips(number, number)
    stats = manifest_stats(iter(clips))
    assert stats.clips == number and stats.repeated_ids == 0
    assert stats.hours == pytest.approx(sum(clip.duration for clip in clips) / 3600)
    assert stats.parts == sum(clip.duration < clip.media_duration for clip in clips)
    for label, shares in (("domain", stats.domains), ("dataset", stats.datasets), ("licence", stats.licences)):
        assert {name: share.clips for name, share in shares.items()} == Counter(getattr(clip, label) for clip in clips)
        for name, share in shares.items():
            hours = sum(clip.duration for clip in clips if getattr(clip, label) == name) / 3600
            assert share.hours == pytest.approx(hours)
        ordered = [share.hours for share in shares.values()]
        assert ordered == sorted(ordered, reverse=True)
    assert stats.modalities == {
        "audio": sum(clip.has_audio for clip in clips),
        "video": sum(clip.has_video for clip in clips),
        "audio_video": sum(clip.has_audio and clip.has_video for clip in clips),
        "none": sum(not clip.has_audio and not clip.has_video for clip in clips),
    }
    for kind, origin in product(CAPTION_TYPES, ("any", "real", "synthetic")):
        held = [[c for c in clip.captions.get(kind, ()) if origin in ("any", c.origin)] for clip in clips]
        assert stats.captions[kind].clips[origin] == sum(map(bool, held))
        assert stats.captions[kind].captions[origin] == sum(map(len, held))
    texts = [caption.text for clip in clips for items in clip.captions.values() for caption in items]
    words = sorted(len(text.split()) for text in texts)
    assert stats.without_caption == sum(not clip.captions for clip in clips)
    assert stats.captions_a_clip == pytest.approx(len(texts) / number)
    if words:
        assert stats.words_mean == pytest.approx(sum(words) / len(words))
        assert stats.words_p95 == words[math.ceil(0.95 * len(words)) - 1]
    annotated = [clip.events for clip in clips if clip.events is not None]
    assert (stats.annotated, stats.with_events) == (len(annotated), sum(map(bool, annotated)))
    phrases = Counter(normalize_text(event.phrase) for events in annotated for event in events)
    assert (stats.events, stats.phrases) == (phrases.total(), len(phrases))
    assert stats.transcripts == sum(clip.transcript is not None for clip in clips)
    for low, high, count in zip(DURATION_EDGES, (*DURATION_EDGES[1:], math.inf), stats.duration_counts, strict=True):
        assert count == sum(low <= clip.duration < high for clip in clips)
    assert sum(stats.duration_counts) == number
    assert (stats.shortest, stats.longest) == (min(c.duration for c in clips), max(c.duration for c in clips))


@pytest.mark.parametrize("number", [7, 200])
def test_what_occurs_more_than_once(number: int) -> None:
    clips = some_clips(number, number)
    stats = manifest_stats(clips)
    for kind, repeats in (("audio", stats.shared_audio), ("video", stats.shared_video)):
        groups = Counter(clip.group(kind) for clip in clips if clip.group(kind) >= 0)
        shared = [count for count in groups.values() if count > 1]
        assert repeats == Repeats(len(shared), sum(shared))
    held = Counter(
        text
        for clip in clips
        for text in {normalize_text(caption.text) for items in clip.captions.values() for caption in items}
    )
    several = {text: count for text, count in held.items() if count > 1}
    assert stats.repeated_captions == Repeats(len(several), sum(several.values()))
    best = sorted(several.values(), reverse=True)[:10]
    assert [count for _, count in stats.top_captions] == best
    assert all(several[normalize_text(text)] == count for text, count in stats.top_captions)
    phrases = Counter(normalize_text(event.phrase) for clip in clips for event in clip.events or ())
    assert [count for _, count in stats.top_phrases] == sorted(phrases.values(), reverse=True)[:20]
    assert all(phrases[normalize_text(text)] == count for text, count in stats.top_phrases)


def test_the_order_of_the_clips_does_not_matter() -> None:
    clips = some_clips(100)
    one, other = manifest_stats(clips).to_json(), manifest_stats(clips[::-1]).to_json()
    for stats in (one, other):  # sums of floats, and the spelling that came first
        for pairs in (stats["top_phrases"], stats["top_captions"]):
            pairs[:] = sorted(count for _, count in pairs)
    assert json.loads(json.dumps(one), parse_float=lambda text: round(float(text), 6)) == json.loads(
        json.dumps(other), parse_float=lambda text: round(float(text), 6)
    )


def test_a_folder_is_counted_from_its_lines(tmp_path: Path) -> None:
    stats = manifest_stats(open_manifest(make_data(tmp_path, clips=10), "train"))
    assert stats.clips == 10 and stats.hours == pytest.approx(3.0 / 3600)
    assert {name: share.clips for name, share in stats.domains.items()} == {"a": 5, "b": 5}
    assert stats.captions["audio"].clips == {"any": 10, "real": 10, "synthetic": 10}


def test_no_clip_gives_zeros_and_tables_all_the_same() -> None:
    stats = manifest_stats([])
    assert stats.clips == 0 and stats.hours == 0 and stats.words_p95 == 0 and stats.top_captions == []
    for found in (stats, manifest_stats(some_clips(50))):
        console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(found.to_rich())
        assert "captions" in console.export_text()
        assert json.loads(json.dumps(found.to_json(), allow_nan=False))["clips"] == found.clips


def test_names_with_brackets_are_shown_as_they_are() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(manifest_stats([Clip("a", 1.0, domain="[red]", licence="[/x]")]).to_rich())
    text = console.export_text()
    assert "[red]" in text and "[/x]" in text
