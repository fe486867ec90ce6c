"""The server: one page, a search behind it, and the media of the index by their numbers."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from peav.checkpoints import CheckpointError
from peav.data.media.errors import MediaError
from peav.inputs import media_kinds
from peav.mendable import sentence_of
from peav.search.index import Index
from peav.search.store import StoreError
from peav.search.terms import TARGETS, Example, vectors_of_windows
from peav.serve.apart import TooMuch, run_apart
from peav.serve.cache import DiskCache
from peav.serve.describe import Medium, describe
from peav.serve.guard import Guard
from peav.serve.library import Gone, Library, Opened
from peav.serve.queries import Query, decimal_of, kinds, shown, shown_file
from peav.serve.renditions import RENDITION_PIXELS, make_peaks, make_picture, make_rendition, make_thumbnail
from peav.serve.reports import REPORT_POLICY, find_reports
from peav.serve.settings import ServeSettings
from peav.serve.turns import Busy, Turns
from peav.serve.uploads import (
    PRELOAD,
    Examples,
    TooLarge,
    TooSlow,
    decode_upload,
    receive_upload,
    said_name,
    upload_folder,
)

_STATIC = Path(__file__).parent / "static"
#: What is made of a file stays right until the file changes, and the address with it.
_KEPT = {"cache-control": "private, max-age=86400"}
#: Where a thumbnail and a waveform begin may be said to this many seconds.
_STEP = 0.05

_log = logging.getLogger(__name__)

#: What goes wrong, and the status that says so.
_STATUSES: dict[type[Exception], int] = {
    TooLarge: 413,
    TooSlow: 408,
    ValueError: 400,
    KeyError: 404,
    Gone: 410,
    MediaError: 422,
    TooMuch: 422,
    FileNotFoundError: 404,
    Busy: 503,
    StoreError: 503,
    CheckpointError: 503,
}


class Server:
    """What answers requests.

    Args:
        index: that is searched; one thread at a time asks it.
        settings: what may be spent.
    """

    def __init__(self, index: Index, settings: ServeSettings) -> None:
        self.index, self.settings = index, settings
        self.library = Library(index.store)
        self.examples = Examples()
        self.cache = DiskCache(settings.cache, settings.cache_bytes)
        self.searches = Turns(1, settings.waiting)
        self.uploads = Turns(2, 8)
        self.encoders = Turns(settings.encoders, settings.waiting)
        self.looks = Turns(4, 2 * settings.waiting)
        self.model = "loading"
        self._receiving = 0

    # The index and what is found in it.

    def load_model(self) -> None:
        """Loads the model before the first query asks for it; what goes wrong is said to whoever asks."""
        try:
            _ = self.index.model
            self.model = "ready"
        except Exception as error:
            self.model = f"cannot be loaded: {error}"
            _log.warning("the model %s", self.model)

    def warm_up(self) -> None:
        """Lets the process from which decoders are forked import what they need, before the first of them waits for that."""
        with contextlib.suppress(TooMuch, OSError, EOFError):
            run_apart(len, ((),), 120.0, self.settings.decode_bytes, PRELOAD)

    async def about(self, request: Request) -> Response:
        """Says what the index holds, and what may be asked."""
        return JSONResponse(await self.looks.run(self._about))

    def _about(self) -> dict[str, Any]:
        store, settings = self.index.store, self.settings
        counts = self.library.counts()
        return {
            "name": store.folder.resolve().name,
            "files": sum(counts.values()),
            "counts": counts,
            "modes": [mode for mode, target in TARGETS.items() if target in store.names],
            "kinds": [kind for kind in kinds() if counts.get(kind)],
            "domains": self.library.domains(),
            "model": self.model,
            "window_seconds": store.settings["window_seconds"],
            "upload_bytes": settings.upload_bytes,
            "query_characters": settings.query_characters,
            "reports": bool(settings.reports),
        }

    async def health(self, request: Request) -> Response:
        """Says whether the server can answer: 200 once the model is loaded."""
        waiting = {name: getattr(self, name).held for name in ("searches", "uploads", "encoders")}
        return JSONResponse({"model": self.model, "working": waiting}, 200 if self.model == "ready" else 503)

    async def search(self, request: Request) -> Response:
        """Searches the index."""
        query = Query.parse(request.query_params, self.settings.query_characters)
        arguments = query.arguments(self.examples.get)
        # When it is heard is asked of what is opened alone (`when`): frames of all that is shown would take long.
        found = await self.searches.run(lambda: self.index.search(**arguments, when=False))
        answer = shown(found, self.settings.token is None)
        answer["examples"] = {name: self.examples.get(name).said for name in query.examples}
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    async def when(self, request: Request) -> Response:
        """Says when within a span the words of a query are heard, as far as the model has frames."""
        opened, medium = await self._look(request)
        query = Query.parse(request.query_params, self.settings.query_characters)
        start, seconds = self._span(request, opened)
        span = None
        if medium.has_sound:
            span = await self.searches.run(self.index.heard, opened.entry, start, seconds, query.text)
        if span is None:
            return JSONResponse({"begin": None, "end": None, "frame_score": None})
        return JSONResponse({"begin": span.onset, "end": span.offset, "frame_score": span.score})

    async def upload(self, request: Request) -> Response:
        """Takes in a file to search by it; answers with its name among the examples."""
        if self._receiving >= self.uploads.most:
            raise Busy("too many files are being taken in: try again in a moment")
        self._receiving += 1
        try:
            with upload_folder() as folder:
                path, digest = await receive_upload(request, folder, self.settings)
                name = said_name(request)
                try:
                    example = self.examples.get(digest)
                except KeyError:
                    example = await self._embed(str(path), name)
                    self.examples.put(digest, example)
        finally:
            self._receiving -= 1
        return JSONResponse({"like": digest, "name": name, "has": sorted(example.vectors)})

    async def _embed(self, path: str, name: str) -> Example:
        settings, limits = self.index.store.settings, self.settings
        model = await self.searches.run(lambda: self.index.model)
        work = (path, model.media, media_kinds(model), dict(settings), limits.example_seconds)
        try:
            windows = await self.uploads.run(
                run_apart, decode_upload, work, limits.decode_seconds, limits.decode_bytes, PRELOAD
            )
        except MediaError as error:
            raise MediaError(name, error.reason.replace(path, name)) from None
        except (TooMuch, ValueError, FileNotFoundError) as error:
            raise type(error)(f"{name}: {str(error).replace(path, name)}") from None
        vectors = await self.searches.run(vectors_of_windows, model, settings, name, windows)
        return Example(name, vectors)

    # Media.

    async def file(self, request: Request) -> Response:
        """Says what a file is, and how it is played."""
        opened, medium = await self._look(request)
        how = "picture" if medium.kind == "picture" else "original" if medium.type else "rendition"
        about = shown_file(opened.entry, self.settings.token is None)
        longest = self.settings.rendition_seconds
        return JSONResponse(
            {**about, "plays": how, "type": medium.type, "sound": medium.has_sound, "longest": longest},
            headers={"cache-control": "no-store"},
        )

    async def media(self, request: Request) -> Response:
        """Serves a file as it is, whole or in ranges, if browsers play it."""
        opened, medium = await self._look(request)
        if medium.type is None:
            raise ValueError("browsers do not play this file as it is: ask for a rendition of a span")
        # Under the type of a medium, whatever it is called, so that no browser takes it for a page.
        return FileResponse(
            opened.entry.path,
            media_type=medium.type,
            stat_result=opened.status,
            headers={"cache-control": "private, no-cache"},
        )

    async def rendition(self, request: Request) -> Response:
        """Serves a span of a file, encoded anew so that every browser plays it."""
        opened, medium = await self._look(request)
        if medium.kind == "picture":
            raise ValueError("a picture has no span to play")
        start, seconds = self._span(request, opened)
        limit = self.settings.encode_seconds
        path = await self._made(
            f"rendition|{opened.key}|{start:.2f}|{seconds:.2f}",
            ".mp4",
            lambda output: make_rendition(opened.entry.path, medium, start, seconds, output, limit),
        )
        return FileResponse(path, media_type="video/mp4" if medium.has_video else "audio/mp4", headers=_KEPT)

    async def thumbnail(self, request: Request) -> Response:
        """Serves a picture of a span, or a still picture, as WebP."""
        opened, medium = await self._look(request)
        limit, source = self.settings.encode_seconds, opened.entry.path
        if medium.kind == "picture":
            side = RENDITION_PIXELS if request.query_params.get("large") else 384
            memory = self.settings.decode_bytes

            def draw(output: Path) -> None:
                output.write_bytes(run_apart(make_picture, (source, side), limit, memory, PRELOAD))

            path = await self._made(f"picture|{opened.key}|{side}", ".webp", draw)
        elif not medium.has_video:
            raise ValueError("a sound has no thumbnail: ask for its waveform")
        else:
            start, seconds = self._span(request, opened)
            whole = min(opened.entry.seconds or seconds, 3600.0)
            path = await self._made(
                f"thumbnail|{opened.key}|{start:.2f}|{seconds:.2f}",
                ".webp",
                lambda output: make_thumbnail(source, medium, start, seconds, whole, output, limit),
            )
        return FileResponse(path, media_type="image/webp", headers=_KEPT)

    async def peaks(self, request: Request) -> Response:
        """Serves the outline of the sound of a span."""
        opened, medium = await self._look(request)
        start, seconds = self._span(request, opened)
        if not medium.has_sound:
            return JSONResponse({"start": start, "seconds": seconds, "peaks": []}, headers=_KEPT)
        limit = self.settings.encode_seconds
        path = await self._made(
            f"peaks|{opened.key}|{start:.2f}|{seconds:.2f}",
            ".json",
            lambda output: make_peaks(opened.entry.path, medium, start, seconds, output, limit),
        )
        return FileResponse(path, media_type="application/json", headers=_KEPT)

    async def _look(self, request: Request) -> tuple[Opened, Medium]:
        number: int = request.path_params["file"]

        def look() -> tuple[Opened, Medium]:
            opened = self.library.open(number)
            return opened, describe(opened.entry.path, opened.status.st_size, opened.status.st_mtime_ns)

        return await self.looks.run(look)

    def _span(self, request: Request, opened: Opened) -> tuple[float, float]:
        """Returns the span that is asked for, as far as the file lasts.

        Raises:
            ValueError: if it lies beyond the end, is empty or too long.
        """
        given, most = request.query_params, self.settings.rendition_seconds
        start = decimal_of(given, "start", 0.0)
        seconds = decimal_of(given, "seconds", self.index.store.settings["window_seconds"])
        whole = opened.entry.seconds
        if not 0 < seconds <= most:
            raise ValueError(f"seconds must be above 0 and at most {most:g}, not {seconds:g}")
        if whole is not None:
            if start >= whole:
                raise ValueError(f"there is nothing at {start:g} s: the file lasts {whole:g} s")
            seconds = min(seconds, whole - start)
        return round(start / _STEP) * _STEP, max(_STEP, round(seconds / _STEP) * _STEP)

    async def _made(self, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
        return await self.encoders.run(self.cache.get, key, suffix, make)

    # Pages.

    async def page(self, request: Request) -> Response:
        """Serves the page."""
        return FileResponse(_STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def reports(self, request: Request) -> Response:
        """Lists pages that peav wrote."""
        found = await to_thread.run_sync(find_reports, self.settings.reports)
        fields = ("id", "title", "place", "writer", "modified")
        return JSONResponse([{name: getattr(report, name) for name in fields} for report in found])

    async def report(self, request: Request) -> Response:
        """Serves a page that peav wrote, without the rights of this one."""
        found = await to_thread.run_sync(find_reports, self.settings.reports)
        for report in found:
            if report.id == request.path_params["report"]:
                headers = {"content-security-policy": REPORT_POLICY, "cache-control": "no-store"}
                return FileResponse(report.path, media_type="text/html", headers=headers)
        raise KeyError("there is no such page any more")


def make_app(index: Index, settings: ServeSettings) -> Starlette:
    """Makes the application; it closes what it has opened of the index when it ends, but not the index.

    Args:
        index: that is searched.
        settings: what may be spent, and by whom.
    """
    server = Server(index, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # A query that comes before waits for its turn behind this.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.searches.run, server.load_model)
            # Nobody waits for this, at the end least of all.
            threading.Thread(target=server.warm_up, daemon=True).start()
            yield
        server.library.close()

    routes = [
        Route("/", server.page),
        Route("/reports", server.page),
        Route("/health", server.health),
        Route("/api/index", server.about),
        Route("/api/search", server.search),
        Route("/api/upload", server.upload, methods=["POST"]),
        Route("/api/file/{file:int}", server.file),
        Route("/api/peaks/{file:int}", server.peaks),
        Route("/api/when/{file:int}", server.when),
        Route("/api/reports", server.reports),
        Route("/reports/{report:str}", server.report),
        Route("/media/{file:int}", server.media),
        Route("/rendition/{file:int}", server.rendition),
        Route("/thumbnail/{file:int}", server.thumbnail),
        Mount("/static", StaticFiles(directory=_STATIC, follow_symlink=False)),
    ]
    guard = Middleware(Guard, hosts=settings.hosts, token=settings.token)
    handlers: dict[Any, Any] = {kind: _answer for kind in (*_STATUSES, OSError, OverflowError, HTTPException)}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=lifespan)


async def _answer(request: Request, error: Exception) -> Response:
    """Says what went wrong, as JSON."""
    headers = {"cache-control": "no-store"}
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, headers={**(error.headers or {}), **headers})
    message = sentence_of(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JSONResponse({"error": "the disk of the server is full"}, 507, headers=headers)
    status = next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), 400)
    if isinstance(error, MediaError):
        # Whoever asks knows the file by its name, and need not know where it lies.
        message = f"{Path(error.path).name}: {error.reason.replace(error.path, Path(error.path).name)}"
    elif isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        _log.warning("%s: %s", request.url.path, error)
        status, message = 500, f"cannot be read: {error.strerror}"
    if status == 503:
        headers["retry-after"] = "2"
    return JSONResponse({"error": message}, status, headers=headers)
