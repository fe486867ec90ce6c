"""The page of a job: what it wrote, what its gates refused, where its time went, and clips to look at. It needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peav import html
from peav.atomic import replacing
from peav.data.curation.gallery import clip_style
from peav.engine.job import Job
from peav.engine.probes import ALIKE, Probe
from peav.engine.publish import Published
from peav.engine.report_clips import SHOWN, clips_section
from peav.engine.sketches import DistinctCount
from peav.engine.survey import KindSurvey, Survey
from peav.engine.timing import Timing
from peav.types import CAPTION_TYPES

_REASONS = 20


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
        page = render(job, published, timing, probes, clips_section(job, samples, published.survey))
        partial.write_text(page, encoding="utf-8", errors="replace")
    return path


def render(job: Job, published: Published, timing: Timing, probes: Sequence[Probe], clips: str) -> str:
    """Returns the page; every text that a model or the data gave is escaped.

    Args:
        job: the job.
        published: what was written.
        timing: of the job.
        probes: that were made.
        clips: some of them, as HTML.
    """
    survey = published.survey
    contents = {
        "Captions": _captions(survey),
        "Clips": clips,
        "Refused": _refused(survey),
        "Manifest": _written(published),
        "Failures": _failures(survey),
        "Probes": _probes(probes),
        "Time": _time(timing),
        "Stages": _stages(job),
    }
    sections = [(name.lower(), name, content) for name, content in contents.items() if content]
    about = f"The split{'s' if len(job.spec.splits) > 1 else ''} {', '.join(job.spec.splits)}"
    about += f", clips for which {job.condition.text}." if job.condition.text else ", all clips."
    return html.page(
        f"Captions of {job.spec.data}",
        "".join(html.section(*one) for one in sections),
        footer="Written by peav caption. This file needs no network.",
        head=html.note(about)
        + _headline(published)
        + html.navigation((name, heading) for name, heading, _ in sections),
        style=clip_style(),
    )


def _headline(published: Published) -> str:
    survey = published.survey
    refused = sum(survey.verdicts.values())
    rewritten = sum(count for (_, outcome), count in survey.verdicts.items() if outcome == "rewritten")
    cards = [
        ("clips", f"{survey.clips:,}", ""),
        ("with a new caption", f"{survey.with_text:,}", _percent(survey.with_text, survey.clips)),
        (
            "captions",
            f"{sum(kind.captions for kind in survey.kinds.values()):,}",
            f"{sum(published.captions.values()):,} written into the manifest",
        ),
        ("refused by gates", f"{refused:,}", f"{rewritten:,} of them rewritten"),
        ("failures", f"{sum(survey.failures.values()):,}", "tried again by the next run"),
    ]
    return html.numbers(html.number(label, value, more) for label, value, more in cards)


def _captions(survey: Survey) -> str:
    if not survey.kinds:
        return html.note("No caption was made.")
    rows = []
    kinds = sorted(survey.kinds, key=_place_of_type)
    for kind in kinds:
        for origin, held in (("this job", survey.kinds), ("people", survey.before)):
            if kind in held:
                rows.append((f"{kind}, by {origin}", *_numbers(held[kind])))
    columns = ("captions", "number", "mean words", "vocabulary", "beginnings")
    parts = [_openings(survey, kind) for kind in kinds]
    note = (
        "The vocabulary is the number of different words, the beginnings are different first three words: a collapsed writer shows "
        "there. Where people wrote captions of the same clips, theirs stand beside."
    )
    return html.table(columns, rows) + html.note(note) + f'<div class="tables">{"".join(parts)}</div>'


def _place_of_type(kind: str) -> tuple[int, str]:
    return CAPTION_TYPES.index(kind) if kind in CAPTION_TYPES else len(CAPTION_TYPES), kind


def _numbers(kind: KindSurvey) -> tuple[str, ...]:
    return f"{kind.captions:,}", f"{kind.mean_words:.1f}", _count(kind.vocabulary), _count(kind.different_openings)


def _count(counted: DistinctCount) -> str:
    return f"{len(counted):,}" if counted.exact else f"about {len(counted):,}"


def _openings(survey: Survey, kind: str) -> str:
    """Returns how captions of a type begin; beside it, how often those of people begin so."""
    before = survey.before.get(kind)
    rows = [
        (opening, _percent(share, 1), *([_percent(before.openings.count(opening), before.captions)] if before else []))
        for opening, share in survey.common_openings(kind)
    ]
    return html.table((f"{kind} captions begin with", "share", *(["of people's"] if before else [])), rows)


def _refused(survey: Survey) -> str:
    if not survey.verdicts:
        return html.note("No caption was refused by a gate.")
    gates = sorted({gate for gate, _ in survey.verdicts})
    rows = [(gate, *(f"{survey.verdicts[gate, outcome]:,}" for outcome in ("rewritten", "dropped"))) for gate in gates]
    reasons = [(gate, reason, f"{count:,}") for (gate, reason), count in survey.refusals.most_common(_REASONS)]
    examples = [
        (
            str(item["clip"]),
            f"{item['kind']}: {html.shortened(item['text'], SHOWN)}",
            f"{gate}: {item['reason']}",
            html.shortened(f"rewritten: {item['by']}" if item.get("by") else "dropped", SHOWN),
        )
        for gate in gates
        for item in survey.examples.get(gate, ())
    ]
    return (
        html.table(("gate", "rewritten", "dropped"), rows)
        + html.table(("gate", "because", "captions"), reasons, words=("because",))
        + "<h3>The first of each gate</h3>"
        + html.table(
            ("clip", "refused", "because", "outcome"),
            examples,
            words=("refused", "because", "outcome"),
        )
    )


def _written(published: Published) -> str:
    rows = [(f"{kind} captions", f"{count:,}") for kind, count in published.captions.items()]
    rows += [
        (f"{kind} captions of earlier jobs that stay though their clips are left out", f"{count:,}")
        for kind, count in published.standing.items()
        if count
    ]
    rows += [(f"clips that kept the {kind} captions they had", f"{count:,}") for kind, count in published.kept.items()]
    rows += [(f"earlier {kind} captions withdrawn", f"{n:,}") for kind, n in published.withdrawn.items() if n]
    rows += [(f"left out as {reason}", f"{count:,}") for reason, count in published.dropped.items()]
    rows += [(f"{name} filled in", f"{count:,}") for name, count in published.filled.items()]
    where = "The texts that were left out, and why, are in dropped.jsonl in the folder of the work."
    return html.table(("written into the manifest", "number"), rows) + (html.note(where) if published.dropped else "")


def _failures(survey: Survey) -> str:
    rows = [
        (stage, reason, f"{count:,}", html.shortened(": ".join(survey.first[stage, reason]), SHOWN))
        for (stage, reason), count in survey.reasons.most_common(_REASONS)
    ]
    return html.table(("stage", "reason", "clips", "the first"), rows, words=("reason", "the first")) if rows else ""


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
    note = html.note(
        f"How alike two answers of a stage are, from 0 to 1; {ALIKE} and more is the same. Silent: to silence or a black picture, and to "
        "the clip: low, or the stage is deaf or blind. Another's: to a clip with another's medium, as that to the clip itself: low, and as "
        "that to the other clip: high. Moved: to the clips in another order: high, or the stage mixes them up."
    )
    columns = ("stage", "medium", "clips", "silent", "another's, as itself", "as the other", "moved")
    return note + html.table(columns, rows, words=("medium",)) if rows else ""


def _time(timing: Timing) -> str:
    rows: list[tuple[str, ...]] = [
        (stage, f"{seconds:,.1f}", _percent(seconds, timing.seconds), f"{timing.per_million(seconds):,.1f}")
        for stage, seconds in timing.stages.items()
    ]
    columns: tuple[str, ...] = ("stage", "seconds", "share", "hours per million clips")
    if any(timing.tokens_of(stage) for stage in timing.stages):
        columns = (*columns, "tokens")
        rows = [(*row, timing.tokens_of(row[0])) for row in rows]
    note = html.note(
        f"{timing.sentence()} The hours per million clips are a projection from this job: one process, this machine, clips like these."
    )
    return note + html.table(columns, rows)


def _stages(job: Job) -> str:
    rows = []
    for name, stage in job.pipeline.stages.items():
        models = "; ".join(f"{model} ({licence or 'licence unknown'})" for model, licence in stage.models.items())
        rows.append((name, stage.cls.__name__, stage.key, models))
    return html.table(("stage", "class", "key", "models"), rows, words=("class", "key", "models"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
