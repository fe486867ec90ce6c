"""`peav index update`: media in folders to an index, again and again; each time what has changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from peav.atomic import replacing
from peav.cli.decoding import MediaFile, check_workers, read_headers
from peav.cli.embed_pieces import Piece, embed_in_pieces, holds_too_little
from peav.cli.index_scan import Changes, FoundFile, Words, crc_of, find_changes, read_words, scan
from peav.cli.media_files import SUFFIXES
from peav.cli.models import load_model
from peav.cli.progress_bar import progress_bar
from peav.data.media.stills import Animations
from peav.devices import resolve_device
from peav.digest import model_digest
from peav.inputs import (
    MediaEmbedder,
    MediaItem,
    Precision,
    check_windows,
    computes_in_half,
    embedding_names,
    media_kinds,
)
from peav.inputs.video import FilePicture
from peav.model import PEAV
from peav.search.catalog import FileEntry, Kind
from peav.search.reference import keep_reference
from peav.search.store import NewFile, Store
from peav.search.vectors import fits_half, import_faiss
from peav.types import Seconds

#: The smallest of the released models.
DEFAULT_MODEL = "facebook/pe-av-small-16-frame"
#: Windows of 10 s that share 2 s, where nothing else is said.
WINDOW_SECONDS, OVERLAP_SECONDS = 10.0, 2.0

#: The embeddings of media that a text, a sound or a picture is compared with.
MEDIA_NAMES = ("audio", "video", "audio_video")

_REJECTS = "rejects.jsonl"


@dataclass(frozen=True)
class IndexOptions:
    """What `peav index update` was asked for; see `peav.cli.commands.index.update`. None is what the index has, or the default."""

    index: Path
    folders: Sequence[str]
    model: str | None = None
    window_seconds: Seconds | None = None
    overlap_seconds: Seconds | None = None
    batch_seconds: Seconds = 120.0
    precision: Precision | None = None
    device: str = "auto"
    workers: int | None = None
    animations: Animations | None = None
    cover_art: bool | None = None
    retry: bool = False
    delete_missing: bool = False
    watch: Seconds | None = None
    trust: bool = False


@dataclass
class UpdateReport:
    """What came of an update.

    Attributes:
        added: files that were embedded, new ones and those that changed.
        moved: files that lie elsewhere.
        deleted: files that are gone.
        unchanged: files that are as they were.
        kept: files that are not there, and may come back.
        rejected: files that could not be indexed, those of earlier updates that have not changed included.
        rejects: where their reasons stand.
        files: in the index.
        windows: of these files.
    """

    added: int
    moved: int
    deleted: int
    unchanged: int
    kept: int
    rejected: int
    rejects: Path
    files: int = 0
    windows: int = 0


class Updater:
    """Updates an index as often as asked; the model is loaded when it is first needed, and kept.

    Args:
        options: what is asked for.

    Raises:
        ValueError: if an option is out of range.
    """

    def __init__(self, options: IndexOptions) -> None:
        if not options.batch_seconds > 0:
            raise ValueError(f"batch_seconds must be positive, not {options.batch_seconds}")
        if options.watch is not None and not options.watch > 0:
            raise ValueError(f"watch is the seconds between two looks at the folders: positive, not {options.watch}")
        check_workers(options.workers)
        window = WINDOW_SECONDS if options.window_seconds is None else options.window_seconds
        check_windows(window, OVERLAP_SECONDS if options.overlap_seconds is None else options.overlap_seconds)
        import_faiss()
        self.options = options
        self._model: PEAV | None = None
        self._embedder: MediaEmbedder | None = None

    def run(self) -> UpdateReport:
        """Brings the index up to date with its folders, once.

        Raises:
            ValueError: if an option differs from what the index was made with, or nothing can be indexed.
            FileNotFoundError: if a file or folder that is named is not there, and the index knows nothing of it.
            FolderInUse: if another process updates the index.
            StoreError: if the index is damaged.
        """
        options = self.options
        exists = Store.is_one(options.index)
        if not exists and not options.folders:
            raise ValueError(f"there is no index at {options.index}: name the folders to index")
        roots = [os.path.realpath(folder) for folder in options.folders]
        if not exists:
            self._check_roots(options.folders, [])
            found = scan(roots, options.index)
            if not found.files:
                raise FileNotFoundError(f"{', '.join(options.folders)} hold no media; looked for {' '.join(SUFFIXES)}")
            store = Store.create(options.index, self._new_settings())
        else:
            store = Store(options.index)
        with store, store.writing():
            if exists:
                self._check_settings(store)
                self._check_roots(options.folders, store.catalog.roots())
            roots = roots or store.catalog.roots()
            return self._update(store, list(dict.fromkeys(roots)))

    def _update(self, store: Store, roots: Sequence[str]) -> UpdateReport:
        options = self.options
        found = scan(roots, options.index)
        changes = find_changes(store.catalog, found, read_words(roots), roots, options.retry, options.delete_missing)
        with store.catalog.transaction():
            store.catalog.add_roots(roots)
            # A path that is free now may be taken by a file that moved there.
            for path in changes.deleted:
                store.catalog.drop_files("path = ?", (path,))
            for file in changes.updated:
                store.catalog.change_file(file)
            store.catalog.drop_rejects(changes.gone_rejects)
        added = 0
        if changes.pending:
            with progress_bar() as progress:
                added = self._embed(store, changes, progress)
        if store.is_untidy():
            store.compact()
        keep_reference(store)
        rejects = self._write_rejects(store)
        files, windows = store.catalog.count()
        return UpdateReport(
            added,
            changes.moved,
            len(changes.deleted),
            changes.unchanged + len(changes.updated) - changes.moved,
            changes.kept,
            rejects,
            options.index / _REJECTS,
            files,
            windows,
        )

    def _embed(self, store: Store, changes: Changes, progress: Progress) -> int:
        """Embeds what is new or has changed, a piece after another; each is committed before the next begins."""
        options, embedder = self.options, self._load_embedder(store.settings)
        rejected = _Rejected(store, changes.pending)
        settings = store.settings
        keys = dict.fromkeys(changes.pending, "")
        files = read_headers(
            keys,
            media_kinds(embedder.model),
            options.workers,
            rejected,
            progress,
            settings["animations"],
            settings["cover_art"],
        )
        added = 0
        for piece in embed_in_pieces(embedder, files, rejected, progress, options.batch_seconds, options.workers):
            new = self._new_files(piece, files, changes, rejected)
            if new:
                store.add(new)
            added += len(new)
        return added

    def _new_files(
        self, piece: Piece, files: Sequence[MediaFile], changes: Changes, rejected: _Rejected
    ) -> list[NewFile]:
        new = []
        for row, windows in piece.windows():
            path, item = files[row].path, files[row].item
            spans, vectors = [], []
            for request, output in windows:
                if output.pooled:
                    spans.append((request.window.start, request.window.seconds))
                    vectors.append({name: vector.numpy() for name, vector in output.pooled.items()})
            seen = changes.pending[path]
            try:
                crc = crc_of(path)
                stat = os.stat(path)
            except OSError as error:
                rejected.add(path, f"cannot be read any more: {error.strerror}")
                continue
            if (stat.st_size, stat.st_mtime_ns) != (seen.size, seen.mtime_ns):
                rejected.add(path, "changed while it was read: the next update takes it")
            elif not spans:
                rejected.add(path, holds_too_little(item))
            elif not all(fits_half(vector) for window in vectors for vector in window.values()):
                rejected.add(path, "its embedding is not finite, or beyond what fp16 holds")
            else:
                new.append(NewFile(_entry(path, seen, crc, item, changes.words.get(path, Words())), spans, vectors))
        return new

    def _load_model(self, name: str) -> PEAV:
        if self._model is None:
            options = self.options
            default = name == DEFAULT_MODEL and options.model is None
            model = load_model(name, options.trust, default, "a folder, or a .ckpt of `peav fit`")
            self._model = model.to(resolve_device(options.device))
        return self._model

    def _load_embedder(self, settings: dict[str, Any]) -> MediaEmbedder:
        """Returns what embeds windows as the index wants it.

        Raises:
            ValueError: if the model is not that of the index.
        """
        if self._embedder is None:
            model = self._load_model(self.options.model or settings["model"])
            if (digest := model_digest(model)) != settings["digest"]:
                raise ValueError(self._other_model(settings, digest))
            window, overlap = settings["window_seconds"], settings["overlap_seconds"]
            names = settings["names"]
            self._embedder = MediaEmbedder(model, names, model.media, window, overlap, settings["precision"])
            self._embedder.frame_names = []  # windows as wholes are searched
        return self._embedder

    def _new_settings(self) -> dict[str, Any]:
        options = self.options
        name = options.model or DEFAULT_MODEL
        model = self._load_model(name)
        kinds = media_kinds(model)
        possible = embedding_names(model, kinds) if kinds else []
        names = [name for name in MEDIA_NAMES if name in possible and name in model.pooled_names]
        if not names:
            raise ValueError(
                f"{name} makes none of {', '.join(MEDIA_NAMES)} of whole windows, so that they cannot be searched; it makes "
                f"{', '.join(model.embedding_names)}"
            )
        device = torch.device(resolve_device(options.device))
        half = computes_in_half(device, options.precision or "auto")
        return {
            # A path stays one wherever the next command runs.
            "model": os.path.realpath(name) if os.path.exists(name) else name,
            "digest": model_digest(model),
            "names": names,
            "dim": model.embedding_dim,
            "window_seconds": WINDOW_SECONDS if options.window_seconds is None else options.window_seconds,
            "overlap_seconds": OVERLAP_SECONDS if options.overlap_seconds is None else options.overlap_seconds,
            "precision": "bf16" if half else "fp32",
            "animations": options.animations or "first",
            "cover_art": bool(options.cover_art),
        }

    def _check_settings(self, store: Store) -> None:
        """Refuses what would make other embeddings than those that are there."""
        options, settings = self.options, store.settings
        for name in ("window_seconds", "overlap_seconds", "precision", "animations", "cover_art"):
            given = getattr(options, name)
            if given is not None and given != "auto" and given != settings[name]:
                raise ValueError(
                    f"{options.index} was made with --{name} {settings[name]}, not {given}: leave the option out, or make another index: "
                    f"peav index update OTHER {' '.join(options.folders) or 'FOLDER'} --{name} {given}"
                )
        given_model = options.model
        if given_model is None or settings["model"] in (given_model, os.path.realpath(given_model)):
            return
        model = self._load_model(given_model)
        if (digest := model_digest(model)) != settings["digest"]:
            raise ValueError(self._other_model(settings, digest))
        settings["model"] = os.path.realpath(given_model) if os.path.exists(given_model) else given_model
        with store.catalog.transaction():
            store.catalog.set("settings", settings)

    def _other_model(self, settings: dict[str, Any], digest: str) -> str:
        folders = " ".join(self.options.folders) or "FOLDER"
        name = self.options.model or settings["model"]
        return (
            f"{self.options.index} was made with {settings['model']} (digest {settings['digest']}), and {name} is another model (digest "
            f"{digest}): embeddings of two models cannot be compared. Leave --model out, or make another index: peav index update OTHER "
            f"{folders} --model {name}"
        )

    @staticmethod
    def _check_roots(names: Sequence[str], known: Sequence[str]) -> None:
        for name in names:
            if not os.path.exists(name) and os.path.realpath(name) not in known:
                raise FileNotFoundError(f"there is no file or folder {name}")

    def _write_rejects(self, store: Store) -> int:
        path = self.options.index / _REJECTS
        rejects = store.catalog.rejects()
        if not rejects:
            path.unlink(missing_ok=True)
            return 0
        lines = [
            json.dumps({"file": file, "reason": reason}, ensure_ascii=False) for file, (*_, reason) in rejects.items()
        ]
        with replacing(path) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return len(rejects)


class _Rejected:
    """Notes files that could not be indexed in the index itself."""

    def __init__(self, store: Store, pending: dict[str, FoundFile]) -> None:
        self._store, self._pending = store, pending

    def add(self, file: str, reason: str) -> None:
        """Notes a file."""
        seen = self._pending[file]
        with self._store.catalog.transaction():
            self._store.catalog.add_reject(file, seen.root, seen.size, seen.mtime_ns, reason)


def watch(updater: Updater, seconds: Seconds, say: Any) -> None:
    """Updates until it is interrupted.

    Args:
        updater: of the index.
        seconds: between the end of an update and the next look.
        say: gets the report of each.
    """
    while True:
        say(updater.run())
        time.sleep(seconds)


def _entry(path: str, seen: FoundFile, crc: int, item: MediaItem, words: Words) -> FileEntry:
    kind: Kind = "sound"
    if item.video is not None:
        kind = "picture" if isinstance(item.video, FilePicture) and item.audio is None else "video"
    seconds = None if kind == "picture" else item.seconds
    return FileEntry(
        path, seen.root, seen.size, seen.mtime_ns, crc, kind, seconds, words.domain, words.transcript, words.captions
    )
