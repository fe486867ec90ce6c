"""A manifest as one HTML file that needs nothing else (no network, no scripts), and as a picture: its numbers, and clips to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from peav import html
from peav.data.curation.counting import Share
from peav.data.curation.gallery import (
    STYLE,
    ShownClip,
    TileMaker,
    choose_clips,
    clip_grid,
    clip_style,
    figure_uri,
    media_of,
)
from peav.data.curation.player import PLAYED_SECONDS
from peav.data.curation.stats import ALL_ELSE_ABSENT, ManifestStats, manifest_stats, percent
from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import open_manifest
from peav.data.manifests.records import Event
from peav.data.stores.remote import StoreOptions
from peav.plot_style import COLOURS

_LABELS_SHOWN = 12
_EVENTS_SHOWN = 12
_VALUE_SHOWN = 120


@dataclass(frozen=True)
class Page:
    """What `inspect_manifest` wrote, and how many of its clips could not be decoded."""

    html: Path
    png: Path
    clips: int
    failed: int


def inspect_manifest(
    data: str | Path,
    split: str = "train",
    out: str | Path | None = None,
    num_clips: int = 24,
    seed: int = 0,
    options: StoreOptions | None = None,
) -> Page:
    """Writes a page of a manifest, and beside it the overview alone as a PNG.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        split: `train`, `validation` or `test`.
        out: the HTML file; inspect.html in the folder by default.
        num_clips: clips to show, as many of each domain as there are.
        seed: of their choice.
        options: of object stores.

    Raises:
        FileNotFoundError: if the split was not prepared.
        ManifestError: if its manifest cannot be read.
        ValueError: if `num_clips` is below 0.
    """
    if num_clips < 0:
        raise ValueError(f"num_clips must be at least 0, got {num_clips}")
    manifest = open_manifest(data, split, options)
    stats = manifest_stats(manifest)
    maker = TileMaker(str(data), options)
    tiles = [maker.make(manifest[position]) for position in choose_clips(manifest.index, num_clips, seed)]
    path = Path(out) if out is not None else Path(data) / "inspect.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = overview_figure(stats)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=130)
    path.write_text(render(f"{data}: {split}", stats, tiles, figure_uri(figure), seed), encoding="utf-8")
    return Page(path, path.with_suffix(".png"), len(tiles), sum(bool(tile.errors) for tile in tiles))


def overview_figure(stats: ManifestStats) -> Figure:
    """Draws durations, caption coverage by type and origin, hours by domain, and what clips have."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        durations, captions, domains, has = figure.subplots(2, 2).flat
        bins = stats.duration_bins()
        durations.bar(range(len(bins)), [count for _, count in bins], width=0.9, color=COLOURS[0])
        durations.set_xlim(-0.6, max(len(bins), 5) - 0.4)
        durations.grid(axis="y")
        durations.set_xticks(range(len(bins)), [label for label, _ in bins], rotation=30, ha="right", fontsize=8)
        durations.set_title("clips by duration, seconds")
        _draw_coverage(captions, stats)
        shares = list(stats.domains.items())[:_LABELS_SHOWN]
        _draw_bars(domains, [label or "(none)" for label, _ in shares], [share.hours for _, share in shares])
        domains.set_title("hours by domain")
        kinds = ("audio", "video", "audio_video")
        counts = {**{kind: stats.modalities[kind] for kind in kinds}, "transcript": stats.transcripts}
        counts |= {"annotated": stats.annotated, "events": stats.with_events}
        _draw_bars(has, list(counts), [100 * count / max(stats.clips, 1) for count in counts.values()])
        has.set_xlim(0, 100)
        has.set_title("clips that have, %")
        return figure


def _draw_bars(axes: Axes, labels: Sequence[str], values: Sequence[float]) -> None:
    names = [label if len(label) <= 24 else f"{label[:23]}…" for label in labels]
    axes.barh(range(len(values)), values, height=0.7, color=COLOURS[0])
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)
    axes.grid(axis="x")


def _draw_coverage(axes: Axes, stats: ManifestStats) -> None:
    rows = np.arange(len(stats.captions))
    for place, (origin, colour) in enumerate((("any", "#d5dce2"), ("real", COLOURS[0]), ("synthetic", COLOURS[1]))):
        shares = [100 * coverage.clips[origin] / max(stats.clips, 1) for coverage in stats.captions.values()]
        height, shift = (0.8, 0.0) if origin == "any" else (0.3, 0.2 * (2 * place - 3))
        axes.barh(rows + shift, shares, height=height, color=colour, label=origin)
    axes.set_yticks(rows, list(stats.captions))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(axis="x")
    axes.set_title("clips with captions, %")
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=3, columnspacing=1.0, handlelength=1.2)


def render(title: str, stats: ManifestStats, tiles: Sequence[ShownClip], overview: str, seed: int = 0) -> str:
    """Returns the page as an HTML document; every text of the data is escaped.

    Args:
        title: of the page.
        stats: its numbers.
        tiles: clips to show.
        overview: `data:` URI of the picture of the numbers.
        seed: by which the clips were chosen.
    """
    alt = "Bars of clips by duration, caption coverage by type and origin, hours by domain, and what clips have."
    failed = sum(bool(tile.errors) for tile in tiles)
    note = f"{len(tiles)} clips, evenly over the domains, chosen by seed {seed}."
    note += f" {failed} of them could not be decoded." if failed else ""
    body = (
        html.section("overview", "Overview", html.figure(overview, alt) + html.note(" ".join(stats.sentences())))
        + html.section("counts", "Counts", f'<div class="tables">{_tables(stats)}</div>')
        + html.section("clips", "Clips", html.note(note) + clip_grid(map(_tile, tiles)))
    )
    footer = "Written by peav data inspect. This file needs no network."
    return html.page(title, body, footer=footer, head=_headline(stats), style=clip_style())


