"""Object stores: how they are reached, and a folder of bounded size for what was fetched from them."""

from __future__ import annotations

import filecmp
import hashlib
import io
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.config import Config
from filelock import FileLock
from litdata.streaming.downloader import get_downloader

from peav.opening import MAX_JSON_BYTES, OutsideError, check_relative

_log = logging.getLogger(__name__)

#: What an address of an object store begins with. `local:` copies from a slow disk, such as a network drive.
REMOTE_SCHEMES = ("s3://", "gs://", "hf://", "azure://", "r2://", "local:")

#: Those whose client writes into an open file.
_STREAMED = ("s3://", "gs://", "azure://", "r2://")

#: How long a file is asked for again after failures, in seconds between the attempts.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)


class StoreError(RuntimeError):
    """A store that cannot be reached, or lacks a file that it should have."""


@dataclass(frozen=True)
class StoreOptions:
    """How stores are reached and cached.

    Attributes:
        cache_dir: folder for chunks of object stores; shared by all processes of a machine.
        cache_gigabytes: what that folder may hold; the chunks that were unused longest are deleted first.
        storage_options: for the client of the object store, such as `endpoint_url` (see LitData).
        trust: read stores that a manifest names outside of its own folder, and links out of it, without asking.
    """

    cache_dir: str = "~/.cache/peav/chunks"
    cache_gigabytes: float = 100.0
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False

    def __post_init__(self) -> None:
        if self.cache_gigabytes <= 0:
            raise ValueError(f"cache_gigabytes must be above 0, got {self.cache_gigabytes}")


def is_remote(address: str | Path) -> bool:
    """Returns whether an address is of an object store.

    >>> is_remote("s3://bucket/data"), is_remote("runs/data")
    (True, False)
    """
    return str(address).startswith(REMOTE_SCHEMES)


def resolve_store(data: str | Path, store: str) -> str:
    """Returns the address of a store that a manifest names: relative ones start from the folder of the data.

    Whether it may be read is another question: `peav.data.stores.outside.open_address`.

    >>> resolve_store("s3://bucket/data/", "shards/train"), resolve_store("runs/a", "/mnt/b/shards/train")
    ('s3://bucket/data/shards/train', '/mnt/b/shards/train')

    What a slow disk's manifest names lies on a slow disk too.

    >>> resolve_store("local:/net/mix", "/net/b/shards/train")
    'local:/net/b/shards/train'
    """
    if is_remote(store):
        return store
    if os.path.isabs(store):
        return f"local:{store}" if str(data).startswith("local:") else store
    return f"{str(data).rstrip('/')}/{store}"


