"""Who may ask a server, and what its pages may load: ASGI middleware before everything else.

A page of a stranger that is open in the same browser must neither read nor start anything. Its requests say that they come from
elsewhere (`Sec-Fetch-Site`), or call this server by a name of the stranger's (DNS rebinding, the Host header).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "peav_token"

#: The page loads what lies beside it, and nothing else; no other page may frame it.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)

_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
}


class Guard:
    """Refuses requests that come from elsewhere, and says in every answer what browsers may do with it.

    Args:
        app: what is guarded.
        hosts: names by which it may be called, besides `localhost` and IP addresses.
        token: that a browser must know, by its cookie, by `?token=` once, or as `Authorization: Bearer`; None if none is needed.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), token: str | None = None) -> None:
        self.app, self.token = app, token
        self.hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refuse(scope)
        await (answer or self.app)(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return JSONResponse({"error": f"there is no {scope['method']} here"}, 405)
        name = host_name(headers.get("host", ""))
        if name is None or (name not in self.hosts and not _is_address(name)):
            return PlainTextResponse(
                f"This server does not go by the name {name!r:.100}. Ask for it by its address, or start it with --allow_host NAME.",
                403,
            )
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        # A link from elsewhere may lead here; nothing else may come from there.
        link = mode == "navigate" and headers.get("sec-fetch-dest") == "document" and scope["method"] == "GET"
        if site in ("cross-site", "same-site") and not link:
            return JSONResponse({"error": "asked by a page of another site"}, 403)
        return None if self.token is None else self._check_token(scope, headers)

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = [value for key, value in query if key == "token"]
        if asked and self._is_token(asked[-1]):
            # Out of the address, so that it is not passed on with a link.
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            answer = RedirectResponse("/" + quote(scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(_COOKIE, asked[-1], max_age=30 * 86400, httponly=True, samesite="strict")
            return answer
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            cookie = None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if (cookie and self._is_token(cookie.value)) or (scheme.lower() == "bearer" and self._is_token(bearer)):
            return None
        return PlainTextResponse(
            "This server wants its token: open the address that `peav serve` printed, which ends in ?token=...", 401
        )

    def _is_token(self, value: str) -> bool:
        return self.token is not None and hmac.compare_digest(value.encode(), self.token.encode())


def host_name(host: str) -> str | None:
    """Returns the name in a Host header, without its port; None if it is none.

    >>> host_name("LocalHost:8321"), host_name("[::1]:80"), host_name("a b")
    ('localhost', '::1', None)
    """
    host = host.strip().lower()
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if bracket else "?"
    else:
        name, _, port = host.partition(":")
    if not name or (port and not port.isdigit()) or not all(mark.isalnum() or mark in ".-:_" for mark in name):
        return None
    return name.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
