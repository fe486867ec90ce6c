"""A server in OpenAI's form that does what a script says."""

from __future__ import annotations

import email
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def fields(kind: str, body: bytes) -> dict[str, Any]:
    """What was posted, JSON or a form; its files are bytes."""
    if not kind.startswith("multipart/"):
        return dict(json.loads(body))
    form: Any = email.message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
    return {name: part.get_payload(decode=bool(part.get_filename())) for name, part in parts.items()}


class Scripted:
    """What the server was asked, and what it does.

    Attributes:
        bodies: of all requests.
        do: what is done with request number N and its body: (status, body, headers); a body of bytes goes as it is; `cut` sends half of it,
            and `hang` waits.
        most: requests that were worked on at once.
    """

    def __init__(self, do: Callable[[int, dict[str, Any]], Any]) -> None:
        self.do, self.bodies, self.most, self.open = do, [], 0, 0  # type: ignore[var-annotated]
        self.lock, self.times, self.url = threading.Lock(), [], ""  # type: ignore[var-annotated]


@contextmanager
def serving(do: Callable[[int, dict[str, Any]], Any]) -> Iterator[Scripted]:
    script = Scripted(do)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = fields(self.headers["content-type"], self.rfile.read(int(self.headers["content-length"])))
            with script.lock:
                number = len(script.bodies)
                script.bodies.append(body)
                script.times.append(time.monotonic())
                script.open += 1
                script.most = max(script.most, script.open)
            try:
                made = script.do(number, body)
            finally:  # before the answer, after which the client may send another request
                with script.lock:
                    script.open -= 1
            with suppress(BrokenPipeError, ConnectionResetError):
                self.answer(*made)

        def answer(self, status: int | str, body: Any, headers: dict[str, str] | None = None) -> None:
            if status == "hang":
                time.sleep(body)
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(200 if status == "cut" else int(status))
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if status == "cut" else data)
            if status == "cut":
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
