"""Packing clips in the order of their records, so that a run that was killed goes on where it was, to the same bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from peav.data.manifests.clip import Clip, clip_from_line, clip_from_record
from peav.data.manifests.identities import ABSENT, bytes_group
from peav.data.manifests.manifest import manifest_path, shards_path
from peav.data.manifests.records import SPLITS
from peav.data.media.probing import VideoStream
from peav.data.packing.jobs import CheckedClip
from peav.data.packing.journal import EARLIER, JOURNAL, OUTCOMES, Durable, Journal, LineFile, Outcome, OutcomeLog
from peav.data.stores.samples import Sample, ShardError
from peav.data.stores.shards import ShardWriter


class Packer:
    """Writes shards and manifests of all splits, in the order of the records.

    Args:
        out: folder to write; what an earlier run put there for good is kept.
        chunk_bytes: size at which a chunk is closed, bytes.
        own: whether clips may have fields of one's own kind.

    Raises:
        ShardError: if what an earlier run wrote was changed since.
    """

    def __init__(self, out: Path, chunk_bytes: int, own: bool = False) -> None:
        self.out = out
        self.log = OutcomeLog(out)
        self._chunk_bytes, self._own = chunk_bytes, own
        self._journal = Journal(out)
        self._splits = {
            split: _Split(out, split, chunk_bytes, durable, own) for split, durable in self._journal.durable.items()
        }
        self._counted = dict.fromkeys(SPLITS, 0)
        self._next: tuple[Outcome | None] | None = None

    @property
    def rows(self) -> dict[str, int]:
        """Clips by split."""
        return {split: self._splits[split].writer.rows for split in SPLITS if split in self._splits}

    def settled(self) -> Outcome | None:
        """Returns the outcome of the next record if it need not be read again; ask for each record, in order, ahead of `add`."""
        outcome, self._next = self._peek(), None
        return outcome

    def will_settle(self, record_id: str) -> bool:
        """Returns whether the next record is the one of that id and need not be read again."""
        outcome = self._peek()
        return outcome is not None and outcome.id == record_id

    def _peek(self) -> Outcome | None:
        if self._next is None:
            self._next = (self._next_settled(),)
        return self._next[0]

    def _next_settled(self) -> Outcome | None:
        outcome = self.log.earlier()
        if outcome is None or not outcome.clips:
            return outcome
        # A record that is read again has its rows all the same: those behind it lie further on.
        self._counted[outcome.split] += outcome.clips
        part = self._splits.get(outcome.split)
        return outcome if part is not None and self._counted[outcome.split] <= part.durable else None

    def keep(self, outcome: Outcome) -> None:
        """Takes over the outcome of a record that is settled, or of which nothing can be packed."""
        if outcome.clips:
            self._splits[outcome.split].position += outcome.clips
        self.log.add(outcome)

    def add(self, record_id: str, clips: Sequence[CheckedClip]) -> Outcome:
        """Packs the clips of a record.

        Raises:
            OSError: if the disk is full.
            ShardError: if they are others than an earlier run had.
        """
        packed = [clip for clip in clips if clip.reject is None]
        for clip in packed:
            self._pack(clip)
        outcome = Outcome(
            record_id,
            packed[0].record.split if packed else "",
            len(packed),
            tuple(clip.reject for clip in clips if clip.reject is not None),
            tuple(note for clip in packed for note in clip.all_notes),
        )
        self.log.add(outcome)
        if packed:
            self._record_chunks(outcome.split)
        return outcome

    def close(self) -> None:
        """Finishes all shards and manifests.

        Raises:
            OSError: if the disk is full.
        """
        for split, part in self._splits.items():
            part.writer.flush()
            self._record_chunks(split)
            part.finish()
        self.abort()

    def abort(self) -> None:
        """Closes all files, and leaves them to a later run."""
        for part in self._splits.values():
            part.manifest.close()
        self._journal.close()
        self.log.close()

    def _pack(self, checked: CheckedClip) -> None:
        split = checked.record.split
        if split not in self._splits:
            self._splits[split] = _Split(self.out, split, self._chunk_bytes, Durable(), self._own)
        part = self._splits[split]
        part.position += 1
        if part.position <= part.durable:  # of a record of which only the first clips were on disk for good
            part.check_id(part.position - 1, checked.record.id)
            return
        media = {role: path.read_bytes() for role, path in checked.paths.items()}
        sample = Sample(checked.record.id, **media, own=checked.own.read())
        clip = make_clip(checked, sample, part.writer.rows)
        part.writer.add(sample)
        part.manifest.append(clip.to_line())
        part.ends.append(part.manifest.size)

    def _record_chunks(self, split: str) -> None:
        part = self._splits[split]
        chunks = part.writer.chunks[part.recorded :]
        if not chunks:
            return
        rows = sum(info["chunk_size"] for info in chunks)
        size = part.ends[rows - 1]  # the sample that closed a chunk is not in it
        del part.ends[:rows]
        part.recorded += len(chunks)
        part.manifest.sync()
        self.log.sync()
        self._journal.add(split, chunks, part.writer.config, size)


class _Split:
    """Shards and manifest of a split, while they grow.

    Attributes:
        durable: clips that an earlier run put on disk for good.
        position: clips that were passed over or packed so far, in order.
        recorded: chunks that the journal knows.
        ends: length of the manifest after each clip whose chunk the journal does not know, bytes.
    """

    def __init__(self, out: Path, split: str, chunk_bytes: int, durable: Durable, own: bool) -> None:
        self.writer = ShardWriter(shards_path(out, split), chunk_bytes, durable.chunks, durable.config, own)
        self.durable = self.writer.rows
        self.position = 0
        self.recorded = len(durable.chunks)
        self.ends: list[int] = []
        self._final = manifest_path(out, split)
        self._partial = self._final.with_name(f".{self._final.name}.partial")
        self._partial.parent.mkdir(exist_ok=True)
        if self._final.exists():  # of a run that was killed before it said that all is done
            self._final.replace(self._partial)
        held = self._partial.stat().st_size if self._partial.exists() else 0
        if held < durable.manifest_bytes:
            raise ShardError(
                f"{self._partial} was changed or deleted since an earlier run wrote it; use --overwrite true"
            )
        self.manifest = LineFile(self._partial, durable.manifest_bytes)

    def check_id(self, row: int, clip_id: str) -> None:
        """Refuses to go on where the clip of a row on disk is another than the one that comes now."""
        with self._partial.open("rb") as stream:
            held = clip_from_line(next(islice(stream, row, None))).id
        if held != clip_id:
            raise ShardError(
                f"an earlier run packed {held!r} where {clip_id!r} comes now; prepare with --overwrite true"
            )

    def finish(self) -> None:
        """Writes the index of the shards, and gives the manifest its name."""
        self.writer.close()
        self.manifest.sync()
        self.manifest.close()
        self._partial.replace(self._final)


def make_clip(checked: CheckedClip, sample: Sample, row: int) -> Clip:
    """Returns the manifest's view of a packed clip.

    Args:
        checked: what it holds.
        sample: what was packed.
        row: its row in the shards.
    """
    record, infos = checked.record, checked.infos
    audio_role, video_role = checked.holds("audio"), checked.holds("video")
    video = infos[video_role].video if video_role else None
    return replace(
        clip_from_record(record),
        duration=checked.duration,
        events=checked.events,
        has_audio=audio_role is not None,
        has_video=video_role is not None,
        origins={role: info.origin for role, info in infos.items()},
        video=_video(video) if video else None,
        store=f"shards/{record.split}",
        row=row,
        crc32=sample.crc32,
        media_start=record.start,
        media_duration=checked.duration,
        audio_group=bytes_group(sample.source("audio")) if audio_role else ABSENT,
        video_group=bytes_group(sample.source("video")) if video_role else ABSENT,
        recording=_recording(checked) if audio_role else None,
        own=checked.own.in_manifest(),
    )


def _video(video: VideoStream) -> dict[str, Any]:
    facts = {"num_frames": video.num_frames, "fps": video.fps, "size": [video.height, video.width]}
    return facts | ({"still": True} if video.still else {})


def _recording(checked: CheckedClip) -> dict[str, Any] | None:
    """Returns Lhotse's recording: the source file that holds the sound."""
    record = checked.record
    role = "audio" if "audio" in record.files else "media"
    info, file = checked.sources[role], record.files[role]
    audio, video = info.audio, info.video
    if audio is None:
        return None
    seconds = max(checked.source_seconds, record.start + checked.duration)
    num_samples = round(seconds * audio.sample_rate)
    channels = list(range(audio.num_channels))
    source: dict[str, Any] = {"type": "file", "channels": channels, "source": file}
    if video is not None and role == "media":
        size = {"height": video.height, "width": video.width}
        source["video"] = {"fps": video.fps, "num_frames": video.num_frames, **size}
    return {
        "id": file,
        "sources": [source],
        "sampling_rate": audio.sample_rate,
        "num_samples": num_samples,
        "duration": num_samples / audio.sample_rate,
        "channel_ids": channels,
    }


def remove_logs(out: Path) -> None:
    """Deletes what only a later run would need: all is done."""
    for name in (OUTCOMES, EARLIER, JOURNAL):
        with suppress(FileNotFoundError):
            os.unlink(out / name)
