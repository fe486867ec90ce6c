"""Stores outside the folder whose manifest names them: what `peav data split` and `mix` write, and what a stranger's manifest may try.

A manifest names stores by paths inside its own folder. One outside it is read only if the user said so for this folder: by making the
manifest here (`peav data split`, `mix`), by `peav data trust DATA`, or by `data.store.trust=true`. What was said is remembered in the
user's own settings, never in the folder itself.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from peav.atomic import replacing
from peav.data.stores.remote import StoreError, StoreOptions, is_remote, resolve_store
from peav.opening import OutsideError, check_relative, leads_out, read_json

_log = logging.getLogger(__name__)

#: Stores that a message lists.
_LISTED = 5


class OutsideStoreError(StoreError):
    """A manifest names stores that do not lie in its folder, and nobody said that they may be read."""


def remembered_at() -> Path:
    """Returns the file of what was said: trusted_stores.json among the user's settings (`$XDG_CONFIG_HOME`, ~/.config)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "peav" / "trusted_stores.json"


def open_address(data: str | Path, store: str, options: StoreOptions | None = None) -> str:
    """Returns the address of a store that a manifest names, if it may be read.

    Args:
        data: folder or address of the data.
        store: as the manifest has it.
        options: of object stores.

    Raises:
        OutsideStoreError: if the store lies outside the folder, and nobody said that it may be read.
    """
    check_stores(data, [store], options)
    return resolve_store(data, store)


def check_stores(data: str | Path, stores: Iterable[str], options: StoreOptions | None = None) -> None:
    """Checks that the stores that a manifest names may be read.

    Args:
        data: folder or address of the data.
        stores: as the manifest has them.
        options: of object stores; `trust` says yes to all.

    Raises:
        OutsideStoreError: if some lie outside the folder, and nobody said that they may be read; it lists them.
    """
    if options is not None and options.trust:
        return
    outside = outside_stores(data, stores)
    said = remembered(data) if outside else frozenset()
    if unknown := [store for store in outside if store not in said]:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise OutsideStoreError(
            f"the manifest of {data} names stores outside of its folder: {', '.join(map(repr, unknown[:_LISTED]))}{more}. If you know "
            f"them, say so once by `peav data trust {data}`, or set data.store.trust=true"
        )


def outside_stores(data: str | Path, stores: Iterable[str]) -> list[str]:
    """Returns those of the stores that lie outside the folder of the data, links followed; in order, each once."""
    return [store for store in dict.fromkeys(stores) if not _is_inside(_identity(data), store)]


@lru_cache(maxsize=4096)
def _is_inside(data: str, store: str) -> bool:
    try:
        check_relative(store, "a store")
        return is_remote(data) or not leads_out(Path(data) / store, Path(data))
    except OutsideError:
        return (
            not is_remote(store)
            and not is_remote(data)
            and os.path.isabs(store)
            and not leads_out(Path(store), Path(data))
        )


def _identity(data: str | Path) -> str:
    return _resolved(str(data))


@lru_cache(maxsize=256)
def _resolved(text: str) -> str:
    if is_remote(text) and not text.startswith("local:"):
        return text.rstrip("/")
    return os.path.realpath(text.removeprefix("local:"))


def remembered(data: str | Path) -> frozenset[str]:
    """Returns the stores that the user allowed the manifests of a folder to name."""
    try:
        return frozenset(read_json(remembered_at()).get(_identity(data), ()))
    except (OSError, ValueError, AttributeError, TypeError):
        return frozenset()


def remember(data: str | Path, stores: Iterable[str]) -> list[str]:
    """Remembers that the manifests of a folder may name stores outside of it; returns those that are.

    Raises:
        OSError: if it cannot be written down.
    """
    outside = outside_stores(data, stores)
    if not outside or set(outside) <= remembered(data):
        return outside
    path = remembered_at()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        try:
            said = dict(read_json(path))
        except (OSError, ValueError, TypeError):
            said = {}
        said[_identity(data)] = sorted({*said.get(_identity(data), ()), *outside})
        with replacing(path, shared=True) as partial:
            partial.write_text(json.dumps(said, indent=1), encoding="utf-8")
    return outside
