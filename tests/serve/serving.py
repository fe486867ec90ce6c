"""`peav serve` in a process of its own, and requests to it, byte by byte where that matters."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from peav.search import Index, Store
from peav.serve.run import listen
from peav.serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]


@dataclass
class Answer:
    """Status, headers by lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass
class Served:
    """A server that runs; `scratch` is its folder for temporary files, where it has one of its own."""

    address: str
    index: Path
    scratch: Path | None = None

    @property
    def port(self) -> int:
        return int(re.search(r":(\d+)/", self.address)[1])  # type: ignore[index]

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 90.0,
        **query: Any,
    ) -> Answer:
        """Asks, without following anywhere."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout: float = 30.0) -> bytes:
        """Sends bytes, and returns what comes until the server closes or says no more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(data)
            got = b""
            try:
                while part := connection.recv(65536):
                    got += part
                    if b"\r\n\r\n" in got and b"connection: close" not in got.lower():
                        break
            except (TimeoutError, ConnectionResetError):
                pass
            return got

    def file(self, name: str) -> int:
        """Returns the number of a file of the index."""
        with Store(self.index) as store:
            return next(file.id for file in store.catalog.files() if Path(file.path).name == name)

    def alive(self) -> bool:
        """Whether it still answers."""
        return self.ask("/api/index").status == 200

    def wait(self) -> None:
        """Until the model is loaded."""
        while self.ask("/health").status != 200:
            time.sleep(0.05)


@contextmanager
def served(index: Path, cache: Path, host: str = "127.0.0.1", **settings: Any) -> Iterator[Served]:
    """Runs the server in a thread of this process, which saves the time that imports take."""
    with Index.open(index) as opened:
        listening = listen(opened, ServeSettings(cache=cache, **settings), host, 0)
        thread = threading.Thread(target=listening.run)
        thread.start()
        try:
            yield Served(listening.address, index)
        finally:
            listening.server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def served_apart(index: Path, *words: str) -> Iterator[Served]:
    """Runs `peav serve` as a user does, and ends it by Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="peav-", ignore_cleanup_errors=True) as scratch:
        yield from _served_apart(index, words, Path(scratch))


def _served_apart(index: Path, words: Sequence[str], scratch: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "peav.cli.main", "serve", str(index), "--port=0", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            heard, _, _ = select.select([process.stdout], [], [], 240)
            line = process.stdout.readline() if heard else ""
            address = re.search(r"http://\S+", line)
            if address is None:
                errors.seek(0)
                raise AssertionError(f"no address in {line!r}: {errors.read()[-3000:]}")
            server = Served(address[0], index, scratch)
            server.wait()
            yield server
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        errors.seek(0)
        assert "Traceback" not in errors.read()
