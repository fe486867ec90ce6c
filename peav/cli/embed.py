"""`peav embed`: files, folders and texts to a table of embeddings; it goes on where it was interrupted."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.progress import Progress

from peav.cli.decoding import MediaFile, check_workers, read_headers
from peav.cli.embed_pieces import embed_in_pieces, holds_too_little
from peav.cli.embed_store import PieceStore, Row, import_pyarrow
from peav.cli.media_files import RejectFile, Rejects, file_key, find_media, read_texts, text_key
from peav.cli.progress_bar import progress_bar
from peav.data.media.stills import Animations
from peav.data.packing.jobs import Partial
from peav.devices import resolve_device
from peav.digest import model_digest
from peav.inputs import (
    MediaEmbedder,
    Output,
    Precision,
    TextKind,
    computes_in_half,
    embed_texts,
    embedding_names,
    media_kinds,
    media_settings,
    resolve_window,
    tokenize,
)
from peav.model import PEAV
from peav.types import Seconds

log = logging.getLogger(__name__)

_TEXTS_A_PIECE = 1024


@dataclass(frozen=True)
class EmbedOptions:
    """What `peav embed` was asked for; see `peav.cli.commands.embed.embed`."""

    media: Sequence[str]
    model: str
    out: Path
    text: Path | None = None
    to: TextKind | None = None
    num_frames: int | None = None
    fps: float | None = None
    window_seconds: Seconds | Literal["model"] | None = "model"
    overlap_seconds: Seconds = 0.0
    batch_seconds: Seconds = 120.0
    precision: Precision = "auto"
    device: str = "auto"
    workers: int | None = None
    trust: bool = False
    animations: Animations = "first"
    cover_art: bool = False
    partial: Partial = "reject"


@dataclass(frozen=True)
class EmbedReport:
    """What came of it.

    Attributes:
        rows: rows of the table.
        counts: how many of them have each embedding.
        rejected: files that could not be embedded.
        rejects: where their reasons stand.
        lost: how many files were embedded without their `audio` or `video`, which could not be read.
        notes: where these stand.
    """

    rows: int
    counts: dict[str, int]
    rejected: int
    rejects: Path
    lost: dict[str, int]
    notes: Path


def run_embed(options: EmbedOptions) -> EmbedReport:
    """Embeds, and writes the table.

    Raises:
        ValueError: if an option is out of range, the model cannot do what is asked, an interrupted run had other settings, or nothing could
            be embedded.
        FileNotFoundError: if a file or folder that is named is not there.
    """
    out = options.out
    if out.suffix not in (".npz", ".parquet"):
        raise ValueError(f"--out must end in .npz or .parquet, not {out.name!r}")
    if out.suffix == ".parquet":
        import_pyarrow()
    folder, rejects = out.with_suffix(".partial"), out.with_suffix(".rejects.jsonl")
    if out.exists() and not folder.exists():
        raise ValueError(f"{out} is there already: delete it, or choose another --out")
    if not options.batch_seconds > 0:
        raise ValueError(f"batch_seconds must be positive, not {options.batch_seconds}")
    check_workers(options.workers)
    if options.partial not in ("keep", "reject"):
        raise ValueError(f"partial must be keep or reject, not {options.partial!r}")
    files, texts = find_media(options.media), read_texts(options.text)
    if not files and not texts:
        raise ValueError("nothing to embed: name files or folders, or a file of texts with --text")
    if options.to is not None and options.text is None:
        raise ValueError(f"--to {options.to} says what the texts describe, but there is no --text")
    job = _Job(options, texts, folder)
    keys = {path: file_key(path) for path in files}
    out.parent.mkdir(parents=True, exist_ok=True)
    rejected = RejectFile(rejects)
    with progress_bar() as progress:
        try:
            pending = {path: key for path, key in keys.items() if key not in job.store}
            job.embed_files(pending, rejected, progress)
            job.embed_texts(progress)
        except KeyboardInterrupt:
            raise SystemExit(
                f"peav embed: interrupted; what is done lies in {folder}, and the same command goes on from there"
            ) from None
    rows = [(key, path) for path, key in keys.items() if key in job.store]
    rows += [(text_key(line, text), text) for line, text in enumerate(texts)]
    if not rows:
        job.store.remove()
        raise ValueError(
            f"none of the {len(files)} files could be embedded; the first: {rejected.first}; all: {rejects}"
        )
    counts = job.store.write(out, [key for key, _ in rows], [name for _, name in rows])
    notes = out.with_suffix(".notes.jsonl")
    lost = _write_notes(notes, {name: found for key, name in rows if (found := job.store.lost(key)) is not None})
    job.store.remove()
    return EmbedReport(len(rows), counts, rejected.count, rejects, lost, notes)


def _write_notes(path: Path, lost: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """Writes which files were embedded without a medium, and why; returns how many, by the medium. Without any there is no file."""
    path.unlink(missing_ok=True)
    if lost:
        with path.open("w", encoding="utf-8") as stream:
            for name, (kind, reason) in lost.items():
                stream.write(json.dumps({"file": name, "lost": kind, "reason": reason}, ensure_ascii=False) + "\n")
    kinds = [kind for kind, _ in lost.values()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


class _Failures:
    """Files that failed at the first try, with the reasons."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def add(self, file: str, reason: str) -> None:
        self.reasons.setdefault(file, reason)


