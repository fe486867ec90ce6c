"""The clips of `make real`: on a miniature of the packages' layout, nothing of a test clip occurs in training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLIPS = ROOT / "experiments/real/clips.py"

#: What 60 things are called; French and Spanish agree on every fifth.
THINGS = {
    f"thing-{n}": {
        "en": f"A thing {n}.",
        "fr": f"Une chose {n}.",
        "es": f"Une chose {n}" if n % 5 == 0 else f"Una cosa {n}!",
    }
    for n in range(60)
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packages")
    stamps = root / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals"
    stamps.mkdir(parents=True)
    sound = stamps.parent / "sound.ogg"
    make = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=440:d=1", "-c:a", "libvorbis", str(sound)]
    subprocess.run(make, check=True)
    for number, (name, texts) in enumerate(THINGS.items()):
        lines = [texts["en"], *(f"{language}.utf8={text}" for language, text in texts.items() if language != "en")]
        (stamps / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (stamps / f"{name}.png").write_bytes(b"a picture")
        for language in texts:
            spoken = stamps / f"{name}_desc{'' if language == 'en' else '_' + language}.ogg"
            # A sound of its own by what follows the last page; two things share that of their English names.
            own = f"{0 if (number, language) == (1, 'en') else number}-{language}".encode()
            spoken.write_bytes(sound.read_bytes() + own)
    (stamps / "thing-0.ogg").write_bytes(sound.read_bytes())
    sound.unlink()
    (root / "sonic-pi-samples").mkdir()
    shutil.copy(stamps / "thing-0.ogg", root / "sonic-pi-samples/drum_snare_soft.flac")
    # A sound font cannot be made in a line: this player writes silence, and the real one is run by `make real`.
    (root / "tinysoundfont").mkdir()
    (root / "tinysoundfont/tinysoundfont.py").write_text(
        "class Synth:\n"
        "    def __init__(self, **_): pass\n"
        "    def sfload(self, path): return 0\n"
        "    def sfpreset_name(self, font, bank, program): return f'Instrument {program}'\n"
        "    def generate(self, size): return memoryview(bytes(8 * size))\n"
        "    def __getattr__(self, name): return lambda *_: None\n"
    )
    (root / "fluid-soundfont-gm").mkdir()
    (root / "fluid-soundfont-gm/font.sf2").touch()
    return root


def test_nothing_of_a_test_clip_is_in_training(packages: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(CLIPS), str(packages), str(tmp_path / "world")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    clips = [json.loads(line) for line in (tmp_path / "world/clips.jsonl").read_text(encoding="utf-8").splitlines()]
    domains = {domain: sum(clip["domain"] == domain for clip in clips) for domain in ("speech", "effects", "music")}
    assert domains == {"speech": 180, "effects": 2, "music": 640}

    def words(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    split_of_text: dict[str, set[str]] = {}
    split_of_sound: dict[bytes, set[str]] = {}
    for clip in clips:
        assert (tmp_path / "world" / clip["audio"]).is_file()
        captions = [
            text for texts in clip["captions"].values() for text in ([texts] if isinstance(texts, str) else texts)
        ]
        texts = [clip["transcript"], *captions] if "transcript" in clip else captions[:1]
        for text in texts:
            split_of_text.setdefault(words(text), set()).add(clip["split"])
        if clip["domain"] == "speech":
            split_of_sound.setdefault((tmp_path / "world" / clip["audio"]).read_bytes(), set()).add(clip["split"])
    assert all(len(splits) == 1 for splits in split_of_sound.values()), split_of_sound.values()
    assert {text for text, splits in split_of_text.items() if len(splits) > 1} == set()
    assert {"train", "test"} <= {clip["split"] for clip in clips}
    # The same thing in another language may be in training, and is.
    held_out = {clip["id"].split("/")[1] for clip in clips if clip["domain"] == "speech" and clip["split"] == "test"}
    trained = {clip["id"].split("/")[1] for clip in clips if clip["domain"] == "speech" and clip["split"] == "train"}
    assert held_out & trained


def test_what_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    fetch = [sys.executable, str(ROOT / "experiments/real/fetch.py"), str(tmp_path / "packages")]
    done = subprocess.run(fetch, capture_output=True, text=True, env={"PATH": "/nonexistent", "PIP_NO_INDEX": "1"})
    assert done.returncode == 1
    assert "there is no apt-get and no dpkg here" in done.stderr and "tinysoundfont" in done.stderr, done.stderr