def _headline(stats: ManifestStats) -> str:
    kinds = stats.modalities
    cards = [
        ("clips", f"{stats.clips:,}", ""),
        ("hours", f"{stats.hours:.2f}", ""),
        ("with audio", f"{percent(kinds['audio'], stats.clips)} %", f"{kinds['audio']:,} clips"),
        ("with video", f"{percent(kinds['video'], stats.clips)} %", f"{kinds['video']:,} clips"),
        (
            "with captions",
            f"{percent(stats.clips - stats.without_caption, stats.clips)} %",
            f"{stats.captions_a_clip:.2f} a clip",
        ),
        ("events", f"{stats.events:,}", f"{stats.phrases:,} phrases"),
    ]
    return html.numbers(html.number(label, value, more) for label, value, more in cards)


def _tables(stats: ManifestStats) -> str:
    origins = ("any", "real", "synthetic")
    held = stats.captions.items()
    parts = [
        html.table(
            ("clips with captions", *origins), ((kind, *(f"{h.clips[name]:,}" for name in origins)) for kind, h in held)
        ),
        html.table(
            ("captions", *origins), ((kind, *(f"{h.captions[name]:,}" for name in origins)) for kind, h in held)
        ),
    ]
    for name, shares in (("domain", stats.domains), ("dataset", stats.datasets), ("licence", stats.licences)):
        parts.append(_shares(name, shares))
    if set(stats.vocabularies) - {""}:
        rows = {label or ALL_ELSE_ABSENT: share for label, share in stats.vocabularies.items()}
        parts.append(_shares("vocabulary of annotated clips", rows))
    if stats.fields:
        parts.append(html.table(("field", "clips"), ((name, f"{count:,}") for name, count in stats.fields.items())))
    for name, top in (("phrase", stats.top_phrases), ("caption of several clips", stats.top_captions)):
        if top:
            parts.append(html.table((name, "times"), ((text, f"{count:,}") for text, count in top)))
    return "".join(parts)


def _shares(name: str, shares: Mapping[str, Share]) -> str:
    rows = [(label or "(none)", f"{share.clips:,}", f"{share.hours:.2f}") for label, share in shares.items()]
    more = len(rows) - _LABELS_SHOWN
    if more > 0:
        rows = [*rows[:_LABELS_SHOWN], (f"and {more} more", "", "")]
    return html.table((name, "clips", "hours"), rows)


def _tile(tile: ShownClip) -> str:
    clip, name = tile.clip, tile.clip.id
    pictures = media_of(tile, name)
    blank = "cannot be decoded" if tile.errors else "neither picture nor sound"
    pictures = pictures or f'<div class="blank">{blank}</div>'
    facts = [f"{clip.duration:.2f} s", *(escape(text) for text in (clip.domain, clip.dataset, clip.licence) if text)]
    if tile.sound is not None and tile.shown < clip.duration:
        facts.append(f"first {tile.shown:g} s shown")
    if tile.heard is not None and clip.duration > PLAYED_SECONDS:
        facts.append(f"first {PLAYED_SECONDS:g} s play")
    words = f'<div class="head">{html.text(name)}</div><div class="kind">{" · ".join(facts)}</div>'
    words += "".join(f'<p class="error">{escape(error)}</p>' for error in tile.errors)
    return f'<div class="clip">{pictures}<div class="said">{words}{_texts(clip)}</div></div>\n'


def _texts(clip: Clip) -> str:
    lines = []
    for kind, captions in clip.captions.items():
        for caption in captions:
            origin = "" if caption.origin == "real" else f' <span class="origin">({escape(caption.origin)})</span>'
            span = (
                "" if caption.start is None else f' <span class="origin">{caption.start:g} to {caption.end:g} s</span>'
            )
            lines.append(f'<li><span class="kind">{escape(kind)}:</span> {html.text(caption.text)}{origin}{span}</li>')
    if clip.transcript:
        lines.append(f'<li><span class="kind">transcript:</span> {html.text(clip.transcript)}</li>')
    for name, held in clip.own.items():
        shown = f"{held['bytes']:,} bytes" if "bytes" in held else json.dumps(held["value"], ensure_ascii=False)
        lines.append(
            f'<li><span class="kind">{escape(name)}:</span> {html.text(html.shortened(shown, _VALUE_SHOWN))}</li>'
        )
    if clip.events is None:
        lines.append('<li class="kind">events: not annotated</li>')
    else:
        events = [f"{html.text(event.phrase)} {_when(event)}" for event in clip.events[:_EVENTS_SHOWN]]
        more = [f"and {len(clip.events) - _EVENTS_SHOWN} more"] if len(clip.events) > _EVENTS_SHOWN else []
        lines.append(f'<li><span class="kind">events:</span> {"; ".join(events + more) or "none"}</li>')
        if clip.vocabulary:
            lines.append(f'<li><span class="kind">vocabulary:</span> {html.text(clip.vocabulary)}</li>')
    return f"<ul>{''.join(lines)}</ul>"


def _when(event: Event) -> str:
    if event.is_absent:
        return "is not in it"
    sure = f" ({event.confidence:.2g})" if event.is_soft else ""
    return f"somewhere{sure}" if event.span is None else f"{event.span[0]:.2f} to {event.span[1]:.2f} s{sure}"
