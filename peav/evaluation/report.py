"""Writes a report of a run as one HTML file that needs nothing else: no network, no scripts, no other files.

Parts that lack data say so in a sentence instead.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from peav import html
from peav.data.curation.player import player
from peav.evaluation import report_parts as parts
from peav.evaluation.before import COLUMNS, BeforeAfter
from peav.evaluation.directions import Evaluation, FrameLevel, percent
from peav.evaluation.event_plots import psds_figure, reliability_figure
from peav.evaluation.examples import (
    event_clips,
    event_probabilities,
    retrieved_examples,
    shown_pairs,
    similarity_matrix,
)
from peav.evaluation.media_plots import ClipMedia, EventCurves, MediaLoader, events_figure
from peav.evaluation.plots import Series, control_interval, curves_figure, data_uri, matrices_figure, recall_figure
from peav.evaluation.table import EmbeddingTable

#: Steps and values by name, as PeavModule logs them: `train/loss`, `validation/loss`, `train/OBJECTIVE/loss`,
#: `train/OBJECTIVE/scale`, `train/OBJECTIVE/bias`, `train/OBJECTIVE/positive_logit`, ...
History = Mapping[str, Series]

HEADLINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Text → audio", ("text_audio->audio", "text_audio_video->audio")),
    ("Text → video", ("text_video->video", "text_audio_video->video")),
    ("Audio → video", ("audio->video",)),
)


@dataclass(frozen=True)
class Material:
    """All that a report may draw on.

    Attributes:
        evaluation: results of the run.
        table: its embeddings.
        history: curves of the training.
        control: results of the same run trained with the pairing shuffled across clips.
        before: retrieval of the model from which training went on, beside that of the run.
        media: loader of pictures and sounds, for examples.
        title: of the report.
        settings: by name, shown at the end.
    """

    evaluation: Evaluation
    table: EmbeddingTable
    history: History = field(default_factory=dict)
    control: Evaluation | None = None
    before: BeforeAfter | None = None
    media: MediaLoader | None = None
    title: str = "peav: evaluation"
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_report(
    path: str | Path,
    evaluation: Evaluation,
    table: EmbeddingTable,
    history: History | None = None,
    control: Evaluation | None = None,
    examples: MediaLoader | None = None,
    title: str = "peav: evaluation",
    settings: Mapping[str, Any] | None = None,
    before: BeforeAfter | None = None,
) -> Path:
    """Writes the report of a run.

    Args:
        path: the HTML file; its folder is made.
        evaluation: results of the run.
        table: the embeddings that gave them.
        history: (step, value) series by name. The name's part before the first `/` (`train`, `validation`) becomes the label
            of the curve, the rest the panel; names that end in `/scale` or `/bias` are shown as learned scales and biases,
            those in `/positive_logit` and `/negative_logit` together, a panel an objective.
        control: results of the same run with the pairing shuffled across clips; they must be at chance.
        examples: from a clip id to (frame uint8 (H, W, 3) or None, waveform float (S,) or None, sample rate in Hz).
        title: of the report.
        settings: shown at the end, beside the versions.
        before: retrieval of the model from which training went on, beside that of the run.

    Returns:
        The path written.
    """
    material = Material(evaluation, table, history or {}, control, before, examples, title, settings or {})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(material), encoding="utf-8")
    return path


def render(material: Material) -> str:
    """Returns the report as an HTML document."""
    media = ClipMedia(material.media) if material.media is not None else None
    sections = [
        ("training", "Losses", losses(material)),
        ("retrieval", "Retrieval against chance", retrieval(material)),
        *([("before", "Retrieval before and after", before_section(material.before))] if material.before else []),
        ("similarity", "Similarity", similarity_section(material)),
        ("examples", "Retrieved examples", examples_section(material, media)),
        ("events", "Events over time", events_section(material, media)),
        ("table", "All directions", table_section(material)),
        ("phrases", "Events by phrase", phrases_section(material)),
        ("scales", "Learned scales and biases", scales_section(material)),
        ("settings", "Settings and versions", settings_section(material)),
    ]
    return parts.page(material.title, headline(material), sections)


def headline(material: Material) -> str:
    """The big numbers, and a sentence on the split and on those that are missing."""
    directions = material.evaluation.directions
    cards, missing = [], []
    headlines = HEADLINES
    if directions and not any(name in directions for _, names in HEADLINES for name in names):
        headlines = tuple((_arrow(name), (name,)) for name in list(directions)[:3])
    for label, names in headlines:
        name = next((n for n in names if n in directions), None)
        if name is None:
            missing.append(label.lower())
            continue
        found, chance = (directions[name].plain[key] for key in ("R@1", "chance_R@1"))
        versus = f"{found / chance:.3g} × chance ({percent(chance)} %)" if chance else ""
        cards.append(html.number(f"{label}, R@1", percent(found), versus, "%"))
    frames = material.evaluation.frames
    if frames is not None and frames.macro is not None:
        cards.append(html.number("Frame AUROC, macro", f"{frames.macro:.3f}", "chance is 0.500"))
    else:
        missing.append("frame AUROC")
    lead = f"{material.evaluation.num_clips} clips; a query counts as found when a right clip ranks first."
    if missing:
        lead += f" Not measured here: {', '.join(missing)}."
    return f'<p class="lead">{escape(lead)}</p>{html.numbers(cards)}'


def losses(material: Material) -> str:
    """Small multiples of the losses, and of whatever else was logged."""
    panels = _panels({k: v for k, v in material.history.items() if not _is_scale(k)})
    if not panels:
        return parts.absent("No history of the training was given.")
    is_loss = {title: title.rpartition("/")[2] == "loss" for title in panels}
    total = [t for t in panels if t == "loss"]
    order = [*total, *(t for t in panels if is_loss[t] and t not in total)]
    others = {t: panels[t] for t in panels if t not in order}
    content = ""
    if order:
        figure = curves_figure({t: panels[t] for t in order})
        alt = f"Curves of {len(order)} losses over the training steps: {', '.join(order)}."
        caption = "The total first, then each objective before its weight. Faint: every step; strong: running mean."
        content += html.figure(data_uri(figure), alt, caption)
    if others:
        figure = curves_figure(others)
        content += html.figure(data_uri(figure), f"Curves of {', '.join(others)}.", "What else was logged.")
    return content


def retrieval(material: Material) -> str:
    """R@k against chance and, where given, the control with shuffled pairing."""
    evaluation, control = material.evaluation, material.control
    if not evaluation.directions:
        return parts.absent("No two embeddings of the table can be compared.")
    content = (
        "<p>Chance is exact: the share of queries that a random order would answer, given how many clips are right for "
        "each. Scores are plain dot products; the table below has the dual softmax as well.</p>"
    )
    alt = "Bars of R@1, R@5 and R@10 for " + ", ".join(
        f"{name} ({percent(d.plain['R@1'])} % R@1)" for name, d in evaluation.directions.items()
    )
    caption = "Left of the arrow the query, right of it what is searched."
    if control is not None:
        caption += (
            " On the right R@1 of the control over the interval that chance would give; an open diamond lies inside."
        )
    content += html.figure(data_uri(recall_figure(evaluation, control)), alt + ".", caption)
    return content + (
        parts.absent("No control with shuffled pairing was given.") if control is None else _control(control)
    )


def _control(control: Evaluation) -> str:
    intervals = {name: control_interval(d) for name, d in control.directions.items()}
    outside = {
        name: control.directions[name].plain["R@1"]
        for name, (low, high) in intervals.items()
        if not low <= control.directions[name].plain["R@1"] <= high
    }
    count = len(intervals)
    text = (
        "The control is the same run trained with the pairing shuffled across clips: whatever it still finds does not "
        "come from the pairing. Its R@1 lies inside the 95 % interval of chance in "
        f"{count - len(outside)} of {count} directions"
    )
    if outside:
        text += "; outside: " + ", ".join(f"{_arrow(name)} ({percent(value)} %)" for name, value in outside.items())
    text += (
        f". Of {count} directions up to about {0.05 * count:.1f} may lie outside by chance; they share clips and so move "
        "together. The interval takes the distinct queries as independent trials."
    )
    return f"<h3>Control with shuffled pairing</h3><p>{escape(text)}</p>"


def before_section(before: BeforeAfter) -> str:
    """R@1 of the model from which training went on, and of the run."""
    note = (
        "R@1 in percent of the same clips. Intervals and p-values are of a bootstrap that draws the same clips for both models; of many "
        "directions a few may seem to differ by chance."
    )
    content = f"<p>{escape(before.sentence())} {note}</p>"
    rows = ((_arrow(row[0]), *row[1:]) for row in before.rows())
    return content + (html.table(COLUMNS, rows) if before.differences else "")


def similarity_section(material: Material) -> str:
    """Heatmaps of the similarities of a sample of clips."""
    found = {(a, b): similarity_matrix(material.table, a, b) for a, b in shown_pairs(material.table)}
    matrices = {f"{a} × {b}": matrix for (a, b), matrix in found.items() if matrix is not None}
    missing = [f"{a} × {b}" for (a, b), matrix in found.items() if matrix is None]
    content = ""
    if matrices:
        size = max(len(matrix) for matrix in matrices.values())
        caption = (
            f"Dot products of up to {size} clips spread over the split. The diagonal holds the pairs that belong "
            "together; bright spots off it are clips that resemble each other, or errors."
        )
        alt = f"Heatmaps of similarities: {', '.join(matrices)}; a bright diagonal means that pairs are found."
        content += html.figure(data_uri(matrices_figure(matrices), "png"), alt, caption)
    if missing:
        content += parts.absent(f"Not shown, for lack of one of the embeddings: {', '.join(missing)}.")
    return content


def examples_section(material: Material, media: ClipMedia | None) -> str:
    """What a few captions retrieve."""
    if media is None:
        return parts.absent("No media were given to show examples with.")
    found = retrieved_examples(material.table)
    if not found:
        return parts.absent("The table holds no captions with media to search.")
    note = "Captions spread evenly over the split, not chosen by their result, and the three clips each ranks highest."
    content = f'<p>{note} <span class="note">Direction: {escape(_arrow(found[0].direction))}.</span></p>'
    return content + "".join(parts.example(example, media) for example in found)


def events_section(material: Material, media: ClipMedia | None) -> str:
    """Event probabilities over time against the truth."""
    table = material.table
    clips = event_clips(table) if table.has_frames else []
    if not clips:
        return parts.absent("No frame-level model, or no clip annotated with events.")
    calibrated = table.is_calibrated
    label = "probability" if calibrated else "similarity, stretched"
    note = (
        "Solid: phrases that sound in the clip; dashed: the phrase that scores highest of those known to be absent. "
        "Bars on top and shading: where the event truly is."
    )
    content = f"<p>{note}</p>"
    for clip in clips:
        curves = event_curves(table, clip)
        mel, seconds = media.get(curves.clip_id)[1:] if media is not None else (None, 0.0)
        alt = f"Event {label} over time in clip {curves.clip_id}: {', '.join(curves.probabilities)}."
        uri = data_uri(events_figure(curves, mel, seconds, label), "png", dpi=110)
        content += html.figure(uri, alt, f"Clip {curves.clip_id}")
        if media is not None and (heard := media.heard(curves.clip_id)) is not None:
            content += player(heard, f"The sound of clip {escape(curves.clip_id)}")
    return content


def event_curves(table: EmbeddingTable, clip: int) -> EventCurves:
    """Returns what is drawn of a clip's events.

    Raises:
        ValueError: if the table has no frames.
    """
    part = table.frame_part
    spans: dict[str, list[tuple[float, float]]] = {}
    for phrase, onset, offset in part.events[clip] or []:
        spans.setdefault(phrase, []).append((onset, offset))
    values = {phrase: p.numpy() for phrase, p in event_probabilities(table, clip).items()}
    return EventCurves(table.clip_ids[clip], values, spans, part.frame_seconds)


def table_section(material: Material) -> str:
    """The complete results."""
    evaluation = material.evaluation
    if not evaluation.directions:
        return parts.absent("No direction could be evaluated.")
    note = (
        f"In percent. The dual softmax (c = {evaluation.temperature:g}) reweights scores with all queries in view; its "
        "numbers are not comparable with plain ones. Ties count against the model."
    )
    left_out = {name: d.plain["num_without_positive"] for name, d in evaluation.directions.items()}
    content = f"<p>{escape(note)}</p>{parts.results_table(evaluation)}"
    chance = {name: d for name, d in evaluation.directions.items() if d.plain["R@1"] <= control_interval(d)[1]}
    if chance:
        listed = "; ".join(
            f"{_arrow(name)} ({d.num_distinct} distinct queries: {percent(d.plain['R@1'])} %, where chance gives up to "
            f"{percent(control_interval(d)[1])} %)"
            for name, d in chance.items()
        )
        content += f'<p class="note">Not told from chance by R@1, at 95 %: {escape(listed)}.</p>'
    if any(left_out.values()):
        listed = ", ".join(f"{_arrow(name)} {count:.0f}" for name, count in left_out.items() if count)
        content += f'<p class="note">Queries left out because no candidate is right for them: {escape(listed)}.</p>'
    if evaluation.skipped:
        listed = "; ".join(f"{_arrow(name)} ({why})" for name, why in evaluation.skipped.items())
        content += f'<p class="note">Skipped: {escape(listed)}.</p>'
    return content


def phrases_section(material: Material) -> str:
    """The event metrics, the ROC of PSDS, the reliability of probabilities, and all of it by phrase."""
    frames = material.evaluation.frames
    if frames is None:
        return parts.absent(material.evaluation.frame_summary())
    note = "AUROC ranks frames; it does not see errors of boundaries or calibration."
    summary = f"<p>{escape(material.evaluation.frame_summary())} {note}</p>"
    rows = material.evaluation.event_rows()
    content = summary + (html.table(("events", "value"), rows) if rows else "")
    if rule := material.evaluation.rule_sentence():
        content += f'<p class="note">{escape(rule)}</p>'
    return content + _event_figures(frames) + parts.phrases_table(frames)


def _event_figures(frames: FrameLevel) -> str:
    content = ""
    if frames.curves:
        caption = (
            "ROC of PSDS over all thresholds: mean over phrases of the share of events found, less its standard deviation over phrases. "
            "The shaded area, as a share of the whole, is the score."
        )
        alt = "ROC of PSDS1 and PSDS2: effective true positive rate over effective false positives per hour."
        content += html.figure(data_uri(psds_figure(frames.curves, frames.metrics)), alt, caption)
    if frames.reliability:
        caption = (
            "Reliability of the probabilities of single frames, in 15 bins. On the diagonal 0.7 is right seven times of ten; below it the "
            "model is too sure of itself. Bins with few frames weigh little in the error."
        )
        alt = "Reliability diagram: share of active frames over the probability given, and the number of frames in each bin."
        content += html.figure(
            data_uri(reliability_figure(frames.reliability, frames.metrics.get("ece"))), alt, caption
        )
    return content


def scales_section(material: Material) -> str:
    """Learned scales and biases: first and last value, and their course."""
    series = {name: _finite(points) for name, points in material.history.items() if _is_scale(name)}
    series = {name: points for name, points in series.items() if points}
    scale, bias = material.table.logit_scale, material.table.logit_bias
    content = ""
    if isinstance(scale, list) and isinstance(bias, list):
        content += (
            f"<p>Frame objective in use: each phrase has its own scale, {min(scale):.3f} to {max(scale):.3f}, and bias, "
            f"{min(bias):.3f} to {max(bias):.3f}.</p>"
        )
    elif isinstance(scale, float) and isinstance(bias, float):
        content += f"<p>Frame objective in use: scale {scale:.3f}, bias {bias:.3f}.</p>"
    if series:
        rows = [(name, f"{points[0][1]:.3f}", f"{points[-1][1]:.3f}") for name, points in series.items()]
        content += html.table(("name", "first", "last"), rows)
        figure = curves_figure(_panels(series), columns=4)
        content += html.figure(data_uri(figure), f"Curves of {', '.join(series)}.", "Their course over the steps.")
    return content or parts.absent("The history holds no scale or bias.")


def settings_section(material: Material) -> str:
    """Settings and versions."""
    rows = [(str(key), str(value)) for key, value in material.settings.items()]
    content = (
        html.table(("setting", "value"), rows, words=("value",)) if rows else parts.absent("No settings were given.")
    )
    return f"{content}<h3>Versions</h3>{html.table(('package', 'version'), versions().items(), ('version',))}"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that shape a result, those that are installed."""
    found = {"python": platform.python_version()}
    for name in ("peav", "torch", "lightning", "transformers", "timm", "lhotse", "litdata", "numpy", "matplotlib"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _arrow(direction: str) -> str:
    return direction.replace("->", " → ")


def _is_scale(name: str) -> bool:
    return name.rpartition("/")[2] in ("scale", "bias")


def _finite(points: Series) -> list[tuple[float, float]]:
    return [(step, value) for step, value in points if math.isfinite(value)]


def _panels(history: History) -> dict[str, dict[str, list[tuple[float, float]]]]:
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in history.items():
        stage, _, title = name.partition("/")
        label = stage if title else "train"
        if title.endswith(("/positive_logit", "/negative_logit")):
            if stage != "train":
                continue
            title, _, label = title.rpartition("/")
            title, label = f"{title}/logits", label.removesuffix("_logit")
        if title.endswith("/empty_batches") and not any(value for _, value in points):
            continue  # every batch had something to learn from
        if finite := _finite(points):
            panels.setdefault(title or stage, {})[label] = finite
    return panels
