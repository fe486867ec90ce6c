"""The blind test as people take it: made by the real command, answered in a real browser, scored by the real command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from peav.data.manifests.manifest import open_manifest
from tests.engine.test_ab import EVIL
from tests.serve.browser import launched

#: Where screenshots are kept to be looked at; nowhere by default.
SHOTS = os.environ.get("PEAV_SCREENSHOTS")

pytestmark = pytest.mark.slow


def peav(folder: Path, *words: str) -> str:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "peav.cli.main", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of real media with captions by people, hostile ones by models, and the page of a test of both."""
    root = tmp_path_factory.mktemp("ab")
    peav(root, "synth", "world", "--clips", "24", "--seed", "0")
    peav(root, "prepare", "world", "data")
    ids = [clip.id for clip in open_manifest(root / "data", "train")]
    lines = [json.dumps({"id": name, "text": f"model {k} {EVIL}", "kind": "audio_video"}) for k, name in enumerate(ids)]
    (root / "captions.jsonl").write_text("\n".join(lines))
    read = {"class_path": "CaptionsFromFile", "init_args": {"path": "captions.jsonl", "kind": "audio_video"}}
    stages = {"stages": {"read": read, "choose": {"class_path": "ChooseCaption"}}}
    (root / "engine.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    peav(root, "caption", "data", "--config", "engine.yaml", "--samples", "0")
    said = peav(
        root, "ab", "make", "data:real", "data:synthetic", "--type", "audio_video", "--clips", "6", "--seed", "3"
    )
    assert "wrote ab.html for the raters: 6 clips" in said
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as running:
        yield running


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """Opens the file in a fresh profile; afterwards the console must be clean, and nothing asked for."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, accept_downloads=True)  # type: ignore[arg-type]
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    try:
        yield page
        assert said == []
        assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {path.as_uri()}
    finally:
        context.close()


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png")


def place(page: Page) -> str:
    return page.locator("#place").inner_text()


def played(page: Page) -> None:
    """Waits until the clip that is shown has been playing for a moment."""
    for _ in range(400):
        if page.locator(".pair:visible audio").evaluate("(sound) => !sound.paused && sound.currentTime > 0.05"):
            return
        page.wait_for_timeout(50)
    raise AssertionError("the sound does not play")


def texts(page: Page) -> list[str]:
    return page.locator(".pair:visible .text p").all_inner_texts()


def test_a_rater_from_the_first_clip_to_the_score(browser: Browser, folder: Path) -> None:
    pairs = json.loads((folder / "ab.key.json").read_text())["pairs"]
    with opened(browser, folder / "ab.html") as page:
        assert page.title() == "Blind test of captions" and place(page) == "Clip 1 of 6, 0 answered"
        assert page.locator(".pair:visible").count() == 1
        expect(page.get_by_role("heading", name="Which text says better what is seen and heard?")).to_be_visible()
        images = page.locator(".pair:visible img").evaluate_all("(all) => all.map((one) => one.naturalWidth)")
        assert len(images) == 2 and min(images) > 200
        new = pairs[0]["new"].split()[:2]
        assert [text.split()[:2] for text in texts(page)]["AB".index(pairs[0]["new_is"])] == new
        assert "<script>" in texts(page)["AB".index(pairs[0]["new_is"])]
        shoot(page, "first")
        page.keyboard.press(" ")
        played(page)
        page.keyboard.press("1")
        assert place(page) == "Clip 2 of 6, 1 answered"
        assert page.locator("audio").evaluate_all("(all) => all.every((one) => one.paused)")
        page.get_by_role("button", name="About the same").click()
        page.keyboard.press("3")
        assert place(page) == "Clip 4 of 6, 3 answered"
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("button", name="B is better")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("1")  # thought better of it
        page.get_by_role("textbox").fill("Änne 12/3")  # digits of a name answer nothing
        assert place(page) == "Clip 4 of 6, 3 answered"
        page.reload()
        assert place(page) == "Clip 4 of 6, 3 answered" and page.get_by_role("textbox").input_value() == "Änne 12/3"
        expect(page.locator("#left")).to_contain_text("3 of 6 clips are not answered yet")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save the answers").click()
        saved.value.save_as(folder / "unfinished.json")
        page.keyboard.press("Tab")
        page.locator("body").press("2")
        page.keyboard.press("ArrowRight")  # over clip 5
        page.keyboard.press("3")
        assert place(page) == "Clip 5 of 6, 5 answered"  # what was left open comes last
        page.keyboard.press("2")
        expect(page.locator("#left")).to_contain_text("All clips are answered")
        expect(page.get_by_role("button", name="Save the answers")).to_be_focused()
        shoot(page, "done")
        with page.expect_download() as saved:
            page.keyboard.press("Enter")
        assert re.fullmatch(r"answers-Änne-12-3-[0-9a-f]{8}\.json", saved.value.suggested_filename)
        saved.value.save_as(folder / "answers.json")
        assert page.title() == "Blind test of captions"
    chosen = ["A", "same", "A", "same", "same", "B"]
    assert json.loads((folder / "answers.json").read_text())["answers"] == chosen
    verdicts = Counter(
        "same" if choice == "same" else "better" if choice == pair["new_is"] else "worse"
        for choice, pair in zip(chosen, pairs, strict=True)
    )
    said = peav(folder, "ab", "score", "ab.key.json", "answers.json")
    held = json.loads((folder / "ab.score.json").read_text())["raters"]["Änne 12/3"]
    assert {name: held[name]["count"] for name in ("better", "same", "worse")} == {
        name: verdicts[name] for name in ("better", "same", "worse")
    }
    assert "Änne 12/3" in said and "with 6 clips a share of one half is known to within" in said
    command = [sys.executable, "-m", "peav.cli.main", "ab", "score", "ab.key.json", "unfinished.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "unfinished: 3 of 6 clips are not answered (4, 5, 6)" in done.stderr


def test_begin_anew_and_a_browser_that_keeps_nothing(browser: Browser, folder: Path) -> None:
    with opened(browser, folder / "ab.html") as page:
        page.keyboard.press("1")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Begin anew").click()
        assert place(page) == "Clip 2 of 6, 1 answered"
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Begin anew").click()
        assert place(page) == "Clip 1 of 6, 0 answered"
        page.reload()
        assert place(page) == "Clip 1 of 6, 0 answered"
        page.add_init_script("Storage.prototype.setItem = () => { throw new Error('full') }")
        page.reload()
        page.keyboard.press("2")
        assert place(page) == "Clip 2 of 6, 1 answered"
        expect(page.locator("#kept")).to_contain_text("keeps nothing")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light"), (390, "dark"), (820, "light")])
def test_it_fits_windows_of_all_widths(browser: Browser, folder: Path, width: int, scheme: str) -> None:
    with opened(browser, folder / "ab.html", width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.get_by_role("button", name="B is better")).to_be_in_viewport()
        shoot(page, f"{width}-{scheme}")
