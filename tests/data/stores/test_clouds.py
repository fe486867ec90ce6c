"""Google Cloud Storage and the Hugging Face hub, imitated by local servers: their own clients fetch what is read."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from peav.data import StoreError, StoreOptions
from peav.data.manifests.manifest import open_manifest
from tests.data.streams import content, loader
from tests.data.world import make_data


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("source") / "data", clips=120, chunk_bytes=30_000)


@pytest.fixture
def hub(source: Path) -> Iterator[str]:
    """The address of a server that answers as the Hugging Face hub does, for the data set org/clips."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            name = self.path.removeprefix("/datasets/org/clips/resolve/main/")
            found = (source / name).is_file()
            data = (source / name).read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(data)))
            if found:
                self.send_header("X-Repo-Commit", "c" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def google(source: Path) -> Iterator[dict[str, Any]]:
    """Options for a server that answers downloads as Google Cloud Storage does, for the bucket clips."""

    class Storage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path.removeprefix("/download/storage/v1/b/clips/o/"))
            path = source / name.removeprefix("data/")
            found = name.startswith("data/") and path.is_file()
            data = path.read_bytes() if found else b"no such object"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = {"api_endpoint": f"http://127.0.0.1:{server.server_port}"}
    yield {"project": "peav", "use_auth_w_custom_endpoint": False, "client_options": endpoint}
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bucket_of_google_is_streamed(
    source: Path,
    google: dict[str, Any],
    tokenize: Callable,
    tmp_path: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = StoreOptions(cache_dir=str(tmp_path / "cache"), storage_options=google)
    want = [content(batch) for batch in loader(source, tokenize)]
    assert [content(batch) for batch in loader("gs://clips/data", tokenize, store, workers)] == want
    monkeypatch.setattr("peav.data.stores.remote.RETRY_SECONDS", ())
    with pytest.raises(StoreError, match=r"gs://clips/data/manifest/test.jsonl cannot be fetched .*404"):
        open_manifest("gs://clips/data", "test", store)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_of_the_hub_is_streamed(
    source: Path, hub: str, tokenize: Callable, tmp_path: Path, workers: int
) -> None:
    store = StoreOptions(cache_dir=str(tmp_path / "cache"), storage_options={"endpoint": hub})
    want = [content(batch) for batch in loader(source, tokenize)]
    assert [content(batch) for batch in loader("hf://datasets/org/clips", tokenize, store, workers)] == want


def test_what_is_not_on_the_hub_is_named(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peav.data.stores.remote.RETRY_SECONDS", ())
    store = StoreOptions(cache_dir=str(tmp_path / "cache"), storage_options={"endpoint": hub})
    with pytest.raises(StoreError, match=r"hf://datasets/org/clips/manifest/test.jsonl cannot be fetched"):
        open_manifest("hf://datasets/org/clips", "test", store)
