"""Figures of the event metrics: the ROC of PSDS, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from peav.evaluation.detection import PSDS1, PSDS2, PSDSettings
from peav.evaluation.events import FILTERED
from peav.evaluation.plots import STYLE
from peav.plot_style import COLOURS, INK, MUTED

#: What is drawn of a PSDS: its settings, and its title.
SCENARIOS: Mapping[str, tuple[PSDSettings, str]] = {"psds1": (PSDS1, "PSDS1"), "psds2": (PSDS2, "PSDS2")}


def psds_figure(curves: Mapping[str, Mapping[str, Sequence[float]]], values: Mapping[str, float | None]) -> Figure:
    """Draws the ROC of PSDS1 and PSDS2, the area under it shaded; with a median filter that of the raw scores as a thin line.

    Args:
        curves: `FrameLevel.curves`.
        values: `FrameLevel.metrics`, the areas.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.3), layout="constrained")
        for axes, (name, (settings, title)) in zip(figure.subplots(1, 2), SCENARIOS.items(), strict=True):
            shown = name + FILTERED if name + FILTERED in curves else name
            value = values.get(shown)
            axes.set_title(title if value is None else f"{title} = {value:.3f}")
            draw_psds(axes, curves[shown], settings.e_max, "after the median filter" if shown != name else None)
            if shown != name:
                x, y = _steps(curves[name], settings.e_max)
                axes.step(x, y, where="post", color=MUTED, lw=1.2, ls=(0, (4, 2)), label="raw scores")
                axes.legend(loc="lower right", fontsize=8.5)
        return figure


def draw_psds(
    axes: Axes, curve: Mapping[str, Sequence[float]], e_max: float, label: str | None = None, colour: str = COLOURS[0]
) -> None:
    """Draws one curve of effective true positive rate over effective false positives an hour, and shades the area under it."""
    x, y = _steps(curve, e_max)
    axes.fill_between(x, y, step="post", color=colour, alpha=0.18, lw=0)
    axes.step(x, y, where="post", color=colour, lw=1.8, label=label)
    axes.set_xlim(0, e_max)
    axes.set_ylim(0, 1)
    axes.set_xlabel("effective false positives per hour (eFPR)")
    axes.set_ylabel("effective true positive rate (eTPR)")
    axes.grid()


def reliability_figure(reliability: Mapping[str, Sequence[float | None]], ece: float | None) -> Figure:
    """Draws the share of active frames over the probability that was given, and how many frames had it.

    Args:
        reliability: `FrameLevel.reliability`, of bins of equal width.
        ece: expected calibration error.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_reliability(left, reliability)
        if ece is not None:
            left.set_title(f"expected calibration error = {ece:.4f}")
        draw_counts(right, reliability)
        right.set_title("how many frames have it")
        return figure


def draw_reliability(axes: Axes, reliability: Mapping[str, Sequence[float | None]]) -> None:
    """Draws the calibration curve: bars from the diagonal show how far a bin is off."""
    count = np.array(reliability["count"], dtype=float)
    filled = count > 0
    given, active = (np.array(reliability[name], dtype=float)[filled] for name in ("probability", "active"))
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 2)), label="perfect")
    axes.vlines(given, np.minimum(given, active), np.maximum(given, active), color=COLOURS[1], lw=5, alpha=0.35)
    axes.plot(given, active, color=COLOURS[0], lw=1.8, marker="o", ms=4.5, label="this model")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("probability given, mean of the bin")
    axes.set_ylabel("share of frames that are active")
    axes.grid()
    axes.legend(loc="upper left", fontsize=8.5)


def draw_counts(axes: Axes, reliability: Mapping[str, Sequence[float | None]]) -> None:
    """Draws the number of frames of each bin, on a logarithmic axis: most are almost surely inactive."""
    count = np.array(reliability["count"], dtype=float)
    edges = np.linspace(0, 1, len(count) + 1)
    axes.bar(edges[:-1], count, np.diff(edges), align="edge", color=COLOURS[4], edgecolor="white", lw=0.8)
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(count.max(initial=1.0), 1.0) * 4)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for left, width, value in zip(edges[:-1], np.diff(edges), count, strict=True):
        if value:
            text = f"{value:.0f}" if value < 1000 else f"{value / 1000:.3g}k" if value < 1e6 else f"{value / 1e6:.3g}M"
            axes.text(left + width / 2, value * 1.15, text, ha="center", va="bottom", fontsize=7, color=INK)
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability given")
    axes.set_ylabel("(frame, phrase) pairs")
    axes.grid(axis="y")
    axes.minorticks_off()


def _steps(curve: Mapping[str, Sequence[float]], e_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the curve from 0 to `e_max`; 0 before its first step."""
    x, y = np.array(curve["efpr"], dtype=float), np.array(curve["etpr"], dtype=float)
    return np.concatenate([[0.0], x, [e_max]]), np.concatenate([[0.0], y, y[-1:] if len(y) else [0.0]])
