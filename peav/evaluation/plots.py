"""Figures of numbers: losses over steps, recall against chance, similarity matrices.

Every function returns a `matplotlib.figure.Figure` made without pyplot: no global state, no display, Agg or SVG when it
is saved. Functions named `draw_*` draw on axes that are given, so that the report and the overview share them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from peav import plot_style
from peav.evaluation.directions import KS, Direction, Evaluation
from peav.evaluation.retrieval import chance_interval
from peav.plot_style import COLOURS, INK

#: Shades of one blue for R@1, R@5 and R@10: the darker, the harder.
SHADES = ("#0b5c86", "#6aa9cb", "#cfe3ee")

#: One series of a history: (step, value).
Series = Sequence[tuple[float, float]]

STYLE: Any = {
    **plot_style.STYLE,
    "axes.titlecolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "svg.fonttype": "path",
    "svg.hashsalt": "peav",
}


def data_uri(figure: Figure, kind: str = "svg", dpi: int = 130) -> str:
    """Renders a figure as a `data:` URI of an SVG or a PNG."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def curves_figure(panels: Mapping[str, Mapping[str, Series]], columns: int = 3) -> Figure:
    """Draws small multiples over steps.

    Args:
        panels: by title, the series by label (`train`, `val`).
        columns: panels a row.
    """
    with matplotlib.rc_context(STYLE):
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(10, 2.0 * max(rows, 1) + 0.3), layout="constrained")
        grid = list(figure.subplots(max(rows, 1), columns, squeeze=False, sharex=True).flat)
        labels = {label: None for series in panels.values() for label in series}
        colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
        for axes, (title, series) in zip(grid, panels.items(), strict=False):
            for label, points in series.items():
                draw_curve(axes, points, colour[label], label if len(labels) > 1 else None)
            axes.set_title(title)
            axes.grid(axis="y")
            axes.margins(x=0.02)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        last = [axes for axes in figure.axes if axes.get_visible()]
        for axes in last[-columns:]:
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
        if len(labels) > 1:
            last[0].legend(loc="upper right", fontsize=8)
        return figure


