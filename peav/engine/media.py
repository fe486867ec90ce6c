"""The sound and the pictures of a batch of clips, decoded once for all stages that want them alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.data.manifests.clip import Clip
from peav.data.media.errors import MediaError
from peav.data.stores.reader import SampleError
from peav.data.stores.remote import StoreOptions
from peav.data.stores.samples import ShardError
from peav.engine.rows import real_captions, real_transcript
from peav.engine.stage import Failed, Stage


class ClipMedia:
    """Decodes clips at their spans, by peav's reader.

    Args:
        data: folder that `peav prepare` wrote.
        options: of object stores.
    """

    def __init__(self, data: str, options: StoreOptions | None = None) -> None:
        self._data, self._options = data, options
        self._readers: dict[DecodeSettings, ClipReader] = {}
        self._held: dict[tuple[str, DecodeSettings], dict[str, Any]] = {}

    def forget(self) -> None:
        """Lets go of what was decoded: the next batch comes."""
        self._held.clear()

    def column(self, name: str, clips: Sequence[Clip], stage: Stage) -> list[Any]:
        """Returns a column of the manifest or of the media.

        Args:
            name: of the column.
            clips: of the batch.
            stage: that wants it.

        Returns:
            a value a clip, :class:`Failed` where it cannot be read.
        """
        if name == "real_captions":
            return [real_captions(clip) for clip in clips]
        if name == "real_transcript":
            return [real_transcript(clip) for clip in clips]
        if name not in ("audio", "frames"):
            return [getattr(clip, name) for clip in clips]
        if name == "audio":
            settings = DecodeSettings(sample_rate=stage.sample_rate)
        else:
            needs = stage.frame_needs
            settings = DecodeSettings(
                num_frames=None if needs.fps else needs.num_frames, fps=needs.fps, frame_size=needs.size
            )
        held = self._held.setdefault((name, settings), {})
        for clip in clips:
            if clip.id not in held:
                held[clip.id] = self._read(name, clip, settings)
        return [held[clip.id] for clip in clips]

    def _read(self, name: str, clip: Clip, settings: DecodeSettings) -> Any:
        if not (clip.has_audio if name == "audio" else clip.has_video):
            return None
        reader = self._readers.setdefault(settings, ClipReader(self._data, settings, self._options))
        try:
            made = reader.samples(clip) if name == "audio" else reader.frames(clip)
        except (MediaError, SampleError, ShardError) as error:
            return Failed(f"{name} cannot be read: {error}")
        return made.numpy()
