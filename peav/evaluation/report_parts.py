"""Pieces of HTML that the report is put together from.

Every text is escaped here; what is passed as content is HTML already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from peav.data.curation.player import player
from peav.evaluation.directions import COLUMNS, Evaluation, FrameLevel
from peav.evaluation.examples import Hit, RetrievedExample
from peav.evaluation.media_plots import ClipMedia, frame_uri, mel_uri


def page(title: str, style: str, head: str, body: str) -> str:
    """Returns the whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{head}\n</header>\n<main>\n{body}\n</main>\n"
        "<footer>Written by peav.evaluation.report. This file needs no network.</footer>\n</body>\n</html>\n"
    )


def navigation(entries: Iterable[tuple[str, str]]) -> str:
    """Returns links to the sections, given (id, heading)."""
    links = "".join(f'<a href="#{escape(name)}">{escape(heading)}</a>' for name, heading in entries)
    return f'<nav aria-label="Sections">{links}</nav>'


def section(name: str, heading: str, content: str) -> str:
    """Returns a section."""
    return f'<section id="{escape(name)}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>\n'


def absent(sentence: str) -> str:
    """Returns the sentence that stands where a part lacks data."""
    return f'<p class="absent">{escape(sentence)}</p>'


def number(label: str, value: str, unit: str, versus: str) -> str:
    """Returns a headline number."""
    shown = f'{escape(value)}<span class="unit"> {escape(unit)}</span>' if unit else escape(value)
    return (
        f'<div class="number"><div class="label">{escape(label)}</div><div class="value">{shown}</div>'
        f'<div class="versus">{escape(versus)}</div></div>'
    )


def figure(uri: str, alt: str, caption: str) -> str:
    """Returns a picture with its caption."""
    return f'<figure><img src="{uri}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Returns a table of texts; the cells of the class `settings` may wrap."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    cell = '<td class="wrap">' if style == "settings" else "<td>"
    body = "".join(f"<tr>{''.join(f'{cell}{escape(value)}</td>' for value in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def results_table(evaluation: Evaluation) -> str:
    """Returns the table of all directions."""
    rows = ((row[0].replace("->", " → "), *row[1:]) for row in evaluation.rows())
    return table(COLUMNS, rows)


def phrases_table(frames: FrameLevel, limit: int = 60) -> str:
    """Returns what was measured of each phrase, AUROC with a bar; the `limit` phrases with the most active seconds."""
    ordered = sorted(frames.per_phrase.items(), key=lambda item: -(item[1]["active_seconds"] or 0))
    columns = _phrase_columns(frames)
    body = ""
    for phrase, row in ordered[:limit]:
        value = row["auroc"]
        width = 0 if value is None else round(100 * max(2 * value - 1, 0))
        shown = (
            "one class only" if value is None else f'{value:.3f}<span class="bar"><i style="width:{width}%"></i></span>'
        )
        cells = "".join(f"<td>{_phrase_cell(name, row)}</td>" for name in columns)
        body += f"<tr><td><bdi>{escape(phrase)}</bdi></td><td>{shown}</td>{cells}</tr>"
    heads = ("phrase", "frame AUROC (bar: from 0.5 to 1)", *columns.values())
    head = "".join(f'<th scope="col">{column}</th>' for column in heads)
    html = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if any(row.get("tuned") for _, row in ordered):
        html += '<p class="note">* a threshold of the phrase\'s own, which was tuned and is stored with the model.</p>'
    if len(ordered) > limit:
        html += f'<p class="note">{len(ordered) - limit} rarer phrases are not listed.</p>'
    return html


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
    return f'<div class="hit{" right" if hit.right else ""}">{pictures}<div class="words">{words}</div></div>'
