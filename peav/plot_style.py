"""How figures look, on the page of a manifest and in the report of an evaluation: colours, and matplotlib's settings."""

from __future__ import annotations

from typing import Any

#: Okabe and Ito's colours: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, MUTED, FAINT = "#22303c", "#667583", "#d5dce2"

#: For `matplotlib.rc_context`.
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": "#e8edf1",
    "legend.frameon": False,
    "figure.facecolor": "white",
}
