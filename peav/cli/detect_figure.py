"""The picture of what was found in a file: its frames, its spectrogram, and each text's probability over time with its spans."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torchaudio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter

from peav.cli.envelope import Envelope
from peav.data.media.decode import load_audio, load_frames
from peav.data.media.errors import MediaError
from peav.inputs import probe_file
from peav.plot_style import COLOURS, INK, MUTED, STYLE
from peav.spans import Span
from peav.types import Seconds

#: For the eye: what is above half of this rate is not drawn.
_RATE, _WINDOW, _BANDS = 16000, 1024, 80
#: Sound that is decoded at once: a decoder of sound begins at the beginning for every piece.
_PIECE_SECONDS = 600.0
_DECIBEL = 70.0

#: Texts that one picture shows.
MOST_TEXTS = 12
_WIDTH = 12.0
#: Of scripts that the first font lacks, where one of these is installed.
_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Noto Sans Devanagari", "Noto Sans Arabic"),
    *("Arial Unicode MS", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Noto Emoji"),
)


def write_figure(
    path: Path,
    media: str,
    texts: Sequence[str],
    thresholds: Sequence[float],
    probabilities: Envelope,
    frame_seconds: Seconds,
    spans: Sequence[Sequence[Span]],
    seconds: Seconds,
) -> Path:
    """Draws a file: a filmstrip if it is a video, the spectrogram, and a row for each text.

    Of more than twelve texts those are shown whose probability rises furthest above their threshold.

    Args:
        path: of the PNG to write.
        media: the file.
        texts: K.
        thresholds: (K,).
        probabilities: of the texts in each frame.
        frame_seconds: the time between two frames.
        spans: of each text.
        seconds: how long the sound is.
    """
    highest = probabilities.peaks.max(1) - np.asarray(thresholds)
    shown = sorted(np.argsort(-highest, kind="stable")[:MOST_TEXTS].tolist())
    film = _filmstrip(media, seconds)
    heights = [*([1.0] if film else []), 1.5, *[0.85] * len(shown)]
    # Fonts that are not installed, and glyphs that none has, are no news to whoever looks at the picture.
    style: dict[Any, Any] = {**STYLE, "font.family": _installed(_FONTS)}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure = Figure(
            figsize=(_WIDTH, 0.9 + sum(heights) * 1.08),
            dpi=110,
            layout=ConstrainedLayoutEngine(h_pad=0.03, hspace=0.02),
        )
        every: list[Axes] = list(figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
        rows = iter(every)
        title = Path(media).name
        if len(shown) < len(texts):
            title += f", {len(shown)} of {len(texts)} texts"
        figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
        if film:
            _draw_film(next(rows), film, seconds)
        timed = every[len(heights) - len(shown) - 1 :]
        _draw_spectrogram(next(rows), media, seconds)
        times = np.arange(probabilities.means.shape[1] + 1) * probabilities.width * frame_seconds
        times[-1] = seconds
        for number, (axes, k) in enumerate(zip(rows, shown, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            curves = (probabilities.means[k], probabilities.peaks[k])
            _draw_text(axes, texts[k], thresholds[k], times, curves, spans[k], colour)
        for axes in timed:
            axes.set_xlim(0, seconds)
            axes.xaxis.set_major_locator(FixedLocator(_ticks(seconds)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value, seconds)))
            if axes is not timed[-1]:
                axes.tick_params(labelbottom=False, bottom=False)
        timed[-1].set_xlabel("time, s" if seconds < 120 else "time, min:s" if seconds < 7200 else "time, h:min:s")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    return path


def spectrogram(media: str, seconds: Seconds, num_columns: int = 1200) -> np.ndarray:
    """Returns the log-mel spectrogram (bands, columns) of a file, decibels below its loudest part; decoded piece by piece."""
    info = probe_file(media)
    filters = torchaudio.functional.melscale_fbanks(_WINDOW // 2 + 1, 40.0, _RATE / 2, _BANDS, _RATE)
    # A column or more for what the eye can tell apart: of a short file the windows overlap more.
    hop = max(16, min(_WINDOW // 2, int(seconds * _RATE / num_columns)))
    columns = Envelope(_BANDS, num_columns * 2)
    window = torch.hann_window(_WINDOW)
    begin = 0.0
    while begin < seconds:
        part = min(_PIECE_SECONDS, seconds - begin)
        samples = load_audio(media, _RATE, begin, part, "mean", origin=info.origin, pad_end=False)
        if not len(samples):
            break
        spectrum = torch.stft(samples, _WINDOW, hop, window=window, pad_mode="constant", return_complex=True)
        power = filters.T @ spectrum[:, : math.ceil(len(samples) / hop)].abs().square()
        columns.add(power.numpy())
        begin += _PIECE_SECONDS
    decibel = 10 * np.log10(columns.means + 1e-10)
    return np.clip(decibel - decibel.max(), -_DECIBEL, 0.0) if decibel.size else np.full((_BANDS, 1), -_DECIBEL)


def _draw_spectrogram(axes: Axes, media: str, seconds: Seconds) -> None:
    axes.imshow(
        spectrogram(media, seconds),
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=-_DECIBEL,
        vmax=0,
        extent=(0, seconds, 0, _BANDS),
        interpolation="nearest",
    )
    hertz = [250, 1000, 4000]
    axes.set_yticks([_band(value) for value in hertz], [f"{value / 1000:g} kHz" for value in hertz])
    axes.tick_params(axis="y", labelsize=7, length=2)


def _draw_text(
    axes: Axes,
    text: str,
    threshold: float,
    times: np.ndarray,
    curves: tuple[np.ndarray, np.ndarray],
    spans: Sequence[Span],
    colour: str,
) -> None:
    mean, peak = curves
    # A span of a second in a long file is still seen: the bar above it is at least as wide as a line.
    least = times[-1] / 900
    axes.broken_barh([(s.onset, s.offset - s.onset) for s in spans], (0, 1), color=colour, alpha=0.16, linewidth=0)
    bars = [(s.onset, max(s.offset - s.onset, least)) for s in spans]
    axes.broken_barh(bars, (1.03, 0.08), color=colour, linewidth=0, clip_on=False)
    if not np.array_equal(mean, peak):
        axes.fill_between(times, 0, np.append(peak, peak[-1]), step="post", color=colour, alpha=0.35, linewidth=0)
    axes.step(times, np.append(mean, mean[-1]), where="post", color=colour, linewidth=1.1)
    axes.axhline(threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
    axes.set_ylim(0, 1.0)
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(axis="y", labelsize=7, length=2)
    axes.grid(axis="y", linewidth=0.6)
    found = f"{len(spans)} span{'s' if len(spans) != 1 else ''} above {threshold:.2f}"
    axes.set_title(f"{_plain(textwrap.shorten(text, 90, placeholder=' …'))}", fontsize=9, color=INK, pad=9.5)
    axes.set_title(found, fontsize=8, loc="right", color=MUTED, fontweight="normal", pad=9.5)


def _draw_film(axes: Axes, film: list[np.ndarray], seconds: Seconds) -> None:
    """Draws frames side by side, each over the part of the time from whose middle it is."""
    height, width = film[0].shape[:2]
    strip = np.full((height, len(film) * (width + 4) - 4, 3), 255, np.uint8)
    for index, frame in enumerate(film):
        strip[:, index * (width + 4) : index * (width + 4) + width] = frame
    axes.imshow(strip, aspect="auto", extent=(0, seconds, 0, 1), interpolation="antialiased")
    axes.set_axis_off()


def _filmstrip(media: str, seconds: Seconds) -> list[np.ndarray]:
    """Returns frames (H, W, 3) evenly spaced over the sound; none of what is no video, or cannot be decoded as one."""
    try:
        info = probe_file(media)
        if info.video is None or info.video.still or not info.video.num_frames:
            return []
        aspect = info.video.width / info.video.height
        height = 110
        width = max(8, round(height * min(max(aspect, 0.4), 2.4)))
        count = max(2, round(_WIDTH * 110 / (width + 4)))
        frames, _ = load_frames(media, count, None, 0.0, seconds, (height, width), "time", media, info.origin)
    except (MediaError, ValueError):
        return []
    return [frame.permute(1, 2, 0).numpy() for frame in frames]


def _band(hertz: float) -> float:
    """Returns where a frequency stands on the axis of the mel bands."""

    def mel(value: float) -> float:
        return 2595 * math.log10(1 + value / 700)

    return _BANDS * (mel(hertz) - mel(40.0)) / (mel(_RATE / 2) - mel(40.0))


def _ticks(seconds: Seconds) -> list[Seconds]:
    """Returns at most 13 times that are round on a clock.

    >>> _ticks(4.0)[:3], _ticks(3600.0)[:3]
    ([0.0, 0.5, 1.0], [0.0, 300.0, 600.0])
    """
    steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800]
    steps += [3600 * hours for hours in (1, 2, 6, 12, 24)]
    step = next((step for step in steps if seconds / step <= 12), seconds / 12)
    return [float(round(index * step, 6)) for index in range(int(seconds / step + 1e-9) + 1)]


def _clock(value: float, seconds: Seconds) -> str:
    """Writes a time as long as the file wants it.

    >>> _clock(7.5, 20.0), _clock(75.0, 600.0), _clock(3675.0, 9000.0)
    ('7.5', '1:15', '1:01:15')
    """
    if seconds < 120:
        return f"{value:g}"
    whole = round(value)
    if seconds < 7200:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _plain(text: str) -> str:
    """Returns a text that matplotlib takes as it is: `$` begins no formula, and what is no UTF-8 is shown escaped."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return shown.replace("$", r"\$")


def _installed(fonts: Sequence[str]) -> list[str]:
    from matplotlib import font_manager  # reads the fonts of the machine

    known = {font.name for font in font_manager.fontManager.ttflist}
    return [font for font in fonts if font in known] or ["sans-serif"]
