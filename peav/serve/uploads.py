"""Files that are searched by: taken in within bounds, decoded elsewhere, and gone; what is kept is their embedding."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request

from peav.checkpoints import MediaSettings
from peav.inputs import Loaded
from peav.inputs import Request as WindowRequest
from peav.opening import OutsideError, check_name
from peav.search.terms import Example, plan_media
from peav.serve.settings import ServeSettings
from peav.types import Seconds

#: What a process that decodes has imported before it begins.
PRELOAD = ("peav.serve.uploads", "peav.data.media.decode", "torchcodec.decoders", "peav.inputs")

#: So many examples are remembered.
_REMEMBERED = 256


class TooLarge(ValueError):  # noqa: N818  the name says what is the matter
    """An upload that is larger than it may be."""


class TooSlow(ValueError):  # noqa: N818  the name says what is the matter
    """An upload that does not arrive."""


class Examples:
    """The last examples that were uploaded, by the digest of their bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Example] = OrderedDict()

    def put(self, digest: str, example: Example) -> None:
        """Remembers an example."""
        with self._lock:
            self._held[digest] = example
            self._held.move_to_end(digest)
            while len(self._held) > _REMEMBERED:
                self._held.popitem(last=False)

    def get(self, digest: str) -> Example:
        """Returns an example.

        Raises:
            KeyError: if it is not remembered, or never was.
        """
        with self._lock:
            if digest not in self._held:
                raise KeyError("the file that is searched by is not remembered any more: drop it here again")
            self._held.move_to_end(digest)
            return self._held[digest]


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for an upload, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="peav-upload-") as folder:
        yield Path(folder)


async def receive_upload(request: Request, folder: Path, settings: ServeSettings) -> tuple[Path, str]:
    """Writes the body of a request into a file.

    Returns:
        the file, and the digest of its bytes.

    Raises:
        TooLarge: if it is larger than it may be, by its header or by what comes.
        TooSlow: if it does not arrive in time.
        ValueError: if it is empty, or ends early.
        OSError: if the disk is full.
    """
    most = settings.upload_bytes
    said = request.headers.get("content-length", "0")
    if not said.isdigit() or int(said) > most:
        raise TooLarge(f"the file may have {most / 1e6:,.0f} MB at most")
    path = folder / f"upload{_suffix(request.query_params.get('name', ''))}"
    digest, held = hashlib.sha256(), 0
    try:
        with anyio.fail_after(settings.upload_seconds):
            async with await anyio.open_file(path, "wb") as stream:
                async for chunk in request.stream():
                    held += len(chunk)
                    if held > most:
                        raise TooLarge(f"the file may have {most / 1e6:,.0f} MB at most")
                    digest.update(chunk)
                    await stream.write(chunk)
    except TimeoutError:
        raise TooSlow(f"the file did not arrive within {settings.upload_seconds:g} s") from None
    except ClientDisconnect:
        raise ValueError("the file ended early") from None
    if not held:
        raise ValueError("the file is empty")
    return path, digest.hexdigest()[:32]


def decode_upload(
    path: str, media: MediaSettings, kinds: Sequence[str], index_settings: Mapping[str, Any], most_seconds: Seconds
) -> list[tuple[WindowRequest, Loaded]]:
    """Decodes the windows of an upload, as far as it is listened to; this runs in a process of its own.

    Raises:
        MediaError: if it cannot be decoded.
        ValueError: if it holds nothing.
    """
    windows = []
    for request in plan_media(media, kinds, index_settings, path):
        if request.window.start >= most_seconds:
            break
        windows.append((request, request.load()))
    return windows


def said_name(request: Request) -> str:
    """Returns what the user calls an upload: the name of a file, without a path."""
    return os.path.basename(request.query_params.get("name", ""))[:200] or "recording"


def _suffix(name: str) -> str:
    """Returns the suffix of a name, by which some kinds are known; "" of a name that is none."""
    try:
        suffix = Path(check_name(os.path.basename(name), "a file")).suffix.lower()
    except OutsideError:
        return ""
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 8 else ""
