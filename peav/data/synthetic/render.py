"""From scenes to media files: sounds, frames, and one ffmpeg process for a batch of clips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.synthetic.captions import captions, domain_of, transcript
from peav.data.synthetic.ffmpeg import run_ffmpeg
from peav.data.synthetic.motion import envelope, frames_of
from peav.data.synthetic.sounds import audible, levelled, sound
from peav.data.synthetic.speech import say
from peav.data.synthetic.world import Scene, timeline

_SUFFIX = {"audio_video": ".mp4", "audio": ".flac", "video": ".mp4"}
#: Root mean square of the noise under everything, 64 dB below full scale.
_FLOOR = 6e-4
_H264 = (
    "-c:v",
    "libx264",
    "-preset",
    "superfast",
    "-crf",
    "19",
    "-g",
    "16",
    "-bf",
    "0",
    "-threads",
    "1",
    "-pix_fmt",
    "yuv420p",
)
# AAC's default search takes as long as all the rest of a clip together.
_AAC = ("-c:a", "aac", "-aac_coder", "fast", "-b:a", "64k")
_EXACT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")

Record = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """A clip before it is encoded.

    Attributes:
        sound: The mix, (samples,), in [-1, 1].
        frames: The frames, (frames, height, width, 3), or None for a clip without video.
        spans: The (onset, offset) of each event, in seconds.
    """

    sound: NDArray[np.float64]
    frames: NDArray[np.uint8] | None
    spans: list[tuple[float, float]]


def media_path(scene: Scene) -> str:
    """Returns where the media of a clip lies, relative to its world's folder."""
    return f"media/{scene.id}{_SUFFIX[scene.media]}"


def render(
    scene: Scene, speech: dict[int, NDArray[np.float64]], fps: int, frame_size: int, sample_rate: int
) -> Rendered:
    """Renders one clip.

    Args:
        scene: The scene.
        speech: The waveform of each event that is speech, by its index.
        fps: Video frames a second.
        frame_size: Height and width of a frame in pixels.
        sample_rate: Audio samples a second.
    """
    frames, spans = timeline(scene, {k: wave.size / sample_rate for k, wave in speech.items()}, fps)
    samples = round(frames / fps * sample_rate)
    rng = scene.rng(3)
    mix = _FLOOR * np.convolve(rng.standard_normal(samples + 3), np.full(4, 0.5), mode="valid")
    envelopes = []
    heard = []
    for k, (event, (onset, offset)) in enumerate(zip(scene.events, spans, strict=True)):
        if k in speech:
            wave = speech[k]
        else:
            wave = sound(event.source.name, rng, offset - onset, sample_rate, event.manner, event.register)
            wave = audible(wave, sample_rate)
        first = round(onset * sample_rate)
        wave = levelled(wave[: samples - first], sample_rate, event.level)
        mix[first : first + wave.size] += wave
        heard.append((onset, round(onset + wave.size / sample_rate, 3)))
        envelopes.append(envelope(wave, onset, frames, fps, sample_rate))
    mix /= max(1.0, float(np.abs(mix).max()) / 0.97)
    return Rendered(mix, frames_of(scene, envelopes, fps, frame_size) if scene.things else None, heard)


def record_of(scene: Scene, spans: Sequence[tuple[float, float]]) -> Record:
    """Returns the line of `clips.jsonl` of a clip; only what its media hold is described."""
    record: Record = {"id": scene.id, "media": media_path(scene), "captions": captions(scene)}
    said = transcript(scene)
    if said is not None and scene.media != "video":
        record["transcript"] = said
    record["domain"] = domain_of(scene)
    if scene.media != "video":
        record["events"] = [
            {"phrase": event.source.phrase, "onset": onset, "offset": offset}
            for event, (onset, offset) in zip(scene.events, spans, strict=True)
        ]
    record["split"] = scene.split
    return record


def make_clips(
    batch: Sequence[Scene], wanted: Container[str], out: Path, fps: int, frame_size: int, sample_rate: int
) -> list[Record]:
    """Renders and encodes clips into `out`, each file written under another name first.

    Args:
        batch: Scenes that always go together, since their sentences are said in one go.
        wanted: Ids of those that are to be made.
        out: Folder of the world.
        fps: Video frames a second.
        frame_size: Height and width of a frame in pixels.
        sample_rate: Audio samples a second.

    Returns:
        The records of the wanted clips, in the order of `batch`.

    Raises:
        RuntimeError: If ffmpeg fails.
    """
    lines = [(k, e, event) for k, scene in enumerate(batch) for e, event in enumerate(scene.events) if event.sentence]
    waves = say([(event.source.name, event.sentence or "") for _, _, event in lines], sample_rate)
    speech: list[dict[int, NDArray[np.float64]]] = [{} for _ in batch]
    for (k, e, _), wave in zip(lines, waves, strict=True):
        speech[k][e] = wave
    records = []
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as name:
        folder = Path(name)
        inputs: list[str] = []
        outputs: list[str] = []
        count = 0
        for scene, said in zip(batch, speech, strict=True):
            if scene.id not in wanted:
                continue
            clip = render(scene, said, fps, frame_size, sample_rate)
            maps: list[str] = []
            if clip.frames is not None:
                clip.frames.tofile(folder / f"{scene.id}.rgb")
                inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{frame_size}x{frame_size}", "-r", str(fps)]
                inputs += ["-i", f"{scene.id}.rgb"]
                maps += ["-map", f"{count}:v", *_H264]
                count += 1
            if scene.media != "video":
                (clip.sound * 32767).round().astype("<i2").tofile(folder / f"{scene.id}.pcm")
                inputs += ["-f", "s16le", "-ar", str(sample_rate), "-ac", "1", "-i", f"{scene.id}.pcm"]
                maps += ["-map", f"{count}:a", *(("-c:a", "flac") if scene.media == "audio" else _AAC)]
                count += 1
            outputs += [*maps, *_EXACT, Path(media_path(scene)).name]
            records.append(record_of(scene, clip.spans))
        run_ffmpeg([*inputs, *outputs], cwd=folder)
        for record in records:
            os.replace(folder / Path(record["media"]).name, out / record["media"])
    return records