class ChunkCache:
    """Files of one object store, fetched whole into a folder of bounded size.

    Args:
        address: of the store.
        options: where the folder is, and how large.
    """

    def __init__(self, address: str, options: StoreOptions) -> None:
        self.address = address.rstrip("/")
        self.options = options
        self.root = Path(options.cache_dir).expanduser()
        self.folder = self.root / hashlib.sha256(self.address.encode()).hexdigest()[:16]
        self._downloader: Any = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_downloader": None, "_pid": -1}

    def fetch(self, name: str, size: int | None = None, again: bool = False) -> Path:
        """Returns the local copy of a file, fetched now if need be.

        Args:
            name: relative to the store.
            size: bytes that it must have.
            again: fetch it even if it is there.

        Raises:
            StoreError: if it cannot be fetched after several attempts, or has another size.
        """
        path = self._path(name)
        if not again and _is_whole(path, size):
            with suppress(FileNotFoundError):  # deleted this moment: the caller asks again
                os.utime(path)
            return path
        self._make_folder(path.parent)
        with FileLock(f"{path}.fetch"):
            if again or not _is_whole(path, size):
                if size:
                    self._make_room(size)
                self._download(name, path, size)
        return path

    def refresh(self, name: str) -> Path:
        """Returns a local copy of a file as the store has it now; an equal copy that is there is left as it is.

        Processes that ask at the same time, such as the ranks of a machine, share what the first of them fetches.

        Raises:
            StoreError: if it cannot be fetched.
        """
        path = self._path(name)
        checked = path.with_name(f"{path.name}.checked")
        began = time.time_ns()
        self._make_folder(path.parent)
        with FileLock(f"{path}.fetch"):
            if path.exists() and checked.exists() and checked.stat().st_mtime_ns >= began:
                return path
            partial = path.with_name(f"{path.name}.fresh")
            self._download(name, partial, None)
            if path.exists() and filecmp.cmp(partial, path, shallow=False):
                partial.unlink()
            else:
                partial.replace(path)
            checked.touch()
        return path

    def _path(self, name: str) -> Path:
        """Returns where the copy of a file lies: inside the folder of its store, whatever the name says.

        Raises:
            StoreError: if the name leads out of it.
        """
        try:
            return self.folder / check_relative(name, "a file")
        except OutsideError as error:
            raise StoreError(f"{self.address}: {error}") from None

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store.cache_dir={self.options.cache_dir} cannot be made: {error}") from None

    def _download(self, name: str, path: Path, size: int | None) -> None:
        path.unlink(missing_ok=True)
        problem: Exception | str = ""
        for pause in (*RETRY_SECONDS, None):
            try:
                self._get(f"{self.address}/{name}", path, MAX_JSON_BYTES if name.endswith(".json") else size)
                if _is_whole(path, size):
                    return
                problem = (
                    f"it has {path.stat().st_size:,} bytes, expected {size:,}" if path.exists() else "no such file"
                )
                path.unlink(missing_ok=True)
            except OutsideError as error:
                raise StoreError(f"{self.address}/{name}: {error}") from None
            except Exception as error:  # whatever the client of the store raises
                problem = error
            if pause is not None:
                _log.warning("%s/%s: %s; trying again in %g s", self.address, name, problem, pause)
                time.sleep(pause)
        raise StoreError(
            f"{self.address}/{name} cannot be fetched ({type(problem).__name__ if isinstance(problem, Exception) else 'damaged'}: "
            f"{problem}); tried {len(RETRY_SECONDS) + 1} times"
        )

    def _make_room(self, size: int) -> None:
        """Deletes the chunks that were unused longest until `size` more bytes fit. Readers that hold one open read on."""
        with FileLock(self.root / ".evict"):
            files = []
            for path in self.root.glob("*/*.bin"):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    files.append((stat.st_mtime_ns, stat.st_size, path))
            total = sum(entry[1] for entry in files)
            for _, held, path in sorted(files):
                if total + size <= self.options.cache_gigabytes * 1e9:
                    break
                path.unlink(missing_ok=True)
                total -= held

    def _get(self, remote: str, path: Path, limit: int | None) -> None:
        if not self.address.startswith(_STREAMED):
            self._client().download_file(remote, str(path))
            if limit is not None and path.exists() and path.stat().st_size > limit:
                path.unlink()
                raise OutsideError(f"more than the {limit:,} bytes that it may have")
            return
        # LitData's `download_file` would start a runtime in this process that its forks cannot use, and takes https alone.
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with _Bounded(partial, limit) as stream:
                self._client().download_fileobj(remote, stream)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _client(self) -> Any:
        if self._downloader is None or self._pid != os.getpid():
            options = dict(self.options.storage_options)
            if self.address.startswith("s3://"):
                # LitData's own client tries a thousand times before it says that a store is gone.
                options.setdefault(
                    "config", Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=20)
                )
            self._downloader = get_downloader(self.address, str(self.folder), [], options, {})
            self._pid = os.getpid()
        return self._downloader


class _Bounded(io.FileIO):
    """A file that is written, and refuses to grow beyond a number of bytes."""

    def __init__(self, path: Path, limit: int | None) -> None:
        super().__init__(path, "wb")
        self._limit = limit

    def write(self, data: Any, /) -> int:
        if self._limit is not None and self.tell() + memoryview(data).nbytes > self._limit:
            raise OutsideError(f"more than the {self._limit:,} bytes that it may have")
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):
            written += super().write(view[written:]) or 0
        return written


def _is_whole(path: Path, size: int | None) -> bool:
    try:
        return size is None or path.stat().st_size == size if path.is_file() else False
    except FileNotFoundError:
        return False
