"""`peav index`: make an index of media, keep it up to date, say what is in it, and give it to others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from peav.cli.printing import counts


def update(
    index: Path,
    folders: Sequence[str] = (),
    *,
    model: str | None = None,
    window_seconds: float | None = None,
    overlap_seconds: float | None = None,
    batch_seconds: float = 120.0,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    device: str = "auto",
    workers: int | None = None,
    animations: Literal["first", "all"] | None = None,
    cover_art: bool | None = None,
    retry: bool = False,
    delete_missing: bool = False,
    watch: float | None = None,
    trust: bool = False,
) -> None:
    """Index folders of audio, video and pictures for search, or bring their index up to date.

    Each file is embedded in windows: their sound, their pictures and both. The same command again takes what is new or has changed, and
    notices what was moved or deleted, by size, time and CRC. It may be interrupted at any point, and goes on where it was. A folder that
    is not mounted, or empty, deletes nothing. Files that cannot be indexed are listed with their reasons in INDEX/rejects.jsonl, and
    tried again when they change. `clips.jsonl` in a folder tells the domain, transcript and captions of its files, for filters.

    For example: peav index update my_index talks/ films/ --model facebook/pe-av-small-16-frame

    Args:
        index: folder of the index.
        folders: files, and folders that are searched at any depth; without any, those that were named before.
        model: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub. Where it is not
            given, that of the index, or for a new one facebook/pe-av-small-16-frame.
        window_seconds: how long a window is; 10 by default.
        overlap_seconds: what neighbouring windows share; 2 by default.
        batch_seconds: seconds of media that go through the model at once; more is faster and takes more memory.
        precision: `auto` is bf16 on GPUs that compute in it and fp32 elsewhere.
        device: `cpu`, `cuda`, ... or `auto`.
        workers: processes that decode; by default the CPUs, at most 8, or none where that is done sooner than they start; 0 for none.
        animations: what is taken of GIF, APNG and animated WebP: the `first` picture, by default, or `all` as a video.
        cover_art: take the cover of a file of sound as its picture.
        retry: try files again that could not be indexed, though they have not changed.
        delete_missing: delete also files whose folder is empty or gone, which may just not be mounted.
        watch: seconds after which to look again, until it is interrupted.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.index_update import IndexOptions, Updater, UpdateReport
    from peav.cli.index_update import watch as run_watch

    options = IndexOptions(
        index=index,
        folders=folders,
        model=model,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        batch_seconds=batch_seconds,
        precision=precision,
        device=device,
        workers=workers,
        animations=animations,
        cover_art=cover_art,
        retry=retry,
        delete_missing=delete_missing,
        watch=watch,
        trust=trust,
    )

    def say(report: UpdateReport) -> None:
        print(
            f"{index}: {report.added} added, {report.moved} moved, {report.deleted} deleted, {report.unchanged} unchanged; it holds "
            f"{report.files} files in {report.windows} windows",
            flush=True,
        )
        if report.kept:
            print(
                f"{report.kept} files are not there, but their folder is empty or cannot be read, as if it were not mounted: they stay. "
                "--delete_missing deletes them"
            )
        if report.rejected:
            print(f"{report.rejected} files could not be indexed, for the reasons in {report.rejects}")

    try:
        updater = Updater(options)
        if watch is None:
            say(updater.run())
        else:
            run_watch(updater, watch, say)
    except KeyboardInterrupt:
        raise SystemExit(
            f"peav index update: interrupted; what is done is in {index}, and the same command goes on from there"
        ) from None


def info(index: Path) -> None:
    """Say what an index holds, and how it was made.

    Args:
        index: folder of the index.
    """
    from peav.search.store import Store

    with Store(index) as store:
        files = store.catalog.files()
        kinds = {kind: sum(file.kind == kind for file in files) for kind in ("sound", "video", "picture")}
        hours = sum(file.seconds or 0.0 for file in files) / 3600
        size = sum(path.stat().st_size for path in index.rglob("*") if path.is_file())
        settings = store.settings
        print(f"{index}: {len(files)} files ({counts(kinds)}), {hours:.1f} h")
        length, shared = settings["window_seconds"], settings["overlap_seconds"]
        print(f"windows: {sum(file.windows for file in files)}, {length:g} s, which share {shared:g} s")
        for name in store.names:
            print(
                f"{name}: {sum(len(segment.rows.get(name, ())) for segment in store.segments.values())} vectors of {store.dim}"
            )
        print(f"model: {settings['model']}, digest {settings['digest']}, {settings['precision']}")
        print(f"folders: {', '.join(store.catalog.roots())}")
        print(f"files that could not be indexed: {len(store.catalog.rejects())}")
        print(f"on disk: {size / 1e6:.1f} MB in {len(store.segments)} segments")


def export(index: Path, out: Path) -> None:
    """Write an index as a parquet table, for a vector database.

    The columns are id, path, start, seconds, kind, domain, transcript, and one list of halves for each embedding.

    Args:
        index: folder of the index.
        out: the table to write, .parquet.
    """
    from peav.cli.index_export import export_index
    from peav.search.store import Store

    with Store(index) as store:
        print(f"wrote {out}: {export_index(store, out)} windows")
