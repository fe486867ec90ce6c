"""One picture of a run: recall against chance, a similarity matrix, events over time, a retrieved example."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure, SubFigure

from peav.evaluation.directions import Evaluation
from peav.evaluation.examples import event_clips, retrieved_examples, shown_pairs, similarity_matrix
from peav.evaluation.media_plots import ClipMedia, MediaLoader, draw_events, draw_thumbnail
from peav.evaluation.plots import STYLE, draw_matrix, draw_recall
from peav.evaluation.report import event_curves
from peav.evaluation.table import EmbeddingTable
from peav.plot_style import MUTED

_SHOWN = 8


def write_overview(
    path: str | Path,
    evaluation: Evaluation,
    table: EmbeddingTable,
    examples: MediaLoader | None = None,
    title: str = "",
) -> Path:
    """Writes a PNG of four panels, 1600 pixels wide. A panel without data says what it lacks.

    Args:
        path: the PNG file; its folder is made.
        evaluation: results of the run.
        table: the embeddings that gave them.
        examples: from a clip id to (frame, waveform, sample rate in Hz), as in `write_report`.
        title: above the panels; left out when empty.

    Returns:
        The path written.
    """
    media = ClipMedia(examples) if examples is not None else None
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.8, 7.2), layout="constrained")
        if title:
            figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1], hspace=0.03)
        top, bottom = halves
        recall, matrix = top.subfigures(1, 2, width_ratios=[1.5, 1])
        events, example = bottom.subfigures(1, 2, width_ratios=[1.15, 1])
        _recall(recall, evaluation)
        _matrix(matrix, table)
        _events(events, table, media)
        _example(example, table, media)
        figure.savefig(path, dpi=125)
    return path


def _recall(panel: SubFigure, evaluation: Evaluation) -> None:
    if not evaluation.directions:
        return _nothing(panel, "no direction could be evaluated")
    shown = dict(list(evaluation.directions.items())[:_SHOWN])
    draw_recall(panel.subplots(), shown)
    return None


def _matrix(panel: SubFigure, table: EmbeddingTable) -> None:
    for left, right in shown_pairs(table):
        if (matrix := similarity_matrix(table, left, right)) is not None:
            return draw_matrix(panel.subplots(), matrix, f"{left} × {right}")
    return _nothing(panel, "no two embeddings to compare")


def _events(panel: SubFigure, table: EmbeddingTable, media: ClipMedia | None) -> None:
    clips = event_clips(table, 1) if table.has_frames else []
    if not clips:
        return _nothing(panel, "no frame-level model, or no annotated clip")
    curves = event_curves(table, clips[0])
    mel, seconds = media.get(curves.clip_id)[1:] if media is not None else (None, 0.0)
    axes = panel.subplots()
    calibrated = table.is_calibrated
    draw_events(axes, curves, mel, seconds, "event probability" if calibrated else "similarity, stretched")
    axes.set_title("events over the log-mel spectrogram; bars: truth")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5)
    return None


def _example(panel: SubFigure, table: EmbeddingTable, media: ClipMedia | None) -> None:
    found = retrieved_examples(table, count=1) if media is not None else []
    if not found or media is None:
        return _nothing(panel, "no captions or no media to show an example with")
    query = textwrap.shorten(found[0].query, 120, placeholder=" …")
    panel.suptitle("\n".join(textwrap.wrap(f"“{query}”", 64)), fontsize=10, fontweight="bold")
    grid = panel.subplots(1, max(len(found[0].hits), 2))
    for place, (axes, hit) in enumerate(zip(grid, found[0].hits, strict=False), 1):
        frame, mel, _ = media.get(hit.clip_id)
        draw_thumbnail(axes, frame, mel, f"{place}. {'right' if hit.right else 'another clip'}", hit.right)
    return None


def _nothing(panel: SubFigure, sentence: str) -> None:
    panel.text(0.5, 0.5, sentence, ha="center", va="center", color=MUTED)
