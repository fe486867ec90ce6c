"""Pieces of HTML that the report is put together from, beside those of all pages (`peav.html`).

Every text is escaped here; what is passed as content is HTML already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from peav import html
from peav.data.curation.player import player
from peav.evaluation.directions import COLUMNS, Evaluation, FrameLevel
from peav.evaluation.examples import Hit, RetrievedExample
from peav.evaluation.media_plots import ClipMedia, frame_uri, mel_uri


def page(title: str, head: str, sections: Iterable[tuple[str, str, str]]) -> str:
    """Returns the whole document.

    Args:
        title: of the page.
        head: what stands under it.
        sections: id, heading and content of each.
    """
    sections = list(sections)
    return html.page(
        title,
        "".join(html.section(*one) for one in sections),
        footer="Written by peav.evaluation.report. This file needs no network.",
        head=head + html.navigation((name, heading) for name, heading, _ in sections),
        style=html.resource("peav.evaluation", "report.css"),
    )


def absent(sentence: str) -> str:
    """Returns the sentence that stands where a part lacks data."""
    return f'<p class="absent">{escape(sentence)}</p>'


def results_table(evaluation: Evaluation) -> str:
    """Returns the table of all directions."""
    rows = ((row[0].replace("->", " → "), *row[1:]) for row in evaluation.rows())
    return html.table(COLUMNS, rows)


def phrases_table(frames: FrameLevel, limit: int = 60) -> str:
    """Returns what was measured of each phrase, AUROC with a bar; the `limit` phrases with the most active seconds."""
    ordered = sorted(frames.per_phrase.items(), key=lambda item: -(item[1]["active_seconds"] or 0))
    columns = _phrase_columns(frames)
    rows = [(phrase, _auroc(row), *(_phrase_cell(name, row) for name in columns)) for phrase, row in ordered[:limit]]
    content = html.table(("phrase", "frame AUROC (bar: from 0.5 to 1)", *columns.values()), rows)
    if any(row.get("tuned") for _, row in ordered):
        content += html.note("* a threshold of the phrase's own, which was tuned and is stored with the model.")
    if len(ordered) > limit:
        content += html.note(f"{len(ordered) - limit} rarer phrases are not listed.")
    return content


def _auroc(row: Mapping[str, float | None]) -> str:
    value = row["auroc"]
    if value is None:
        return "one class only"
    width = round(100 * max(2 * value - 1, 0))
    return html.Html(f'{value:.3f}<span class="bar"><i style="width:{width}%"></i></span>')


def _phrase_columns(frames: FrameLevel) -> dict[str, str]:
    """Returns the headings of what was measured of phrases, by its name in `FrameLevel.per_phrase`."""
    columns = {
        "num_clips": "clips",
        "active_seconds": "active seconds",
        "num_events": "events",
        "psds1": "area under its PSDS1 ROC",
        "psds1_filtered": "area under its PSDS1 ROC, after the median filter",
        "event_f1": "event F1",
        "threshold": "at the threshold",
        "ece": "calibration error",
    }
    held = {name for row in frames.per_phrase.values() for name in row}
    if "psds1_filtered" in held:
        columns["psds1"] += ", raw scores"
    return {name: heading for name, heading in columns.items() if name in held}


def _phrase_cell(name: str, row: Mapping[str, float | None]) -> str:
    value = row.get(name)
    if value is None:
        return "–"
    if name in ("num_clips", "num_events"):
        return f"{value:.0f}"
    if name == "active_seconds":
        return f"{value:.1f}"
    if name == "threshold":
        return f"{value:.3g}{'*' if row.get('tuned') else ''}"
    return f"{value:.4f}" if name == "ece" else f"{value:.3f}"


def example(found: RetrievedExample, media: ClipMedia) -> str:
    """Returns a query and the clips it retrieves."""
    verdict = "The right clip ranks first." if found.rank == 1 else f"The best right clip ranks {found.rank}."
    hits = "".join(_hit(hit, place, media) for place, hit in enumerate(found.hits, 1))
    return (
        f'<div class="example"><p class="query">“<bdi>{escape(found.query)}</bdi>”</p>'
        f'<p class="note">{verdict} {found.num_candidates} candidates.</p><div class="hits">{hits}</div></div>\n'
    )


def _hit(hit: Hit, place: int, media: ClipMedia) -> str:
    frame, mel, _ = media.get(hit.clip_id)
    pictures = ""
    if frame is not None:
        pictures += f'<img class="frame" src="{frame_uri(frame)}" alt="A frame of clip {escape(hit.clip_id)}">'
    if mel is not None:
        pictures += f'<img class="mel" src="{mel_uri(mel)}" alt="Log-mel spectrogram of clip {escape(hit.clip_id)}">'
    if (heard := media.heard(hit.clip_id)) is not None:
        pictures += player(heard, f"The sound of clip {escape(hit.clip_id)}")
    pictures = pictures or '<div class="blank">neither picture nor sound</div>'
    mark = "✓ right" if hit.right else "✗ another clip"
    own = f'<div class="own" dir="auto">{escape(hit.caption)}</div>' if hit.caption and not hit.right else ""
    words = f'<span class="mark">{place}. {mark}</span> · {escape(hit.clip_id)} · {hit.score:.2f}{own}'
    return f'<div class="hit{" right" if hit.right else ""}">{pictures}<div class="said">{words}</div></div>'
