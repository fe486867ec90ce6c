"""The page of a job: what it wrote, what its gates refused, where its time went, and clips to look at. It needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from peav import html
from peav.atomic import replacing
from peav.data.curation.gallery import TileMaker, clip_grid, clip_style, media_of
from peav.data.manifests.clip import Clip
from peav.engine.calibration import sample_clips
from peav.engine.job import Job
from peav.engine.probes import Probe
from peav.engine.publish import Published
from peav.engine.survey import Survey, texts_of_column
from peav.engine.timing import Timing

#: Characters of a text that are shown.
SHOWN = 400


def write_page(
    job: Job, path: Path, published: Published, timing: Timing, probes: Sequence[Probe], samples: int = 12
) -> Path:
    """Writes the page.

    Args:
        job: the job, done.
        path: the HTML file.
        published: what was written.
        timing: of the job.
        probes: that were made.
        samples: clips to show.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        page = render(job, published, timing, probes, _tiles(job, samples))
        partial.write_text(page, encoding="utf-8", errors="replace")
    return path


def render(job: Job, published: Published, timing: Timing, probes: Sequence[Probe], tiles: Sequence[str]) -> str:
    """Returns the page; every text that a model or the data gave is escaped.

    Args:
        job: the job.
        published: what was written.
        timing: of the job.
        probes: that were made.
        tiles: clips, as HTML.
    """
    survey = published.survey
    title = f"Captions of {job.spec.data}"
    sections = {
        "Words": _words(survey),
        "Gates": _gates(survey),
        "Written": _written(published),
        "Failures": _failures(survey),
        "Probes": _probes(probes),
        "Time": _time(timing),
        "Stages": _stages(job),
        "Clips": clip_grid(tiles),
    }
    return html.page(
        title,
        "".join(html.section(name.lower(), name, content) for name, content in sections.items() if content),
        footer="Written by peav caption. This file needs no network.",
        head=_headline(survey),
        style=clip_style(),
    )


def _headline(survey: Survey) -> str:
    refused = sum(survey.verdicts.values())
    rewritten = sum(count for (_, outcome), count in survey.verdicts.items() if outcome == "rewritten")
    cards = [
        ("clips", f"{survey.clips:,}", ""),
        ("with a new caption", f"{survey.with_text:,}", _percent(survey.with_text, survey.clips)),
        ("captions", f"{sum(kind.captions for kind in survey.kinds.values()):,}", ""),
        ("refused by gates", f"{refused:,}", f"{rewritten:,} of them rewritten"),
        ("failures", f"{sum(survey.failures.values()):,}", "tried again by the next run"),
    ]
    return html.numbers(html.number(label, value, more) for label, value, more in cards)


def _words(survey: Survey) -> str:
    if not survey.kinds:
        return html.note("No caption was made.")
    rows = [
        (kind, f"{own.captions:,}", f"{own.mean_words:.1f}", f"{len(own.vocabulary):,}", f"{len(own.openings):,}")
        for kind, own in survey.kinds.items()
    ]
    parts = [html.table(("type", "captions", "words a caption", "different words", "different openings"), rows)]
    for kind in survey.kinds:
        shares = [(opening, f"{share:.1%}") for opening, share in survey.common_openings(kind)]
        parts.append(html.table((f"{kind} captions begin with", "share"), shares))
    return f'<div class="tables">{"".join(parts)}</div>'


def _gates(survey: Survey) -> str:
    if not survey.verdicts:
        return html.note("No caption was refused.")
    gates = sorted({gate for gate, _ in survey.verdicts})
    rows = [(gate, *(f"{survey.verdicts[gate, outcome]:,}" for outcome in ("rewritten", "dropped"))) for gate in gates]
    examples = [
        (gate, str(item["clip"]), f"{item['kind']}: {item['text'][:SHOWN]}", str(item["reason"]), str(item["outcome"]))
        for gate in gates
        for item in survey.examples.get(gate, ())
    ]
    return html.table(("gate", "rewritten", "dropped"), rows) + html.table(
        ("gate", "clip", "refused", "because", "outcome"), examples, words=("clip", "refused", "because", "outcome")
    )


