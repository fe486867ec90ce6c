"""Writes a world: media files, `clips.jsonl` and `world.json`; and finds its way back into one that was begun."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from peav.data.synthetic.captions import domain_of
from peav.data.synthetic.ffmpeg import check_ffmpeg
from peav.data.synthetic.render import Record, make_clips
from peav.data.synthetic.sources import DOMAINS, sources_of
from peav.data.synthetic.world import VERSION, Scene, sample_world

#: Clips that go through one ffmpeg process: starting it costs more than encoding a clip. Part of the world: see `say`.
_BATCH = 12
#: The records of the clips made so far, in the order in which they were made; gone when the world is complete.
_JOURNAL = ".finished.jsonl"


@dataclass(frozen=True)
class WorldReport:
    """What `synthesize` wrote.

    Attributes:
        out: Folder of the world.
        manifest: Path of `clips.jsonl`.
        clips: Number of clips.
        made: How many of them were made by this call; the others were there already.
        splits: Number of clips a split.
        domains: Number of clips a domain.
        media: Number of clips that hold "audio_video", "audio" or "video".
    """

    out: Path
    manifest: Path
    clips: int
    made: int
    splits: dict[str, int]
    domains: dict[str, int]
    media: dict[str, int]


def synthesize(
    out: Path,
    clips: int,
    seed: int = 0,
    domains: Sequence[str] = ("speech", "music", "effects"),
    workers: int | None = None,
    frame_size: int = 96,
    fps: int = 12,
    sample_rate: int = 16000,
) -> WorldReport:
    """Makes a small audio-visual world to train on and to test with: clips, captions, events and splits.

    A clip of 4 to 5 s mostly holds two sounds (bells, instruments, voices, ...), each made by its own shape, which
    moves as its sound goes; some sounds are off screen, some shapes silent. Test and validation clips combine sources,
    and looks and colours, that no training clip combines. Writes OUT/clips.jsonl (one clip a line), OUT/media/ and
    OUT/world.json. The same settings give the same files, whatever the number of workers; a call that was interrupted
    continues where it stopped.

    Args:
        out: Folder to write, new or begun by a call with the same settings.
        clips: Number of clips, at least 5.
        seed: Seed of everything random, not negative.
        domains: Domains of the sources: speech (needs an FFmpeg with flite), music, effects.
        workers: Batches of clips made at the same time; one a CPU core if not given.
        frame_size: Height and width of the video in pixels, even, at least 32.
        fps: Video frames a second, 4 to 60.
        sample_rate: Audio samples a second in Hz, 16000 to 48000.

    Returns:
        What was written, in numbers.

    Raises:
        ValueError: If a setting is out of its range, or `out` holds a world with other settings.
        RuntimeError: If ffmpeg is missing or lacks what is needed, or fails.
    """
    if seed < 0:
        raise ValueError(f"seed={seed}: must not be negative.")
    if frame_size < 32 or frame_size % 2:
        raise ValueError(f"frame_size={frame_size}: must be even and at least 32 (H.264 in yuv420p).")
    if not 4 <= fps <= 60:
        raise ValueError(f"fps={fps}: must be from 4 to 60.")
    if not 16000 <= sample_rate <= 48000:
        raise ValueError(f"sample_rate={sample_rate}: must be from 16000 to 48000 Hz, since the sounds reach 7 kHz.")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: must be at least 1.")
    sources_of(domains)  # raises where a domain does not exist
    chosen = [domain for domain in DOMAINS if domain in domains]
    scenes = sample_world(clips, seed, chosen)
    check_ffmpeg(speech="speech" in chosen)

    out = Path(out)
    _open_world(
        out,
        {
            "version": VERSION,
            "clips": clips,
            "seed": seed,
            "domains": chosen,
            "frame_size": frame_size,
            "fps": fps,
            "sample_rate": sample_rate,
        },
    )
    records = _finished(out)
    missing = {scene.id for scene in scenes if scene.id not in records}
    batches = [scenes[k : k + _BATCH] for k in range(0, clips, _BATCH)]
    batches = [batch for batch in batches if any(scene.id in missing for scene in batch)]
    if missing:
        make = partial(make_clips, wanted=missing, out=out, fps=fps, frame_size=frame_size, sample_rate=sample_rate)
        with (out / _JOURNAL).open("a") as journal:
            journal.write("\n")  # ends a line that a killed call left half written
            for made in _in_parallel(make, batches, workers or os.cpu_count() or 1, clips - len(missing), clips):
                records.update((record["id"], record) for record in made)
                journal.write("".join(json.dumps(record) + "\n" for record in made))
                journal.flush()
    manifest = out / "clips.jsonl"
    _write_whole(manifest, "".join(json.dumps(records[scene.id]) + "\n" for scene in scenes))
    (out / _JOURNAL).unlink(missing_ok=True)
    return WorldReport(
        out=out,
        manifest=manifest,
        clips=clips,
        made=len(missing),
        splits=dict(Counter(scene.split for scene in scenes)),
        domains=dict(Counter(domain_of(scene) for scene in scenes)),
        media=dict(Counter(scene.media for scene in scenes)),
    )


def _open_world(out: Path, settings: dict[str, Any]) -> None:
    """Makes the folder, or makes sure that the one there was begun with the same settings."""
    path = out / "world.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != settings:
            names = [name for name in settings if found.get(name) != settings[name]]
            differences = ", ".join(
                f"{name} is {found.get(name)!r} there and {settings[name]!r} here" for name in names
            )
            raise ValueError(
                f"{out} holds a world with other settings: {differences}. Choose another folder or remove this one."
            )
    elif (out / "clips.jsonl").exists():
        raise ValueError(
            f"{out} holds a clips.jsonl but no world.json, so it is not a synthetic world. Choose another folder."
        )
    (out / "media").mkdir(parents=True, exist_ok=True)
    _write_whole(path, json.dumps(settings, indent=2) + "\n")


def _finished(out: Path) -> dict[str, Record]:
    """Returns the records of the clips whose media are there, by id."""
    records: dict[str, Record] = {}
    for path in (out / "clips.jsonl", out / _JOURNAL):
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a call that was killed
            if (out / record["media"]).exists():
                records[record["id"]] = record
    return records


def _in_parallel(
    make: partial[list[Record]], batches: Sequence[Sequence[Scene]], workers: int, done: int, clips: int
) -> Iterator[list[Record]]:
    """Yields the records of each batch when it is made. Threads do, as ffmpeg works in processes of its own."""
    columns = (
        TextColumn("Synthesizing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress, ThreadPoolExecutor(workers) as pool:
        bar = progress.add_task("", total=clips, completed=done)
        futures = [pool.submit(make, batch) for batch in batches]
        try:
            for future in as_completed(futures):
                made = future.result()
                progress.advance(bar, len(made))
                yield made
        finally:
            for future in futures:
                future.cancel()


def _write_whole(path: Path, text: str) -> None:
    """Writes a file under another name first, so that it is never seen half written."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
