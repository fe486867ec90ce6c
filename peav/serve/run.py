"""Starting the server, and saying where it is."""

from __future__ import annotations

import errno
import ipaddress
import logging
import secrets
import socket
from dataclasses import dataclass, replace
from typing import Any

from peav.search.index import Index
from peav.serve.settings import ServeSettings

#: Connections at once; more are told to come again.
_CONNECTIONS = 500
#: Bytes of the head of a request, its address included.
_HEAD_BYTES = 64 << 10


def import_uvicorn() -> Any:
    """Returns uvicorn.

    Raises:
        ImportError: if it or Starlette is not installed, with what to install.
    """
    try:
        import starlette  # noqa: F401, PLC0415  an optional extra
        import uvicorn  # noqa: PLC0415
    except ImportError:
        raise ImportError("the page needs Starlette and uvicorn: pip install 'peav[serve]'") from None
    return uvicorn


def is_local(host: str) -> bool:
    """Returns whether only this machine can reach an address.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Listening:
    """A server that listens, and answers as soon as it runs.

    Attributes:
        address: to open in a browser, with the token if one is needed.
        server: of uvicorn.
        socket: at which it listens; who runs it closes it.
    """

    address: str
    server: Any
    socket: socket.socket

    def run(self) -> None:
        """Answers until it is interrupted, or `server.should_exit` is set."""
        with self.socket:
            self.server.run(sockets=[self.socket])


def listen(index: Index, settings: ServeSettings, host: str, port: int) -> Listening:
    """Makes a server.

    Args:
        index: that is searched.
        settings: what may be spent; beyond this machine a token is made.
        host: address to listen at.
        port: to listen at; 0 for any that is free.

    Raises:
        ValueError: if the address cannot be had.
    """
    uvicorn = import_uvicorn()
    # It needs Starlette.
    from peav.serve.app import make_app  # noqa: PLC0415

    everywhere = host in ("0.0.0.0", "::")
    own = [socket.gethostname(), socket.getfqdn()] if everywhere else [host]
    token = None if is_local(host) else secrets.token_urlsafe(24)
    settings = replace(settings, hosts=[*settings.hosts, *own], token=token)
    listening = _bind(host, port)
    config = uvicorn.Config(
        make_app(index, settings),
        log_level=logging.WARNING,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        http="h11",
        ws="none",
        proxy_headers=False,
    )
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    query = "" if token is None else f"?token={token}"
    return Listening(f"http://{name}:{listening.getsockname()[1]}/{query}", uvicorn.Server(config), listening)


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port must be from 0 to 65535, not {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(f"--host {host} --port {port} is no address: {error}") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(256)
    except OSError as error:
        listening.close()
        other = " Give another with --port, or 0 for any." if error.errno == errno.EADDRINUSE else ""
        raise ValueError(f"{host}:{port} cannot be listened at: {error.strerror}.{other}") from None
    return listening
