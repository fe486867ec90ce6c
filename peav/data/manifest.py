"""Lhotse manifests: the truth about the clips, one cut each, one CutSet JSONL a split.

A cut's recording is the source file (path relative to the source folder), its span is the clip, its supervisions are the events
(`text` is the phrase). A clip without sound has no recording, which Lhotse reads and writes well although it cannot validate it.
The rest is custom:

| field | meaning |
|---|---|
| captions | {caption type: [texts]} |
| transcript, domain, split | as in the record |
| annotated | whether events are known |
| has_audio, has_video | what the packed clip holds |
| files | {role: path} of the source |
| origins | {role: seconds}, time zero of the packed media on their own clocks |
| video | {num_frames, fps, size: [height, width]} of the packed clip, or null |
| row, crc32 | where the bytes are in the split's shards, and their checksum |
| audio_group, video_group | identity of the packed bytes, equal for equal media |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource, VideoInfo
from lhotse.cut import Cut

from peav.data.groups import bytes_group
from peav.data.media import MediaInfo
from peav.data.records import Event, Record
from peav.data.shards import Sample
from peav.types import Seconds


def manifest_path(data: Path, split: str) -> Path:
    """Returns where a split's manifest lies."""
    return data / "manifest" / f"{split}.jsonl.gz"


def shards_path(data: Path, split: str) -> Path:
    """Returns the folder of a split's shards."""
    return data / "shards" / split


def load_manifest(data: str | Path, split: str) -> CutSet:
    """Loads the manifest of a split.

    Raises:
        FileNotFoundError: if the split was not prepared; names those that were.
    """
    path = manifest_path(Path(data), split)
    if not path.is_file():
        have = sorted(file.name.removesuffix(".jsonl.gz") for file in (Path(data) / "manifest").glob("*.jsonl.gz"))
        hint = f"it holds the splits {', '.join(have)}" if have else "run `peav prepare SOURCE OUT` first and give OUT"
        raise FileNotFoundError(f"no split {split!r} in {data}: {hint}")
    return CutSet.from_file(path)


def save_manifest(data: str | Path, split: str, cuts: CutSet) -> Path:
    """Writes the manifest of a split, such as one with rewritten captions; the shards stay as they are."""
    path = manifest_path(Path(data), split)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial-{path.name}")
    with CutSet.open_writer(partial) as writer:
        for cut in cuts:
            writer.write(cut)
    partial.replace(path)
    return path


def make_cut(
    record: Record,
    infos: dict[str, MediaInfo],
    duration: Seconds,
    events: tuple[Event, ...] | None,
    sample: Sample,
    row: int,
    source_seconds: Seconds,
) -> MonoCut:
    """Builds the cut of a packed clip.

    Args:
        record: what its author wrote.
        infos: what the packed media hold, by role.
        duration: of the clip, seconds.
        events: its events, inside the clip; None when not annotated.
        sample: what was packed.
        row: its row in the shards.
        source_seconds: duration of the source file that holds the sound.
    """
    audio_role = next((role for role, info in infos.items() if info.audio is not None and role != "video"), None)
    video_role = next((role for role, info in infos.items() if info.video is not None and role != "audio"), None)
    video = infos[video_role].video if video_role else None
    video_info = (
        VideoInfo(fps=video.fps, num_frames=video.num_frames, height=video.height, width=video.width) if video else None
    )
    recording = None
    if audio_role is not None and (audio := infos[audio_role].audio) is not None:
        num_samples = max(
            round(source_seconds * audio.sample_rate), round((record.start + duration) * audio.sample_rate)
        )
        recording = Recording(
            id=record.files[audio_role],
            sources=[
                AudioSource(
                    type="file",
                    channels=list(range(audio.num_channels)),
                    source=record.files[audio_role],
                    video=video_info if video_role == audio_role else None,
                )
            ],
            sampling_rate=audio.sample_rate,
            num_samples=num_samples,
            duration=num_samples / audio.sample_rate,
        )
    supervisions = [
        SupervisionSegment(
            id=f"{record.id}-{index}",
            recording_id=recording.id if recording else record.id,
            start=event.onset,
            duration=event.offset - event.onset,
            channel=0,
            text=event.phrase,
        )
        for index, event in enumerate(events or ())
    ]
    custom: dict[str, Any] = {
        "captions": {kind: list(texts) for kind, texts in record.captions.items()},
        "transcript": record.transcript,
        "domain": record.domain,
        "split": record.split,
        "annotated": events is not None,
        "has_audio": audio_role is not None,
        "has_video": video_role is not None,
        "files": record.files,
        "origins": {role: info.origin for role, info in infos.items()},
        # Lhotse takes a dictionary with the keys width and height for one of its images.
        "video": {"num_frames": video.num_frames, "fps": video.fps, "size": [video.height, video.width]}
        if video
        else None,
        "row": row,
        "crc32": sample.crc32,
        "audio_group": bytes_group(sample.source("audio")) if audio_role else -1,
        "video_group": bytes_group(sample.source("video")) if video_role else -1,
    }
    return MonoCut(
        record.id, record.start, duration, channel=0, recording=recording, supervisions=supervisions, custom=custom
    )


def cut_events(cut: Cut) -> tuple[Event, ...] | None:
    """Returns the events of a cut, clamped into it; None when it is not annotated."""
    if not cut.custom["annotated"]:
        return None
    spans = (
        (segment.text or "", max(segment.start, 0.0), min(segment.end, cut.duration)) for segment in cut.supervisions
    )
    return tuple(Event(phrase, onset, offset) for phrase, onset, offset in spans if onset < offset)
