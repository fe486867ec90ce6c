"""Pictures of media: thumbnails, log-mel spectrograms, and event probabilities over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
import torch
import torchaudio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from peav.data.curation.player import sound_uri
from peav.evaluation.plots import STYLE
from peav.plot_style import COLOURS, INK, MUTED
from peav.types import Seconds

#: What shows a clip: (frame uint8 (H, W, 3) or None, waveform float (S,) or None, sample rate in Hz) of a clip id.
MediaLoader = Callable[[str], tuple[Tensor | NDArray | None, Tensor | NDArray | None, int]]


@dataclass
class ClipMedia:
    """Loads each clip once, and turns it into small pictures.

    Attributes:
        loader: where the media come from.
    """

    loader: MediaLoader
    _cache: dict[str, tuple[NDArray | None, NDArray | None, Seconds]] = field(default_factory=dict)
    _heard: dict[str, str] = field(default_factory=dict)

    def get(self, clip_id: str) -> tuple[NDArray | None, NDArray | None, Seconds]:
        """Returns a frame uint8 (H, W, 3), a log-mel spectrogram (bands, columns) in dB, and the length in seconds.

        Raises:
            ValueError: if the loader gives another shape or type.
        """
        if clip_id not in self._cache:
            frame, waveform, sample_rate = self.loader(clip_id)
            picture = None if frame is None else np.asarray(frame)
            if picture is not None and (picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3):
                raise ValueError(
                    f"clip {clip_id!r}: expected a frame uint8 (H, W, 3), got {picture.dtype} {picture.shape}"
                )
            if waveform is None:
                self._cache[clip_id] = (picture, None, 0.0)
            else:
                samples = torch.as_tensor(waveform).float()
                mel = log_mel(samples, sample_rate).numpy()
                self._heard[clip_id] = sound_uri(samples, sample_rate)
                self._cache[clip_id] = (picture, mel, len(samples) / sample_rate)
        return self._cache[clip_id]

    def heard(self, clip_id: str) -> str | None:
        """Returns the `data:` URI of a clip's sound, None where it has none."""
        self.get(clip_id)
        return self._heard.get(clip_id)