def draw_curve(axes: Axes, points: Series, colour: str, label: str | None = None) -> None:
    """Draws a series; a noisy one (over 80 points) faintly, with its running mean on top."""
    steps, values = (np.array(part, dtype=float) for part in zip(*points, strict=True))
    if len(values) <= 80:
        axes.plot(steps, values, color=colour, lw=1.6, label=label, marker="o" if len(values) < 12 else None, ms=3)
        return
    width = max(len(values) // 40, 3) | 1
    padded = np.pad(values, width // 2, mode="edge")
    axes.plot(steps, values, color=colour, lw=0.6, alpha=0.3)
    axes.plot(steps, np.convolve(padded, np.ones(width) / width, "valid"), color=colour, lw=1.6, label=label)


def recall_figure(evaluation: Evaluation, control: Evaluation | None = None) -> Figure:
    """Draws R@1, R@5 and R@10 of each direction against chance and, with a control, the control's R@1 beside it."""
    with matplotlib.rc_context(STYLE):
        names = list(evaluation.directions)
        height = 0.3 * len(names) + 1.1
        figure = Figure(figsize=(10, height), layout="constrained")
        if control is None:
            draw_recall(figure.subplots(), evaluation.directions)
        else:
            left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
            draw_recall(left, evaluation.directions)
            draw_control(right, names, control.directions)
        return figure


def draw_recall(axes: Axes, directions: Mapping[str, Direction]) -> None:
    """Draws nested bars of R@k, a direction a row; a tick marks chance R@1, crosses chance R@5 and R@10."""
    rows = np.arange(len(directions))
    found = list(directions.values())
    for k, shade in reversed(list(zip(KS, SHADES, strict=True))):
        axes.barh(rows, [100 * d.plain[f"R@{k}"] for d in found], color=shade, height=0.66, label=f"R@{k}")
    for k, mark in zip(KS, ("|", "x", "x"), strict=True):
        chance = [100 * d.plain[f"chance_R@{k}"] for d in found]
        size, label = (90, "chance R@1") if k == 1 else (14, "chance R@5, R@10" if k == KS[-1] else None)
        axes.scatter(
            chance, rows, marker=mark, s=size, color=COLOURS[1], lw=1.6 if k == 1 else 0.9, label=label, zorder=3
        )
    for row, d in zip(rows, found, strict=True):
        value = 100 * d.plain["R@1"]
        inside = value > 12
        x, colour = (value - 1, "white") if inside else (value + 1, INK)
        axes.text(
            x, float(row), f"{value:.1f}", va="center", ha="right" if inside else "left", color=colour, fontsize=8
        )
    axes.set_yticks(rows, [name.replace("->", " → ") for name in directions], color=INK)
    axes.set_ylim(len(directions) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("queries with a right clip in the top k, %")
    axes.grid(axis="x")
    handles, labels = axes.get_legend_handles_labels()
    order = [labels.index(name) for name in (*(f"R@{k}" for k in KS), "chance R@1", "chance R@5, R@10")]
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=5,
        fontsize=8,
        columnspacing=1.1,
        handletextpad=0.5,
    )


def draw_control(axes: Axes, names: Sequence[str], directions: Mapping[str, Direction]) -> None:
    """Draws R@1 of the control run in the rows of `names`, over the 95 % interval of chance."""
    label = "95 % of chance"
    limit = 0.0
    for row, name in enumerate(names):
        if name not in directions:
            continue
        d = directions[name]
        low, high = (100 * v for v in control_interval(d))
        value = 100 * d.plain["R@1"]
        limit = max(limit, high, value)
        inside = low <= value <= high
        axes.barh(row, high - low, left=low, height=0.66, color="#e3e8ec", label=label)
        axes.plot([100 * d.plain["chance_R@1"]] * 2, [row - 0.33, row + 0.33], color=COLOURS[1], lw=1.6)
        axes.plot(value, row, "D", ms=5, color=INK, mfc="white" if inside else INK, label="R@1 of the control")
        label = None  # type: ignore[assignment]
    limit = limit or 1.0
    axes.set_xlim(-0.05 * limit, 1.1 * limit)
    axes.set_xlabel("R@1 with shuffled pairing, %")
    axes.grid(axis="x")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(
        list(unique.values()),
        list(unique),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        fontsize=8,
        handlelength=1.2,
    )


def control_interval(direction: Direction) -> tuple[float, float]:
    """Returns the 95 % interval of R@1 at chance, over the distinct queries of a direction."""
    return chance_interval(direction.plain["chance_R@1"], direction.num_distinct)


def matrices_figure(matrices: Mapping[str, Tensor]) -> Figure:
    """Draws square similarity matrices side by side.

    Args:
        matrices: by title `left x right`, (M, M) similarities of the same clips in the same order.
    """
    with matplotlib.rc_context(STYLE):
        count = max(len(matrices), 1)
        figure = Figure(figsize=(10, 3.0 if count == 3 else 4.2), layout="constrained")
        grid = figure.subplots(1, max(count, 2), squeeze=False)[0]
        for axes, (title, matrix) in zip(grid, matrices.items(), strict=False):
            draw_matrix(axes, matrix, title)
        for axes in grid[len(matrices) :]:
            axes.set_visible(False)
        return figure


def draw_matrix(axes: Axes, matrix: Tensor, title: str) -> None:
    """Draws a similarity matrix, coloured from the 1st percentile to the mean of the diagonal or the 99.5th."""
    values = matrix.numpy()
    low = float(np.percentile(values, 1))
    high = max(float(np.percentile(values, 99.5)), float(np.diag(values).mean()))
    image = axes.imshow(values, cmap="magma", vmin=low, vmax=high if high > low else low + 1, interpolation="nearest")
    left, _, right = title.partition(" × ")
    axes.set_title(title.replace("_", " "))
    axes.set_ylabel(f"{left.replace('_', ' ')} of clip")
    axes.set_xlabel(f"{right.replace('_', ' ')} of clip")
    axes.set_xticks([0, len(values) - 1], ["1", str(len(values))])
    axes.set_yticks([0, len(values) - 1], ["1", str(len(values))])
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)


def comparison_figure(results: Mapping[str, Mapping[str, tuple[float, bool]]]) -> Figure:
    """Bars of what several models reach on the tasks that all of them have.

    Args:
        results: by model the number of each task, a share, and whether it is after the dual softmax.
    """
    first, *others = results.values()
    tasks = [name for name in first if all(name in other for other in others)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.6 + 0.28 * len(tasks) * max(1, len(results) / 2)), layout="constrained")
        axes = figure.subplots()
        height = 0.8 / len(results)
        for number, (model, held) in enumerate(results.items()):
            places = [place + (number - (len(results) - 1) / 2) * height for place in range(len(tasks))]
            values = [100 * held[name][0] for name in tasks]
            axes.barh(places, values, height, label=model, color=COLOURS[number % len(COLOURS)])
        axes.set_yticks(range(len(tasks)), tasks)
        axes.invert_yaxis()
        axes.set_xlabel("the number of the task, times 100")
        axes.legend(loc="best")
    return figure