class _Job:
    """The model, what it is to make, and what is done."""

    def __init__(self, options: EmbedOptions, texts: Sequence[str], folder: Path) -> None:
        device = resolve_device(options.device)
        self.options, self.texts = options, texts
        self.model = PEAV.from_pretrained(options.model, trust=options.trust).to(device)
        names: list[str] = []
        self.text_names: list[str] = []
        if texts:
            self.text_names = embedding_names(self.model, ["text"], options.to)
            tokenize(self.model, texts[:1])  # a model that cannot should say so now
        self.kinds = media_kinds(self.model)
        if options.media:
            names = embedding_names(self.model, self.kinds) if self.kinds else []
            if not names:
                raise ValueError(f"this model reads no media; it makes {', '.join(self.model.embedding_names)}")
        media = media_settings(self.model.media, options.num_frames, options.fps)
        window = resolve_window(media, options.window_seconds, options.overlap_seconds)
        half = computes_in_half(torch.device(device), options.precision)
        self.embedder = MediaEmbedder(
            self.model, names, media, window, options.overlap_seconds, "bf16" if half else "fp32"
        )
        settings = {
            "model": model_digest(self.model),
            "media": asdict(media),
            "window_seconds": window,
            "overlap_seconds": options.overlap_seconds,
            "precision": self.embedder.precision,
            "to": options.to,
            "animations": options.animations,
            "cover_art": options.cover_art,
            "partial": options.partial,
        }
        columns = [
            *self.embedder.pooled_names,
            *(f"{name}_frames" for name in self.embedder.frame_names),
            *self.text_names,
        ]
        self.store = PieceStore(folder, settings, columns, self.model.embedding_dim)

    def embed_files(self, keys: Mapping[str, str], rejected: RejectFile, progress: Progress) -> None:
        """Embeds files that are not done, given with their keys, a piece after another."""
        if not keys:
            return
        options = self.options
        items = read_headers(
            keys, self.kinds, options.workers, rejected, progress, options.animations, options.cover_art
        )
        if options.partial == "reject":
            self._embed_items(items, rejected, progress)
            return
        failures = _Failures()
        self._embed_items(items, failures, progress)
        left = [file for file in items if file.path in failures.reasons]
        for kind in ("video", "audio"):  # as `peav prepare` tries it
            halves = [
                replace(file, item=replace(file.item, **{kind: None}))
                for file in left
                if file.item.audio is not None and file.item.video is not None
            ]
            again = _Failures()
            self._embed_items(halves, again, progress, {one.path: (kind, failures.reasons[one.path]) for one in halves})
            kept = {one.path for one in halves} - set(again.reasons)
            left = [file for file in left if file.path not in kept]
        for file in left:
            rejected.add(file.path, failures.reasons[file.path])

    def _embed_items(
        self,
        files: Sequence[MediaFile],
        rejected: Rejects,
        progress: Progress,
        lost: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        if not files:
            return
        embedder, options = self.embedder, self.options
        for piece in embed_in_pieces(embedder, files, rejected, progress, options.batch_seconds, options.workers):
            rows = []
            for row, windows in piece.windows():
                file = files[row]
                joined = embedder.join([request for request, _ in windows], [output for _, output in windows])
                if joined.pooled or joined.frames:
                    rows.append(Row(file.key, joined, (lost or {}).get(file.path)))
                else:
                    rejected.add(file.path, holds_too_little(file.item))
            if rows:
                self.store.add(rows)

    def embed_texts(self, progress: Progress) -> None:
        """Embeds the texts that are not done, a piece after another."""
        pending = [(line, text) for line, text in enumerate(self.texts) if text_key(line, text) not in self.store]
        if not pending:
            return
        task = progress.add_task("embed texts", total=len(pending), unit="texts")
        for begin in range(0, len(pending), _TEXTS_A_PIECE):
            some = pending[begin : begin + _TEXTS_A_PIECE]
            found = embed_texts(self.model, [text for _, text in some], self.text_names, self.embedder.precision)
            self.store.add(
                [
                    Row(text_key(line, text), Output({name: found[name][row] for name in self.text_names}))
                    for row, (line, text) in enumerate(some)
                ]
            )
            progress.advance(task, len(some))
