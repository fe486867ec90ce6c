"""The page of a manifest: it shows what is there, says what cannot be shown, and lets no text of the data become HTML."""

from __future__ import annotations

import base64
import re
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from peav.data import PrepareReport
from peav.data.curation.gallery import choose_clips
from peav.data.curation.page import inspect_manifest
from peav.data.curation.player import PLAYED_SECONDS, sound_uri
from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import open_manifest, save_manifest
from peav.data.manifests.records import Event
from peav.data.manifests.texts import Caption
from tests.data.world import damage, make_data

EVIL = "<script>alert('x')</script>\"&'<img src=x onerror=y>"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", clips=8, domains=("a", "b", "$rare_{"))


class Elements(HTMLParser):
    """Counts the elements of a page, and checks that each is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        assert not any(name.startswith("on") for name, _ in attrs)
        for name, value in attrs:
            if name in ("src", "href"):
                assert value is not None and value.startswith(("data:image/", "data:audio/", "#"))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def chosen(data: Path) -> list[Clip]:
    """The clips of a page of five, in its order."""
    manifest = open_manifest(data, "train")
    return [manifest[position] for position in choose_clips(manifest.index, 5, 0)]


def decoded(played: str, folder: Path) -> np.ndarray:
    """What FFmpeg hears in a player's file."""
    (folder / "heard.aac").write_bytes(base64.b64decode(played))
    command = ["ffmpeg", "-v", "error", "-i", str(folder / "heard.aac"), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)


def test_a_player_plays_the_sound(tmp_path: Path) -> None:
    time = np.arange(40 * 16000) / 16000
    sound = 0.3 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * time))
    uri = sound_uri(torch.from_numpy(sound), 16000)
    heard = decoded(uri.removeprefix("data:audio/aac;base64,"), tmp_path)
    assert PLAYED_SECONDS == 30 and 0 <= len(heard) - 30 * 16000 < 3 * 1024 and len(uri) < 3e5
    begin = 1024  # the frame that begins the file
    assert np.corrcoef(heard[begin : begin + 160000], sound[:160000])[0, 1] > 0.99
    assert sound_uri(torch.ones(1), 16000)


def test_a_page_shows_the_clips_and_stands_alone(data: Path, tmp_path: Path) -> None:
    page = inspect_manifest(data, "train", tmp_path / "new/page.html", num_clips=5)
    html = page.html.read_text()
    elements = Elements(html)
    assert (page.clips, page.failed) == (5, 0)
    assert elements.counts["script"] == elements.counts["link"] == 0
    assert elements.counts["img"] == elements.counts["audio"] + 1 == 1 + 5  # the overview, and a sound each
    for clip, played in zip(chosen(data), re.findall(r"data:audio/aac;base64,([^\"]*)", html), strict=True):
        # AAC comes in frames of 1,024 samples, after one that begins the file.
        assert 0 <= len(decoded(played, tmp_path)) - round(16000 * clip.duration) < 3 * 1024
    assert not re.search("https?:", re.sub(r"data:[^\"]*", "", html))
    assert "default-src 'none'" in html
    shown = [clip for clip in open_manifest(data, "train") if f">{clip.id}<" in html]
    assert len(shown) == 5 and {clip.domain for clip in shown} == {"a", "b", "$rare_{"}
    for clip in shown:
        assert clip.captions["audio"][0].text in elements.text and f"{clip.duration:.2f} s" in elements.text
    with Image.open(page.png) as image:
        assert image.width > 800 and len(image.convert("L").histogram()) == 256


def test_no_text_of_the_data_becomes_html(data: Path, tmp_path: Path) -> None:
    clips = [
        replace(
            clip,
            captions={"audio": (Caption(EVIL),), "video": (Caption(EVIL, "synthetic", 0.0, 0.1),)},
            transcript=EVIL,
            events=(Event(EVIL, 0.0, 0.05),),
            domain=EVIL,
            dataset=EVIL,
            licence=EVIL,
        )
        for clip in open_manifest(data, "train")
    ]
    save_manifest(data, "train", clips)
    html = inspect_manifest(data, "train", tmp_path / "page.html").html.read_text()
    elements = Elements(html)
    assert "<script" not in html and elements.counts["script"] == 0
    assert elements.text.count(EVIL) >= 5


def test_ids_and_addresses_are_escaped(tmp_path: Path) -> None:
    data = make_data(tmp_path / "a<b>&c", clips=2)
    clips = list(open_manifest(data, "train"))
    save_manifest(data, "train", [replace(clips[0], id='x"><b>', extra={"packed_id": clips[0].id}), clips[1]])
    page = inspect_manifest(data, "train", tmp_path / "page.html")
    assert page.failed == 0
    html = page.html.read_text()
    assert "<b>" not in html and 'x"><b>' in Elements(html).text


def test_a_clip_that_cannot_be_decoded_is_shown_with_the_reason(data: Path, tmp_path: Path) -> None:
    damage(data, 3)
    page = inspect_manifest(data, "train", tmp_path / "page.html")
    assert (page.clips, page.failed) == (8, 1)
    text = Elements(page.html.read_text()).text
    assert "do not match their checksum" in text and "train-3" in text


def test_shards_that_are_gone_do_not_cost_the_page(data: Path, tmp_path: Path) -> None:
    (data / "shards/train/index.json").unlink()
    page = inspect_manifest(data, "train", tmp_path / "page.html", num_clips=3)
    assert (page.clips, page.failed) == (3, 3)


def test_pictures_and_events_are_shown(prepared: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    page = inspect_manifest(prepared[0], "train", tmp_path / "page.html")
    elements = Elements(page.html.read_text())
    assert (page.clips, page.failed) == (11, 0)
    clips = list(open_manifest(prepared[0], "train"))
    assert elements.counts["img"] == 1 + sum(clip.has_audio + clip.has_video for clip in clips)
    assert "la la" in elements.text and "a test pattern" in elements.text


def test_the_choice_is_spread_over_domains_and_depends_on_the_seed_alone(data: Path) -> None:
    manifest = open_manifest(data, "train")
    chosen = {seed: [manifest[p].id for p in choose_clips(manifest.index, 6, seed)] for seed in range(20)}
    for ids in chosen.values():
        assert len(set(ids)) == 6
        domains = Counter(clip.domain for clip in manifest if clip.id in ids)
        assert set(domains.values()) == {2}
    assert len({tuple(sorted(ids)) for ids in chosen.values()}) > 5
    save_manifest(data, "train", list(manifest)[::-1])
    turned = open_manifest(data, "train")
    assert [turned[p].id for p in choose_clips(turned.index, 6, 3)] == chosen[3]
    assert sorted(choose_clips(turned.index, 100, 0)) == list(range(8))
    assert choose_clips(turned.index, 0, 0) == []


def test_a_manifest_without_clips_gives_a_page(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no clip to write"):
        save_manifest(data, "train", iter(()))
    assert inspect_manifest(data, "train", tmp_path / "page.html").clips > 0
    (data / "manifest/train.jsonl").write_text("")
    page = inspect_manifest(data, "train", tmp_path / "page.html")
    assert page.clips == 0 and Elements(page.html.read_text()).counts["img"] == 1


def test_a_negative_number_of_clips_is_refused(data: Path) -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        inspect_manifest(data, num_clips=-1)
