"""torchcodec's decoders, imported when the first file is opened: torchcodec takes longer to import than a short clip to decode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchcodec.decoders import AudioDecoder, VideoDecoder


def audio_decoder(source: str | Path | bytes, **options: Any) -> AudioDecoder:
    """Opens the sound of a file, with torchcodec's options and errors."""
    from torchcodec.decoders import AudioDecoder  # noqa: PLC0415  over a second

    return AudioDecoder(source, **options)


def video_decoder(source: str | Path | bytes, **options: Any) -> VideoDecoder:
    """Opens the pictures of a file, with torchcodec's options and errors."""
    from torchcodec.decoders import VideoDecoder  # noqa: PLC0415  over a second

    return VideoDecoder(source, **options)
