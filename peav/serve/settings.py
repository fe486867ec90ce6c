"""What a server is allowed to spend, and to whom it answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peav.types import Seconds


def default_cache() -> Path:
    """Returns where renditions, thumbnails and waveforms are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "peav" / "serve"


@dataclass(frozen=True)
class ServeSettings:
    """What a server is allowed to spend, and to whom it answers.

    Attributes:
        hosts: names by which browsers may call it, besides `localhost`; IP addresses are always right, for no web page can make its own
            name one (DNS rebinding).
        token: what a browser must know; None where only this machine can ask.
        cache: folder of what is made for browsers.
        cache_bytes: what that folder may hold.
        upload_bytes: of a file that is searched by.
        upload_seconds: time in which such a file must arrive.
        decode_seconds: time in which it must be decoded.
        decode_bytes: memory for decoding, beyond what a process of Python with torch takes.
        example_seconds: of such a file this much is listened to and looked at.
        rendition_seconds: longest span that is encoded anew for a browser.
        encode_seconds: time for making a rendition, a thumbnail or a waveform.
        query_characters: of a query, all its words together.
        waiting: requests that may wait for the model, or for FFmpeg; more are told to come again.
        encoders: runs of FFmpeg at once.
        reports: folders in which pages that peav wrote are looked for.
    """

    hosts: Sequence[str] = ()
    token: str | None = None
    cache: Path = field(default_factory=default_cache)
    cache_bytes: int = 1 << 30
    upload_bytes: int = 200_000_000
    upload_seconds: Seconds = 120.0
    decode_seconds: Seconds = 30.0
    decode_bytes: int = 3 << 30
    example_seconds: Seconds = 120.0
    rendition_seconds: Seconds = 120.0
    encode_seconds: Seconds = 60.0
    query_characters: int = 2000
    waiting: int = 100
    encoders: int = 2
    reports: Sequence[Path] = ()

    def __post_init__(self) -> None:
        for name, least in (("cache_bytes", 1), ("upload_bytes", 1), ("query_characters", 1), ("encoders", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
