"""`peav serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def serve(
    index: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8321,
    allow_host: Sequence[str] = (),
    reports: Sequence[Path] = (),
    cache: Path | None = None,
    cache_mb: float = 1000.0,
    upload_mb: float = 200.0,
    model: str | None = None,
    device: str = "auto",
    trust: bool = False,
) -> None:
    """Serve a page on which an index is searched, and what is found is seen and heard.

    The page is asked by words, by a file that is dropped on it, by the microphone and by what it has found. It plays the moments that
    fit. It needs no network, and only this machine can open it, unless --host says otherwise; then its address holds a token.

    For example: peav serve my_index

    Args:
        index: folder of the index.
        host: address to listen at; 0.0.0.0 lets other machines in, who need the token of the address that is printed.
        port: to listen at; 0 takes any that is free.
        allow_host: a further name by which browsers may call it, such as that of a proxy.
        reports: a folder of runs or data: pages that peav evaluate, caption and data inspect wrote there are listed.
        cache: folder for what is made for browsers; by default ~/.cache/peav/serve.
        cache_mb: what that folder may hold, MB.
        upload_mb: what a file that is searched by may hold, MB.
        model: where the model of the index lies now, if it has moved.
        device: `cpu`, `cuda`, ... or `auto`.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.search.index import Index
    from peav.serve.run import import_uvicorn, listen
    from peav.serve.settings import ServeSettings, default_cache

    import_uvicorn()
    for folder in reports:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder} of --reports")
    for name, value in (("cache_mb", cache_mb), ("upload_mb", upload_mb)):
        if not 1 <= value < 1e9:
            raise ValueError(f"{name} must be at least 1, not {value}")
    settings = ServeSettings(
        hosts=tuple(allow_host),
        cache=cache or default_cache(),
        cache_bytes=round(cache_mb * 1e6),
        upload_bytes=round(upload_mb * 1e6),
        reports=tuple(reports),
    )
    with Index.open(index, model, device, trust) as opened:
        listening = listen(opened, settings, host, port)
        files = len(opened.store.catalog.file_ids())
        print(f"{index}: {files} files. Open {listening.address} (Ctrl-C ends it)", flush=True)
        listening.run()