def log_mel(waveform: Tensor, sample_rate: int, num_bands: int = 64, num_columns: int = 300) -> Tensor:
    """Computes a log-mel spectrogram for the eye, not for a model.

    Args:
        waveform: (S,) float.
        sample_rate: in Hz.
        num_bands: mel bands from 40 Hz to half the sample rate.
        num_columns: about how many columns.

    Returns:
        (num_bands, columns) in dB below the loudest, at least -70.

    Raises:
        ValueError: if the waveform is not one-dimensional or empty.
    """
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"expected a waveform (samples,), got {tuple(waveform.shape)}")
    window = 1 << max(int(sample_rate * 0.04).bit_length(), 8)  # 40 to 80 ms: enough to tell 64 bands apart
    hop = max(len(waveform) // num_columns, 1)
    spectrum = torch.stft(
        waveform, window, hop, window=torch.hann_window(window), pad_mode="constant", return_complex=True
    )
    filters = torchaudio.functional.melscale_fbanks(window // 2 + 1, 40.0, sample_rate / 2, num_bands, sample_rate)
    power = filters.T @ spectrum.abs().square()
    decibel = 10 * (power + 1e-10).log10()
    return (decibel - decibel.max()).clamp(min=-70)


def frame_uri(frame: NDArray, width: int = 320) -> str:
    """Encodes a frame uint8 (H, W, 3) as the `data:` URI of a JPEG at most `width` pixels wide."""
    image = Image.fromarray(frame)
    if image.width > width:
        image = image.resize((width, max(round(image.height * width / image.width), 1)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def mel_uri(mel: NDArray, width: int = 320, height: int = 96) -> str:
    """Encodes a log-mel spectrogram (bands, columns) as the `data:` URI of a PNG, low bands at the bottom."""
    shade = (mel - mel.min()) / max(float(mel.max() - mel.min()), 1e-6)
    colours = matplotlib.colormaps["magma"](shade[::-1], bytes=True)[..., :3]
    image = Image.fromarray(np.ascontiguousarray(colours)).resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.quantize(64).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class EventCurves:
    """Event probabilities of one clip, to be drawn.

    Attributes:
        clip_id: the clip.
        probabilities: (T,) by phrase.
        spans: true (onset, offset) in seconds, by phrase; a phrase that does not sound has none.
        frame_seconds: time between two frames.
    """

    clip_id: str
    probabilities: dict[str, NDArray]
    spans: Mapping[str, Sequence[tuple[Seconds, Seconds]]]
    frame_seconds: Seconds


def events_figure(curves: EventCurves, mel: NDArray | None, seconds: Seconds, label: str = "probability") -> Figure:
    """Draws one clip's event probabilities over its spectrogram, the true spans shaded and marked in lanes above."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.5), layout="constrained")
        draw_events(figure.subplots(), curves, mel, seconds, label)
        return figure


def draw_events(
    axes: Axes, curves: EventCurves, mel: NDArray | None, seconds: Seconds, label: str = "probability"
) -> None:
    """Draws event probabilities over a spectrogram.

    Args:
        axes: where.
        curves: what.
        mel: (bands, columns) in dB, or None to draw on white.
        seconds: length of the spectrogram.
        label: of the vertical axis.
    """
    num_frames = max((len(p) for p in curves.probabilities.values()), default=0)
    times = (np.arange(num_frames) + 0.5) * curves.frame_seconds
    length = max(seconds, num_frames * curves.frame_seconds)
    if mel is not None:
        axes.imshow(
            mel,
            cmap="Greys",
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, 1),
            alpha=0.55,
            interpolation="bilinear",
        )
    lane = 0.075
    for row, (phrase, values) in enumerate(curves.probabilities.items()):
        colour = COLOURS[row % len(COLOURS)]
        spans = curves.spans.get(phrase, ())
        name = phrase if spans else f"{phrase} (not in this clip)"
        axes.plot(times[: len(values)], values, color="white", lw=3.4, alpha=0.7)
        axes.plot(times[: len(values)], values, color=colour, lw=1.8, label=name, ls="-" if spans else (0, (4, 2)))
        for onset, offset in spans:
            axes.axvspan(
                onset, offset, ymax=1 / (1.06 + lane * len(curves.probabilities)), color=colour, alpha=0.13, lw=0
            )
            axes.barh(1.06 + lane * row, offset - onset, left=onset, height=lane * 0.8, align="edge", color=colour)
    axes.set_xlim(0, length)
    axes.set_ylim(0, 1.06 + lane * len(curves.probabilities))
    axes.set_yticks([0, 0.5, 1])
    axes.set_xlabel("seconds")
    axes.set_ylabel(label)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5, handlelength=1.6, labelcolor=INK)


def draw_thumbnail(axes: Axes, frame: NDArray | None, mel: NDArray | None, caption: str, right: bool) -> None:
    """Draws a retrieved clip: its frame above its spectrogram, and below whether it is the right one."""
    tiles = []
    if frame is not None:
        tiles.append(np.asarray(Image.fromarray(frame).resize((320, 200), Image.Resampling.LANCZOS)))
    if mel is not None:
        shade = (mel - mel.min()) / max(float(mel.max() - mel.min()), 1e-6)
        colours = matplotlib.colormaps["magma"](shade[::-1], bytes=True)[..., :3]
        tiles.append(np.asarray(Image.fromarray(np.ascontiguousarray(colours)).resize((320, 90))))
    if tiles:
        axes.imshow(np.concatenate(tiles))
    axes.set_anchor("N")
    axes.set_xticks([])
    axes.set_yticks([])
    colour = COLOURS[2] if right else MUTED
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5 if right else 1)
    axes.set_xlabel(f"{'✓' if right else '✗'} {caption}", color=colour, fontsize=9)