def _written(published: Published) -> str:
    rows = [(f"{kind} captions", f"{count:,}") for kind, count in published.captions.items()]
    rows += [(f"clips that kept the {kind} captions they had", f"{count:,}") for kind, count in published.kept.items()]
    rows += [(f"earlier {kind} captions withdrawn", f"{n:,}") for kind, n in published.withdrawn.items() if n]
    rows += [(f"left out as {reason}", f"{count:,}") for reason, count in published.dropped.items()]
    rows += [(f"{name} filled in", f"{count:,}") for name, count in published.filled.items()]
    return html.table(("written into the manifest", "number"), rows)


def _failures(survey: Survey) -> str:
    rows = [(stage, reason, f"{count:,}") for (stage, reason), count in survey.reasons.most_common(20)]
    return html.table(("stage", "reason", "clips"), rows, words=("reason",)) if rows else ""


def _probes(probes: Sequence[Probe]) -> str:
    rows = [
        (
            probe.stage,
            probe.medium,
            f"{probe.clips}",
            *(_number(v) for v in (probe.blank, probe.own, probe.other, probe.moved)),
        )
        for probe in probes
    ]
    note = (
        "<p class=\"note\">How alike a stage's answers are, from 0 to 1: to silence or black and to the clip itself; to another clip's "
        "medium and to the clip's own, and to the other's; and to the clips in another order.</p>"
    )
    columns = ("stage", "medium", "clips", "blank", "own", "other's", "moved")
    return note + html.table(columns, rows, words=("medium",)) if rows else ""


def _time(timing: Timing) -> str:
    rows = [
        (
            stage,
            f"{seconds:,.1f}",
            _percent(seconds, timing.seconds),
            f"{timing.per_million(seconds):,.1f}",
            timing.tokens_of(stage),
        )
        for stage, seconds in timing.stages.items()
    ]
    note = (
        f'<p class="note">{escape(timing.sentence())} The hours per million clips are a projection from this job: one process, this '
        "machine, clips like these.</p>"
    )
    return note + html.table(("stage", "seconds", "share", "hours per million clips", "tokens"), rows)


def _stages(job: Job) -> str:
    rows = []
    for name, stage in job.pipeline.stages.items():
        models = "; ".join(f"{model} ({licence or 'licence unknown'})" for model, licence in stage.models.items())
        rows.append((name, stage.cls.__name__, stage.key, models))
    return html.table(("stage", "class", "key", "models"), rows, words=("class", "key", "models"))


def _tiles(job: Job, number: int) -> list[str]:
    wanted = {clip.id for clip in sample_clips(job, number, "page")} if number else set()
    maker, tiles = TileMaker(job.spec.data), []
    for part in job.parts if wanted else ():
        for clip, columns, failed in job.results(part):
            if clip.id in wanted and columns is not None:
                tiles.append(_tile(maker, clip, columns, failed))
    return tiles


def _tile(maker: TileMaker, clip: Clip, columns: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    tile = maker.make(clip)
    lines = [
        f'<li><span class="kind">{escape(kind)}, {escape(caption.origin)}:</span> {_text(caption.text)}</li>'
        for kind, items in clip.captions.items()
        for caption in items
    ]
    lines += [
        f'<li><span class="kind">{escape(kind)}, <b>this job</b>:</span> {_text(text)}</li>'
        for kind, text in texts_of_column(columns.get("texts"))
    ]
    for tag in columns.get("tags") or ():
        shown = f"{tag['phrase']} ({tag.get('confidence', '')})"
        lines.append(f'<li><span class="kind">{escape(str(tag["medium"]))} tag:</span> {_text(shown)}</li>')
    for item in columns.get("candidates") or ():
        lines.append(
            f'<li><span class="kind">{escape(str(item.get("by", "")))}:</span> {_text(str(item["text"]))}</li>'
        )
    for verdict in columns.get("verdicts") or ():
        shown = f"{verdict['text'][:SHOWN]} ({verdict['reason']})"
        lines.append(
            f'<li><span class="error">{escape(verdict["outcome"])} by {escape(verdict["gate"])}:</span> {_text(shown)}</li>'
        )
    lines += [
        f'<li><span class="error">{escape(stage)} failed:</span> {_text(reason)}</li>'
        for stage, reason in failed.items()
    ]
    errors = "".join(f'<p class="error">{escape(error)}</p>' for error in tile.errors)
    said = f'<div class="head">{html.text(clip.id)}</div>{errors}<ul>{"".join(lines)}</ul>'
    return f'<div class="clip">{media_of(tile, clip.id)}<div class="said">{said}</div></div>\n'


def _text(text: str) -> str:
    return html.text(html.shortened(text, SHOWN))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
