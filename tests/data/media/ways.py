"""The four ways on which a medium comes to a model, each held against FFmpeg's own decode of the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.data import open_manifest, prepare
from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.data.media.normalize import Normalize
from peav.data.readers import Folder
from peav.inputs import item_of_file, probe_file
from peav.inputs.items import Request
from peav.inputs.windows import plan_windows
from tests.data.media.formats import Format, first_stamp, heard_by_ffmpeg, native_rate, seen_by_ffmpeg

CHUNK = 2.0
SIZE = 16
#: Pictures a second that are compared, at the middles of their parts.
LOOKS = 25

WAYS = ("whole", "chunks", "normalize", "embed", "windows")


def decoded(path: Path, way: str, rate: int, scratch: Path) -> tuple[Tensor | None, list[tuple[float, Tensor]] | None]:
    """Decodes a file on one of the ways.

    Returns:
        The samples (S,), and pairs of a time and the brightness that is shown there; None for what is not there.
    """
    if way in ("embed", "windows"):
        return _embedded(path, CHUNK if way == "windows" else None, rate)
    source = scratch / "source"
    source.mkdir()
    shutil.copy(path, source / path.name)
    normalize = Normalize(video_size=SIZE, video_fps=LOOKS, audio_sample_rate=rate) if way == "normalize" else None
    prepare(
        source,
        scratch / "out",
        reader=Folder(),
        chunk_seconds=CHUNK if way == "chunks" else 0,
        workers=0,
        progress=False,
        normalize=normalize,
        min_seconds=0.01,
    )
    reader = ClipReader(str(scratch / "out"), DecodeSettings(rate, None, LOOKS, (SIZE, SIZE)))
    samples, shown, has = [], [], [False, False]
    for clip in open_manifest(scratch / "out", "train"):
        has = [has[0] or clip.has_audio, has[1] or clip.has_video]
        samples.append(reader.samples(clip))
        frames = reader.frames(clip)
        step = clip.duration / len(frames)
        shown += [
            (clip.start + (index + 0.5) * step, frame.float().mean())
            for index, frame in enumerate(frames)
            if clip.has_video
        ]
    return torch.cat(samples) if has[0] else None, shown if has[1] else None


def _embedded(path: Path, window: float | None, rate: int) -> tuple[Tensor | None, list[tuple[float, Tensor]] | None]:
    item = item_of_file(str(path), probe_file(str(path)), ("audio", "video"))
    media = MediaSettings(sample_rate=rate, frame_size=SIZE, num_frames=None, fps=LOOKS, sampling="time")
    samples: list[Tensor] = []
    shown: list[tuple[float, Tensor]] = []
    for part in plan_windows(item.seconds, window):
        request = Request(0, item, part, media)
        loaded = request.load()
        if loaded.samples is not None:
            # The last window may begin within the one before it.
            begin = round(part.start * rate)
            samples = [torch.cat(samples)[:begin]] if samples else []
            samples.append(torch.from_numpy(loaded.samples))
        if loaded.frames is not None:
            frames = torch.from_numpy(loaded.frames).float().flatten(1).mean(1)
            shown += [(part.start + (index + 0.5) * loaded.frame_seconds, one) for index, one in enumerate(frames)]
    return torch.cat(samples) if item.audio else None, shown if item.video else None


def compare(path: Path, form: Format, way: str, scratch: Path) -> list[str]:
    """Decodes a file on one of the ways and by FFmpeg; returns in what they differ."""
    rate = native_rate(path) if form.audio is not None else 16000
    samples, shown = decoded(path, way, rate, scratch)
    faults = []
    if (samples is not None) != (form.audio is not None) or (shown is not None) != (form.video is not None):
        return [f"audio {samples is not None}, video {shown is not None}"]
    # FFmpeg counts from the first time stamp, also where encoder delay puts that before 0; a file begins at 0.
    before = max(0.0, -first_stamp(path))
    if samples is not None and form.audio is not None:
        heard = heard_by_ffmpeg(path, form.audio, rate, form.timed)[round(before * rate) :]
        # Of a long recording a rest of less than a second is no clip.
        rest = 1.0 if way == "chunks" else 0.05
        faults += _compare_samples(samples, heard, rate, form, rest)
    if shown is not None and form.video is not None:
        times, levels = seen_by_ffmpeg(path, form.video)
        faults += _compare_frames(shown, [time - before for time in times], levels)
    return faults


def _compare_samples(got: Tensor, want: Tensor, rate: int, form: Format, rest: float) -> list[str]:
    faults = []
    size = min(len(got), len(want))
    # Where a clip lasts as long as its pictures, silence may follow the sound.
    if size < len(want) - rest * rate or float(got[len(want) :].abs().sum()) > 1e-3 * len(got):
        faults.append(f"{len(got) / rate:.3f} s of {len(want) / rate:.3f} s")
    got, want = got[:size].double(), want[:size].double()
    error, scale = float((got - want).abs().max()), float(want.abs().max())
    if form.lossless and error > 1e-3 * max(1.0, scale):
        where = int((got - want).abs().argmax()) / rate
        faults.append(f"samples differ by {error:.2g} at {where:.3f} s, lag {_lag(got, want)}")
    correlation = float((got * want).sum() / (got.norm() * want.norm()).clamp_min(1e-12))
    level = float(got.norm() / want.norm().clamp_min(1e-12))
    if not form.lossless and (correlation < 0.999 or _lag(got, want) or abs(level - 1) > 0.01):
        faults.append(f"correlation {correlation:.5f}, lag {_lag(got, want)}, level {level:.3f}")
    return faults


def _lag(got: Tensor, want: Tensor) -> int:
    """Returns by how many samples one sound comes later than the other."""
    size = 2 * len(got)
    peak = torch.fft.irfft(torch.fft.rfft(got, size) * torch.fft.rfft(want, size).conj(), size).argmax()
    return int(peak) - (size if int(peak) > size // 2 else 0)


def _compare_frames(shown: list[tuple[float, Tensor]], times: list[float], levels: Tensor) -> list[str]:
    faults = []
    for time, level in shown:
        number = max(0, sum(begin <= time for begin in times) - 1)
        # A picture that begins within a thousandth of a second of the time may be either.
        near = {number} | {
            i for i in (number - 1, number + 1) if 0 <= i < len(times) and abs(times[max(i, number)] - time) < 2e-3
        }
        if min(abs(float(level) - float(levels[i])) for i in near) > 6:
            closest = min(
                range(len(times)), key=lambda i: abs(float(level) - float(levels[i])) * 100 + abs(times[i] - time)
            )
            faults.append(
                f"{time:.3f} s shows picture {closest} at {times[closest]:.3f}, not {number} at {times[number]:.3f}"
            )
    return [f"{len(faults)} of {len(shown)} frames, such as {faults[len(faults) // 2]}"] if faults else []
