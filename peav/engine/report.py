"""The page of a job: what it wrote, what its gates refused, where its time went, and clips to look at. It needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from peav.atomic import replacing
from peav.data.curation.gallery import TileMaker
from peav.data.curation.page_style import CSS
from peav.data.curation.player import player
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
    body = "".join(
        _section(heading, content)
        for heading, content in (
            ("Words", _words(survey)),
            ("Gates", _gates(survey)),
            ("Written", _written(published)),
            ("Failures", _failures(survey)),
            ("Probes", _probes(probes)),
            ("Time", _time(timing)),
            ("Stages", _stages(job)),
            ("Clips", f'<div class="clips">{"".join(tiles)}</div>'),
        )
        if content
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; media-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{_headline(survey)}\n</header>\n<main>\n{body}</main>\n"
        "<footer>Written by peav caption. This file needs no network.</footer>\n</body>\n</html>\n"
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
    numbers = "".join(
        f'<div class="number"><div class="label">{label}</div><div class="value">{value}</div><div class="versus">{more}</div></div>'
        for label, value, more in cards
    )
    return f'<div class="numbers">{numbers}</div>'


def _words(survey: Survey) -> str:
    if not survey.kinds:
        return '<p class="note">No caption was made.</p>'
    rows = [
        (kind, f"{own.captions:,}", f"{own.mean_words:.1f}", f"{len(own.vocabulary):,}", f"{len(own.openings):,}")
        for kind, own in survey.kinds.items()
    ]
    parts = [_table(("type", "captions", "words a caption", "different words", "different openings"), rows)]
    for kind in survey.kinds:
        shares = [(opening, f"{share:.1%}") for opening, share in survey.common_openings(kind)]
        parts.append(_table((f"{kind} captions begin with", "share"), shares))
    return f'<div class="tables">{"".join(parts)}</div>'


def _gates(survey: Survey) -> str:
    if not survey.verdicts:
        return '<p class="note">No caption was refused.</p>'
    gates = sorted({gate for gate, _ in survey.verdicts})
    rows = [(gate, *(f"{survey.verdicts[gate, outcome]:,}" for outcome in ("rewritten", "dropped"))) for gate in gates]
    examples = [
        (gate, str(item["clip"]), f"{item['kind']}: {item['text'][:SHOWN]}", str(item["reason"]), str(item["outcome"]))
        for gate in gates
        for item in survey.examples.get(gate, ())
    ]
    return _table(("gate", "rewritten", "dropped"), rows) + _table(
        ("gate", "clip", "refused", "because", "outcome"), examples
    )


def _written(published: Published) -> str:
    rows = [(f"{kind} captions", f"{count:,}") for kind, count in published.captions.items()]
    rows += [(f"clips that kept the {kind} captions they had", f"{count:,}") for kind, count in published.kept.items()]
    rows += [(f"earlier {kind} captions withdrawn", f"{n:,}") for kind, n in published.withdrawn.items() if n]
    rows += [(f"left out as {reason}", f"{count:,}") for reason, count in published.dropped.items()]
    rows += [(f"{name} filled in", f"{count:,}") for name, count in published.filled.items()]
    return _table(("written into the manifest", "number"), rows)


def _failures(survey: Survey) -> str:
    rows = [(stage, reason, f"{count:,}") for (stage, reason), count in survey.reasons.most_common(20)]
    return _table(("stage", "reason", "clips"), rows) if rows else ""


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
    return note + _table(columns, rows) if rows else ""


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
    return note + _table(("stage", "seconds", "share", "hours per million clips", "tokens"), rows)


def _stages(job: Job) -> str:
    rows = []
    for name, stage in job.pipeline.stages.items():
        models = "; ".join(f"{model} ({licence or 'licence unknown'})" for model, licence in stage.models.items())
        rows.append((name, stage.cls.__name__, stage.key, models))
    return _table(("stage", "class", "key", "models"), rows)


def _tiles(job: Job, number: int) -> list[str]:
    wanted = {clip.id for clip in sample_clips(job, number, "page")} if number else set()
    maker, tiles = TileMaker(job.spec.data), []
    for part in job.parts if wanted else ():
        for clip, columns, failed in job.results(part):
            if clip.id in wanted and columns is not None:
                tiles.append(_tile(maker, clip, columns, failed))
    return tiles


def _tile(maker: TileMaker, clip: Clip, columns: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    tile, name = maker.make(clip), escape(clip.id)
    pictures = f'<img class="frame" src="{tile.frame}" alt="The middle frame of clip {name}">' if tile.frame else ""
    if tile.sound is not None:
        pictures += f'<img src="{tile.sound}" alt="Log-mel spectrogram of clip {name}">'
    if tile.heard is not None:
        pictures += player(tile.heard, f"The sound of clip {name}")
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
    return f'<div class="clip">{pictures}<div class="words"><div class="head">{name}</div>{errors}<ul>{"".join(lines)}</ul></div></div>\n'


def _text(text: str) -> str:
    shown = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
    return f"<bdi>{escape(shown)}</bdi>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _section(heading: str, content: str) -> str:
    return f'<section id="{heading.lower()}">\n<h2>{heading}</h2>\n{content}\n</section>\n'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(value)}</td>' for value in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
