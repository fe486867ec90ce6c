"""A small server that imitates the hub as huggingface_hub talks to it: repositories, commits with LFS, listings and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What it holds.

    Attributes:
        address: of the server.
        files: content by repository and path.
        private: by repository.
        large: paths that came by LFS.
        token: that it wants.
    """

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    stored: dict[str, bytes] = field(default_factory=dict)
    token: str = "hf_of_a_test"

    def sha(self, repo: str) -> str:
        """Returns the revision of a repository."""
        held = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.files[repo].items())
        return hashlib.sha1(json.dumps(held).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, data: Any, status: int = 200) -> None:
        self._send(json.dumps(data).encode(), status, {"Content-Type": "application/json"})

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        if path == "/api/validate-yaml":
            assert body.count(b"---") >= 1
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.hub.files.setdefault(repo, {})
            self.hub.private[repo] = asked.get("visibility") == "private"
            return self._json({"url": f"{self.hub.address}/{repo}", "name": repo, "id": repo})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{self.hub.address}/put/{one['oid']}"}},
                }
                for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        repo = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if "/commit/" in path:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.files[repo][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.hub.files[repo][value["path"]] = self.hub.stored[value["oid"]]
                    self.hub.large.add(value["path"])
            sha = self.hub.sha(repo)
            return self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{repo}/commit/{sha}"})  # fmt: skip
        return self._json({"error": f"no such path {path}"}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.stored[oid] = body
        self._send(b"")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.hub.files:
            repo = "/".join(parts[2:4])
            held = self.hub.files[repo]
            if parts[4:5] == ["tree"]:
                return self._json(
                    [
                        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in held.items()
                    ]
                )
            siblings = [{"rfilename": name} for name in held]
            return self._json(
                {
                    "_id": repo,
                    "id": repo,
                    "sha": self.hub.sha(repo),
                    "private": self.hub.private[repo],
                    "siblings": siblings,
                }
            )
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        if parts[2:3] == ["resolve"] and name in self.hub.files.get(repo, {}):
            data = self.hub.files[repo][name]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            return self._send(data, 200, {"ETag": etag, "X-Repo-Commit": self.hub.sha(repo), "Accept-Ranges": "bytes"})
        return self._json({"error": f"no such path {path}"}, 404)

    do_HEAD = do_GET


@contextmanager
def serving() -> Iterator[Hub]:
    """Runs the server on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
