"""A real browser, in which nothing but this machine can be asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

#: Playwright's own build plays neither H.264 nor AAC.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"

_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]


def find_browser() -> str | None:
    """Returns the path of a Chromium that plays H.264, None if there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path is not None), None)
    return found or (_MAC if Path(_MAC).exists() else None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    path = find_browser()
    if path is None:
        pytest.skip("there is no Chromium: scripts/browser.sh installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did beside what was asked.

    Attributes:
        page: of playwright.
        own: name and port of the server.
        said: errors and warnings of its console, and what it raised.
        outside: addresses off this machine that it asked for.
        parts: statuses and Content-Range of answers with media.
    """

    page: Page
    own: str
    said: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    parts: list[tuple[int, str]] = field(default_factory=list)

    def asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc not in (self.own, ""):
            self.outside.append(request.url)

    def heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def answered(self, response: Response) -> None:
        if "/media/" in response.url or "/rendition/" in response.url:
            self.parts.append((response.status, response.headers.get("content-range", "")))

    def state(self) -> dict[str, Any]:
        """Returns where the player stands."""
        found: dict[str, Any] = self.page.locator("#media").evaluate(
            "(media) => ({time: media.currentTime, paused: media.paused, width: media.videoWidth, "
            "sound: media.webkitAudioDecodedByteCount, duration: media.duration, src: media.getAttribute('src')})"
        )
        return found

    def play_on(self, seconds: float = 0.6, limit: float = 20.0) -> dict[str, Any]:
        """Waits until so much has been played, and returns where the player stands then."""
        begun: float | None = None
        for _ in range(int(limit / 0.05)):
            state = self.state()
            if not state["paused"] and state["time"] > 0 and state["duration"]:
                begun = state["time"] if begun is None else begun
                if abs(state["time"] - begun) >= seconds:
                    return state
            self.page.wait_for_timeout(50)
        raise AssertionError(f"it does not play: {self.state()}, {self.said}")

    def search(self, words: str) -> None:
        """Asks by the keyboard alone."""
        self.page.keyboard.press("Escape")  # out of the words, in which a slash is one
        self.page.keyboard.press("/")
        self.page.keyboard.insert_text(words)
        self.page.keyboard.press("Enter")
        self.page.locator("#results .card").first.wait_for(timeout=30_000)


@contextmanager
def opened(
    browser: Browser,
    address: str,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    allowed: tuple[str, ...] = (),
) -> Iterator[Watched]:
    """Opens an address in a fresh profile; afterwards the console must be clean, and nothing off this machine asked for.

    Args:
        browser: in which.
        address: to open.
        width: of the window, pixels.
        scheme: of colours.
        allowed: words of messages of the console that are right.
    """
    size = {"width": width, "height": 900 if width > 600 else 740}
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    own = urlsplit(address).netloc
    watched = Watched(page, own)

    # What a handler sees does not stream any more, so that only what leads elsewhere is handled.
    page.route(lambda url: urlsplit(url).netloc not in (own, ""), lambda route: route.abort())
    page.on("request", watched.asked)
    page.on("console", watched.heard)
    page.on("pageerror", lambda error: watched.said.append(str(error)))
    page.on("response", watched.answered)
    page.goto(address)
    page.locator("#about").filter(has_text="index").wait_for()
    try:
        yield watched
        assert [text for text in watched.said if not any(word in text for word in allowed)] == []
        assert watched.outside == []
    finally:
        context.close()
