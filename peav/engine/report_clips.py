"""Clips on the page of a job: what is seen and heard, what was said of them before, what the job says, and how it came about."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from peav import html
from peav.data.curation.gallery import TileMaker, clip_grid, media_of
from peav.data.curation.sampling import uniform
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.engine.job import Job, Part
from peav.engine.survey import Survey, texts_of_column

#: Characters of a text that are shown.
SHOWN = 400

#: Clips without a caption that are shown, as a share of those with one.
_WITHOUT = 0.25

#: Parts among whose clips those that are shown are chosen, and more only where these hold too few: what is read for the page does not
#: grow with the job.
_PARTS = 20


@dataclass(frozen=True)
class Outcome:
    """What a job made of a clip.

    Attributes:
        clip: as the manifest has it now.
        columns: that the stages made.
        failed: stages that failed, with reasons.
    """

    clip: Clip
    columns: Mapping[str, Any]
    failed: Mapping[str, str]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Type and text of each caption."""
        return list(texts_of_column(self.columns.get("texts")))


def clips_section(job: Job, number: int, survey: Survey) -> str:
    """Returns clips of a job as HTML, chosen by chance: `number` with a caption of the job, and some without.

    Args:
        job: the job, done.
        number: of clips; 0 for none.
        survey: of the job.
    """
    if not number:
        return ""
    shown = {True: number, False: max(1, round(number * _WITHOUT))}
    drawn: dict[bool, list[tuple[float, str, Outcome]]] = {True: [], False: []}
    counts = {True: survey.with_text, False: survey.clips - survey.with_text}
    parts = sorted(job.parts, key=lambda part: bytes_group(f"page/{part.name}".encode()))
    for read, part in enumerate(parts):
        if read >= _PARTS and len(drawn[True]) >= min(number, counts[True]):
            break
        for outcome in _outcomes(job, part):
            has = bool(outcome.texts)
            # The largest numbers stay: heapq gives the smallest away.
            chance = uniform(np.array([bytes_group(outcome.clip.id.encode())]), "page", 0)[0]
            heapq.heappush(drawn[has], (float(chance), outcome.clip.id, outcome))
            if len(drawn[has]) > shown[has]:
                heapq.heappop(drawn[has])
    maker = TileMaker(job.spec.data)
    tiles = [
        _tile(maker, outcome) for has in (True, False) for _, _, outcome in sorted(drawn[has], key=lambda one: one[:2])
    ]
    note = f"{len(drawn[True])} of the {counts[True]:,} clips with a caption of this job"
    if counts[False]:
        note += f", and {len(drawn[False])} of the {counts[False]:,} without one"
    return html.note(f"{note}, by chance.") + clip_grid(tiles) if tiles else ""


def _outcomes(job: Job, part: Part) -> Iterator[Outcome]:
    for clip, columns, failed in job.results(part):
        if columns is not None:
            yield Outcome(clip, columns, failed)


def _tile(maker: TileMaker, outcome: Outcome) -> str:
    clip = outcome.clip
    tile = maker.make(clip)
    facts = html.text(" · ".join([f"{clip.duration:.2f} s", *filter(None, (clip.domain, clip.dataset))]))
    said = f'<div class="head">{html.text(clip.id)}</div><div class="kind">{facts}</div>'
    said += "".join(f'<p class="error">{html.text(error)}</p>' for error in tile.errors)
    new = outcome.texts
    said += _list(
        "This job", [_line(kind, text) for kind, text in new] or [f"<li>{html.text(_why_none(outcome))}</li>"]
    )
    said += _list("Before", [_line(kind, text) for kind, text in _before(clip, new)])
    if how := _how(outcome):
        said += f"<details><summary>How it came about</summary><ul>{''.join(how)}</ul></details>"
    media = media_of(tile, clip.id) or '<div class="blank">neither picture nor sound</div>'
    return f'<div class="clip">{media}<div class="said">{said}</div></div>\n'


def _before(clip: Clip, new: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yields the captions of a clip that are not this job's, by type and origin."""
    for kind, items in clip.captions.items():
        for caption in items:
            if caption.origin == "real" or (kind, caption.text) not in new:
                yield f"{kind}, {caption.origin}", caption.text


def _why_none(outcome: Outcome) -> str:
    if outcome.columns.get("verdicts"):
        return "no caption: what was written was refused"
    stages = [stage for stage, reason in outcome.failed.items() if reason]
    return f"no caption: the stage {stages[0]} failed" if stages else "no caption: nothing was written"


def _how(outcome: Outcome) -> list[str]:
    columns = outcome.columns
    lines = [
        _line(
            f"{tag['medium']} tag", f"{tag['phrase']} ({tag['confidence']})" if tag.get("confidence") else tag["phrase"]
        )
        for tag in columns.get("tags") or ()
    ]
    if heard := (columns.get("speech") or {}).get("text"):
        lines.append(_line("speech", heard))
    for item in columns.get("candidates") or ():
        sure = f" ({item['confidence']})" if item.get("confidence") else ""
        lines.append(_line(str(item.get("by", "")), f"{item['text']}{sure}"))
    for verdict in columns.get("verdicts") or ():
        by = f"{verdict['outcome']} by {verdict['gate']}"
        lines.append(_line(by, f"{html.shortened(verdict['text'], SHOWN)} ({verdict['reason']})", "error"))
    lines += [_line(f"{stage} failed", reason, "error") for stage, reason in outcome.failed.items() if reason]
    return lines


def _line(what: str, said: str, style: str = "kind") -> str:
    return f'<li><span class="{style}">{html.text(what)}:</span> {html.text(html.shortened(said, SHOWN))}</li>'


def _list(heading: str, lines: list[str]) -> str:
    return f"<h4>{heading}</h4><ul>{''.join(lines)}</ul>" if lines else ""
