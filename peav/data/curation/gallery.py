"""A few clips to look at: chosen evenly over the domains, decoded, and turned into small pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import matplotlib
import numpy as np
import torch
import torchaudio
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from peav import html, plot_style
from peav.data.curation.player import player, sound_uri
from peav.data.curation.sampling import uniform
from peav.data.manifests.clip import Clip
from peav.data.manifests.index import ManifestIndex
from peav.data.media.decode import load_audio, load_frames
from peav.data.media.probing import MediaError
from peav.data.stores.outside import open_address
from peav.data.stores.reader import ShardReader
from peav.data.stores.remote import StoreError, StoreOptions
from peav.data.stores.samples import Sample, ShardError
from peav.types import Seconds

#: Seconds of a clip that are decoded for its picture.
SHOWN_SECONDS: Seconds = 60.0

_SAMPLE_RATE = 16000
_EVENT_LANES = 6
_SHEET_COLUMNS = 3

#: A dollar sign in a caption is a dollar sign.
STYLE: Any = {**plot_style.STYLE, "text.parse_math": False}


@dataclass(frozen=True)
class ShownClip:
    """A clip to be shown.

    Attributes:
        clip: what its manifest says.
        frame: `data:` URI of its middle frame, or of several, or None.
        sound: `data:` URI of its spectrogram with its events, or None.
        heard: `data:` URI of its sound, or None.
        errors: why something could not be decoded.
        shown: seconds of it that the spectrogram shows.
    """

    clip: Clip
    frame: str | None = None
    sound: str | None = None
    heard: str | None = None
    errors: tuple[str, ...] = ()
    shown: Seconds = 0.0


def clip_style() -> str:
    """Returns the rules by which pages show clips."""
    return html.resource("peav.data.curation", "clips.css")


def clip_grid(clips: Iterable[str]) -> str:
    """Returns clips beside each other, each of them HTML."""
    return f'<div class="clips">{"".join(clips)}</div>'


def media_of(tile: ShownClip, name: str) -> str:
    """Returns the picture, the spectrogram and the player of a clip as HTML, as far as it has them.

    Args:
        tile: the clip.
        name: what those who do not see the picture are told that it is of.
    """
    parts = []
    if tile.frame is not None:
        parts.append(f'<img class="frame" src="{tile.frame}" alt="What is seen in clip {escape(name)}">')
    if tile.sound is not None:
        lanes = ", with its events as bars" if any(event.span for event in tile.clip.events or ()) else ""
        parts.append(f'<img class="sound" src="{tile.sound}" alt="Log-mel spectrogram of clip {escape(name)}{lanes}">')
    if tile.heard is not None:
        parts.append(player(tile.heard, f"The sound of clip {escape(name)}"))
    return "".join(parts)


def choose_clips(index: ManifestIndex, number: int, seed: int) -> list[int]:
    """Returns the positions of `number` clips, as many of each domain as there are, in the order of the domains' names.

    The choice depends on ids alone, not on the order of the manifest.
    """
    numbers = uniform(np.asarray(index.id), "inspect", seed)
    domain = np.asarray(index.domain)
    by_domain = []
    for name in sorted(index.domains):
        held = np.flatnonzero(domain == index.domains.index(name))
        by_domain.append(held[np.argsort(numbers[held], kind="stable")][:number].tolist())
    rounds = [(place, order) for order, held in enumerate(by_domain) for place in range(len(held))]
    taken = sorted(order_place[::-1] for order_place in sorted(rounds)[:number])
    return [by_domain[order][place] for order, place in taken]


class TileMaker:
    """Decodes clips for the eye. What goes wrong is part of the tile.

    Args:
        data: folder or address that relative stores start from.
        options: of object stores.
        frames: of a video that are shown, evenly over the clip; its middle one by default.
    """

    def __init__(self, data: str, options: StoreOptions | None = None, frames: int = 1) -> None:
        self._data, self._options, self._frames = data, options, frames
        self._readers: dict[str, ShardReader] = {}

    def make(self, clip: Clip) -> ShownClip:
        """Returns the tile of a clip."""
        tile = ShownClip(clip, shown=min(clip.duration, SHOWN_SECONDS))
        try:
            sample = self._sample(clip)
        except (ShardError, StoreError) as error:
            return replace(tile, errors=(str(error),))
        if clip.has_video:
            tile = self._add(tile, "frame", clip, sample)
        if clip.has_audio:
            tile = self._add(tile, "sound", clip, sample)
        return tile

    def _add(self, tile: ShownClip, what: str, clip: Clip, sample: Sample) -> ShownClip:
        try:
            made = (
                {"frame": _frame(clip, sample, self._frames)} if what == "frame" else _sound(clip, sample, tile.shown)
            )
        except MediaError as error:
            return replace(tile, errors=(*tile.errors, str(error)))
        except Exception as error:  # one clip must not cost the page, whatever its bytes provoke
            return replace(
                tile, errors=(*tile.errors, f"{what} of clip {clip.id!r}: unexpected {type(error).__name__}: {error}")
            )
        return replace(tile, **made)  # type: ignore[arg-type]

    def _sample(self, clip: Clip) -> Sample:
        address = open_address(self._data, clip.store, self._options)
        if address not in self._readers:
            self._readers[address] = ShardReader(address, self._options)
        return self._readers[address].read(clip.row, crc32=clip.crc32, name=clip.id)


def _frame(clip: Clip, sample: Sample, number: int) -> str:
    frames, _ = load_frames(
        sample.source("video"),
        number,
        start=max(clip.offset, 0.0),
        duration=clip.duration,
        path=f"video of clip {clip.id!r}",
        origin=clip.origin("video"),
        animated=clip.is_animated,
    )
    return frame_uri(_sheet(frames).permute(1, 2, 0).numpy(), width=320 * min(len(frames), _SHEET_COLUMNS))


def _sheet(frames: Tensor) -> Tensor:
    """Lays frames (F, 3, H, W) out in rows, from left to right, as one picture (3, H', W')."""
    if len(frames) == 1:
        return frames[0]
    gap = max(frames.shape[-1] // 80, 1)
    framed = torch.nn.functional.pad(frames, (gap,) * 4)
    rows = [torch.cat(list(row), dim=2) for row in framed.split(_SHEET_COLUMNS)]
    return torch.cat([torch.nn.functional.pad(row, (0, rows[0].shape[2] - row.shape[2])) for row in rows], dim=1)


def _sound(clip: Clip, sample: Sample, seconds: Seconds) -> dict[str, str]:
    name, origin = f"audio of clip {clip.id!r}", clip.origin("audio")
    source = sample.source("audio")
    samples = load_audio(source, _SAMPLE_RATE, max(clip.offset, 0.0), seconds, path=name, origin=origin)
    if not bool(torch.isfinite(samples).all()):
        raise MediaError(name, "holds NaN or infinite samples")
    spans = [(event.phrase, *event.span) for event in clip.events or () if event.span is not None]
    picture = figure_uri(sound_figure(decibels(samples, _SAMPLE_RATE).numpy(), seconds, spans), dpi=110)
    return {"sound": picture, "heard": sound_uri(samples, _SAMPLE_RATE)}


def decibels(samples: Tensor, sample_rate: int, num_bands: int = 64, num_columns: int = 400) -> Tensor:
    """Computes a log-mel spectrogram for the eye, not for a model.

    Args:
        samples: (S,) float.
        sample_rate: in Hz.
        num_bands: mel bands.
        num_columns: about how many columns.

    Returns:
        (num_bands, columns) in dB below the loudest, at least -70.
    """
    size = 1024
    hop = max(len(samples) // num_columns, 1)
    padded = torch.nn.functional.pad(samples, (0, max(0, size - len(samples))))
    spectrum = torch.stft(padded, size, hop, window=torch.hann_window(size), pad_mode="constant", return_complex=True)
    bands = torchaudio.functional.melscale_fbanks(size // 2 + 1, 40.0, sample_rate / 2, num_bands, sample_rate)
    power = bands.T @ spectrum.abs().square()
    level = 10 * (power + 1e-10).log10()
    return (level - level.max()).clamp(min=-70)


def sound_figure(mel: NDArray, seconds: Seconds, events: Sequence[tuple[str, Seconds, Seconds]]) -> Figure:
    """Draws a spectrogram, and above it each phrase's events as bars in a lane of its own.

    Args:
        mel: (bands, columns) in dB.
        seconds: that it spans.
        events: (phrase, onset, offset), times in seconds.
    """
    lanes = list(dict.fromkeys(phrase for phrase, _, _ in events))
    hidden = len(lanes) - _EVENT_LANES
    lanes = lanes[:_EVENT_LANES]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 1.5 + 0.2 * len(lanes)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(
            mel, cmap="magma", origin="lower", aspect="auto", extent=(0, seconds, 0, 1), interpolation="bilinear"
        )
        for phrase, onset, offset in events:
            if phrase in lanes and onset < seconds:
                lane, end = lanes.index(phrase), min(offset, seconds)
                axes.barh(
                    1.06 + 0.16 * lane,
                    end - onset,
                    0.13,
                    onset,
                    align="edge",
                    color=plot_style.COLOURS[lane % len(plot_style.COLOURS)],
                )
        axes.set_xlim(0, seconds)
        axes.set_ylim(0, 1.08 + 0.16 * len(lanes))
        names = [lane if len(lane) <= 22 else f"{lane[:21]}…" for lane in lanes]
        axes.set_yticks([1.125 + 0.16 * lane for lane in range(len(lanes))], names, fontsize=8)
        more = f" ({hidden} more phrases)" if hidden > 0 else ""
        axes.set_xlabel(f"seconds{more}", fontsize=8)
        axes.spines[:].set_visible(False)
        return figure


def figure_uri(figure: Figure, dpi: int = 130) -> str:
    """Renders a figure as the `data:` URI of a PNG."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def frame_uri(frame: NDArray, width: int = 320) -> str:
    """Encodes a frame uint8 (H, W, 3) as the `data:` URI of a JPEG at most `width` pixels wide."""
    image = Image.fromarray(frame)
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
