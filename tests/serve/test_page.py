"""The page of `peav serve` in a real browser: what is heard and seen, and where it stands after playing on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.serve.browser import Watched, launched, opened
from tests.serve.conftest import CAPTION, HOSTILE
from tests.serve.serving import Served

#: Where screenshots are kept to be looked at; nowhere by default.
SHOTS = os.environ.get("PEAV_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as running:
        yield running


def shoot(watched: Watched, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        watched.page.screenshot(path=f"{SHOTS}/{name}.png")


def find(watched: Watched, server: Served, name: str, **filters: str) -> None:
    """Lets the page show one file alone, by the filter for its name."""
    query = "".join(f"&{key}={value}" for key, value in filters.items())
    watched.page.goto(server.address + f"?q=a+bell&name={name}{query}")
    watched.page.locator("#results .card").first.wait_for(timeout=30_000)


def test_by_the_keyboard_alone_from_words_to_the_moment(browser: Browser, server: Served) -> None:
    """Seen, so that there are pictures: it stands within the moment after playing on, and sound is decoded."""
    with opened(browser, server.address) as watched:
        page = watched.page
        expect(page.get_by_role("searchbox", name="What is sought, in words")).to_be_focused()
        watched.search("a bell")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#results .show").first).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name="Player")).to_be_visible()
        watched.play_on(0.3)
        assert page.url.endswith("?q=a+bell&hit=1.1")
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(f"{server.address}?q=a+bell&hit=2.1")
        expect(page.locator("#results .show").nth(1)).to_be_focused()
        watched.play_on(0.3)
        page.keyboard.press(" ")
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
        assert watched.state()["paused"]
        page.keyboard.press("Escape")
        expect(page.get_by_role("region", name="Player")).to_be_hidden()
        shoot(watched, "results-1280")


def test_a_film_plays_from_its_moment_with_sound_and_loops(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as watched:
        find(watched, server, "clip", mode="both")
        page = watched.page
        # A deep link to a later moment.
        moments = page.locator("#results .card .row button")
        expect(moments.first).to_be_visible()
        page.goto(server.address + "?q=a+bell&name=clip&mode=both&hit=1.2")
        state = watched.play_on()
        begin = page.locator("#moments button[aria-current=true]").inner_text()
        start, end = (float(part.split(":")[1]) for part in begin.split(" – "))
        assert start > 0 and start <= state["time"] <= end + 0.1
        assert state["width"] == 128 and state["sound"] > 0 and state["src"].startswith("/media/")
        assert (206, watched.parts[-1][1]) in watched.parts and watched.parts[-1][1].startswith("bytes ")
        # Round and round: it never stands far beyond the end.
        seen = []
        for _ in range(40):
            page.wait_for_timeout(100)
            seen.append(watched.state()["time"])
        assert min(seen[5:]) >= start - 0.05 and max(seen) <= end + 0.35
        assert any(later < earlier for earlier, later in itertools.pairwise(seen))
        shoot(watched, "player-1280")
        page.get_by_role("button", name="More like this").click()
        expect(page.get_by_text("like the hit clip.mp4")).to_be_visible()
        page.locator("#results .card").first.wait_for()
        page.go_back()
        expect(page).to_have_url(f"{server.address}?q=a+bell&name=clip&mode=both&hit=1.2")
        watched.play_on(0.2)
        page.go_forward()
        expect(page.get_by_text("like the hit clip.mp4")).to_be_visible()
        expect(page.get_by_role("region", name="Player")).to_be_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alac.mp4", "film.avi"])
def test_what_the_browser_does_not_play_plays_as_a_rendition(browser: Browser, server: Served, name: str) -> None:
    with opened(browser, server.address) as watched:
        find(watched, server, name.split(".")[0], mode="both")
        watched.page.locator("#results .show").first.press("Enter")
        state = watched.play_on()
        assert state["src"].startswith("/rendition/") and state["width"] == 128 and state["sound"] > 0


@pytest.mark.slow
def test_a_sound_and_a_picture(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as watched:
        find(watched, server, "tone", mode="heard")
        watched.page.locator("#results .show").first.press("Enter")
        assert watched.play_on()["sound"] > 0
        find(watched, server, "still", mode="seen")
        watched.page.locator("#results .show").first.press("Enter")
        expect(watched.page.get_by_role("img", name="still.png")).to_be_visible(timeout=30_000)
        width = watched.page.locator("#still").evaluate("(one) => one.decode().then(() => one.naturalWidth)")
        assert width == 200


def test_html_in_names_and_captions_is_text(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as watched:
        page = watched.page
        page.goto(server.address + "?q=<img src=x onerror=alert(2)>&mode=heard&domain=<b>bold</b>")
        card = page.locator("#results .show").first
        card.wait_for(timeout=30_000)
        expect(card.locator(".name")).to_have_text(HOSTILE)
        card.press("Enter")
        page.get_by_text("What is known of it").click()
        expect(page.locator("#transcript")).to_have_text(CAPTION)
        assert page.title() != "taken over" and page.locator("img[src=x], b").count() == 0


@pytest.mark.slow
def test_a_file_is_dropped_or_chosen_and_the_microphone_is_heard(
    browser: Browser, server: Served, media: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    with opened(browser, server.address, allowed=("422",)) as watched:
        page = watched.page
        page.locator("#file").set_input_files(media / "tone.wav")
        expect(page.get_by_text("like the file tone.wav")).to_be_visible(timeout=60_000)
        page.locator("#results .card").first.wait_for(timeout=30_000)
        # As a drop gives it.
        data = page.evaluate_handle(
            "() => { const held = new DataTransfer(); held.items.add(new File(['no sound'], 'bad.wav')); return held; }"
        )
        page.dispatch_event("body", "drop", {"dataTransfer": data})
        expect(page.get_by_role("status")).to_contain_text("bad.wav", timeout=60_000)
        page.get_by_role("button", name="Record").click()
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("like the file recording.webm")).to_be_visible(timeout=60_000)
        page.locator("#results .card").first.wait_for(timeout=30_000)
        page.get_by_role("button", name="No longer by recording.webm").click()
        expect(page.locator("#results .card")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light"), (2200, "dark")])
def test_it_fits_narrow_and_wide_windows(browser: Browser, server: Served, width: int, scheme: str) -> None:
    with opened(browser, server.address, width, scheme) as watched:  # type: ignore[arg-type]
        shoot(watched, f"start-{width}")
        watched.search("a bell")
        watched.page.wait_for_timeout(2000)
        shoot(watched, f"results-{width}")
        watched.page.locator("#results .show").first.press("Enter")
        watched.play_on(0.3)
        shoot(watched, f"player-{width}")
        assert watched.page.locator("html").evaluate("(one) => one.scrollWidth") <= width
        # Whatever can be pressed has a name, and is large enough to be hit.
        for button in watched.page.locator("button:visible").all():
            assert button.get_attribute("aria-label") or button.inner_text().strip()
            box = button.bounding_box()
            assert box is not None and box["height"] >= 30


@pytest.mark.slow
def test_the_page_says_when_the_server_is_gone_or_nothing_is_found(browser: Browser, server: Served) -> None:
    with opened(browser, server.address, allowed=("ERR_FAILED", "400")) as watched:
        page = watched.page
        watched.search("a bell")
        page.goto(server.address + "?q=a+bell&min_seconds=5000")
        expect(page.get_by_role("status")).to_contain_text("Nothing found among 0 windows")
        page.goto(server.address + "?q=a+bell&mode=smelled")
        expect(page.get_by_role("status")).to_contain_text("mode='smelled'")
        page.route("**/api/search*", lambda route: route.abort())
        page.keyboard.press("/")
        page.keyboard.insert_text("another")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("The server does not answer")
