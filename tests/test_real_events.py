"""The mixtures of `make real-events`: no recording of a test mixture is in training, and the times are those of what is heard."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.data import prepare

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments/real"

#: The sixth program plays recordings of its own and of the sixtieth, which is of another family.
SHARED = {program: [program] for program in range(80)} | {6: [6, 60]}


def write_font(path: Path, played: dict[int, list[int]]) -> None:
    """Writes a sound font that holds nothing but its tables: which program plays which sample."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    presets = [struct.pack("<20s3H12x", b"", program, 0, program) for program in played]
    # In each zone another generator comes before the one that points on; the last preset is of another bank.
    zones: list[int] = []
    samples: list[int] = []
    for recorded in played.values():
        zones.append(len(samples))
        samples += recorded
    instruments = [struct.pack("<20sH", b"", first) for first in zones]
    end = len(played)
    tables = {
        b"phdr": [*presets, struct.pack("<20s3H12x", b"", 3, 1, end), struct.pack("<20s3H12x", b"", 0, 0, end + 1)],
        b"pbag": [struct.pack("<2H", 2 * number, 0) for number in range(end + 2)],
        b"pgen": [struct.pack("<4H", 17, 500, 41, number) for number in (*range(end), 0)],
        b"inst": [*instruments, struct.pack("<20sH", b"", len(samples))],
        b"ibag": [struct.pack("<2H", 2 * number, 0) for number in range(len(samples) + 1)],
        b"igen": [struct.pack("<4H", 54, 1, 53, sample) for sample in samples],
        b"shdr": [struct.pack("<20s2I18x", b"", 1000 * sample, 1000 * sample + 900) for sample in range(80)],
    }
    content = b"pdta" + b"".join(chunk(name, b"".join(rows)) for name, rows in tables.items())
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"odd"))
    path.write_bytes(chunk(b"RIFF", b"sfbk" + info + chunk(b"LIST", content)))


def write_tone(path: Path, hertz: float, seconds: float, decay: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * 16000)) / 16000
    samples = 0.5 * np.sin(2 * np.pi * hertz * times) * np.exp(-decay * times)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(16000)
        stream.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script makes of a miniature: speech below 300 Hz, and sounds above 3 kHz."""
    root = tmp_path_factory.mktemp("events")
    packages, world = root / "packages", root / "world"
    (packages / "tinysoundfont").mkdir(parents=True)
    (packages / "tinysoundfont/tinysoundfont.py").write_text(
        "import numpy as np\n"
        "class Synth:\n"
        "    def __init__(self, **_): self.program = 0\n"
        "    def program_select(self, channel, font, bank, program): self.program = program\n"
        "    def generate(self, size):\n"
        "        tone = 0.1 * np.sin(2 * np.pi * (3000 + 40 * self.program) * np.arange(size) / 32000)\n"
        "        return memoryview(np.repeat(tone, 2).astype(np.float32).tobytes())\n"
        "    def __getattr__(self, name): return lambda *_: None\n"
    )
    (packages / "fluid-soundfont-gm").mkdir()
    write_font(packages / "fluid-soundfont-gm/font.sf2", SHARED)
    clips = []
    for split in ("train", "validation", "test"):
        for number in range(3):
            clips.append({"id": f"said/{split}-{number}", "audio": f"said/{split}-{number}.wav", "domain": "speech"})
            clips[-1]["split"] = split
            write_tone(world / clips[-1]["audio"], 150 + 20 * number, 1.5)
    names = ["animals/birds/{}/sound", "animals/mammals/{}/sound", "sonic-pi/bd_{}", "sonic-pi/sn_{}"]
    names += ["sonic-pi/drum_cymbal_{}", "sonic-pi/drum_tom_{}", "sonic-pi/tabla_{}"]
    for kind, name in enumerate(names):
        for number in range(6):
            clips.append({"id": name.format(number), "audio": f"{name.format(number)}.wav", "domain": "effects"})
            # The last two of a kind are the same recording under two names.
            write_tone(world / clips[-1]["audio"], 3200 + 100 * kind + 10 * min(number, 4), 0.6, decay=4.0)
    (world / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    make(packages, world, root / "events")
    return root


def make(packages: Path, world: Path, out: Path) -> None:
    sizes = ["--speech", "2", "--mixtures", "24", "--takes", "2"]
    command = [sys.executable, str(FOLDER / "events.py"), str(packages), str(world), str(out), *sizes]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def clips_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]


def sources_of(name: str, world: Path) -> set[str]:
    """The recordings of a sound: samples of the font, or the bytes of a file."""
    if name.startswith("instrument/"):
        return {f"sample {sample}" for sample in SHARED[int(name.split("/")[1])]}
    return {str((world / f"{name}.wav").read_bytes())}


def test_no_recording_of_a_mixture_is_in_training_or_in_another_split(made: Path) -> None:
    world, out = made / "world", made / "events"
    names = {"train": {clip["id"].split("#")[0] for clip in clips_of(out / "sounds")}}
    for split in ("validation", "test"):
        held = json.loads((out / f"mixtures/{split}.sounds.json").read_text())
        names[split] = {name for sounds in held.values() for name in sounds}
        assert len(names[split]) > 5
    heard = {split: set().union(*(sources_of(name, world) for name in names[split])) for split in names}
    assert not heard["train"] & heard["test"] and not heard["train"] & heard["validation"]
    assert not heard["test"] & heard["validation"]
    # Melodies are new, their instruments are not.
    known = {name for sounds in json.loads((out / "melodies/test.sounds.json").read_text()).values() for name in sounds}
    assert known and not known & names["train"]
    assert set().union(*(sources_of(name, world) for name in known)) <= heard["train"]


def test_events_are_where_the_sounds_are(made: Path) -> None:
    folder = made / "events/mixtures"
    clips = clips_of(folder)
    assert [clip["id"] for clip in clips if not clip["events"]] == [
        *(f"validation/{number:04d}" for number in (5, 11)),
        *(f"test/{number:04d}" for number in (5, 11, 17, 23)),
    ]
    for clip in clips:
        with wave.open(str(folder / clip["audio"])) as stream:
            assert (stream.getframerate(), stream.getnframes()) == (16000, 8 * 16000)
            samples = np.frombuffer(stream.readframes(stream.getnframes()), "<i2") / 32768
        spectra = np.abs(np.fft.rfft(samples.reshape(-1, 320) * np.hanning(320)))
        loud = spectra[:, 50:].max(1) > 0.1  # 20 ms above 2.5 kHz
        begins = np.arange(len(loud)) * 0.02
        spans = [(event["onset"], event["offset"]) for event in clip["events"]]
        inside = [any(on <= begin and begin + 0.02 <= off for on, off in spans) for begin in begins]
        touched = [any(on - 0.02 < begin + 0.02 and begin < off + 0.02 for on, off in spans) for begin in begins]
        assert not (loud & ~np.array(touched)).any(), clip["id"]
        assert loud[inside].mean() > 0.9 if any(inside) else not spans, clip["id"]
        at_once = [sum(on < begin + 0.01 < off for on, off in spans) for begin in begins]
        assert max(at_once) <= 2 and len({event["phrase"] for event in clip["events"]}) <= 3


def test_they_are_prepared_without_a_reject_and_the_same_every_time(made: Path, tmp_path: Path) -> None:
    for name, kinds in (("sounds", 17), ("speech", 0), ("mixtures", None), ("melodies", None)):
        report = prepare(made / "events" / name, tmp_path / name, workers=0)
        assert report.rejected == 0 and sum(report.clips.values()) == len(clips_of(made / "events" / name))
        if kinds is not None:
            phrases = {event["phrase"] for clip in clips_of(made / "events" / name) for event in clip["events"]}
            assert len(phrases) == kinds
    # Half of the files are gone; those that are there stay as they are, for `peav prepare` asks when they were written.
    again = tmp_path / "again"
    shutil.copytree(made / "events", again)
    files = sorted(path for path in (made / "events").rglob("*") if path.is_file())
    for path in files[::2]:
        (again / path.relative_to(made / "events")).unlink()
    make(made / "packages", made / "world", again)
    for number, path in enumerate(files):
        copy = again / path.relative_to(made / "events")
        assert copy.read_bytes() == path.read_bytes(), path
        kept = copy.stat().st_mtime_ns == path.stat().st_mtime_ns
        assert kept == bool(number % 2) or path.suffix != ".wav", path


def test_sources_are_joined_through_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    sources = runpy.run_path(str(FOLDER / "events.py"))["sources"]
    assert sources({0: {1}, 1: {2}, 2: {1, 2}, 3: {4}}) == {0: 0, 1: 0, 2: 0, 3: 3}
    recordings = runpy.run_path(str(FOLDER / "soundfont.py"))["recordings"]
    write_font(tmp_path / "font.sf2", SHARED)
    assert recordings(tmp_path / "font.sf2") == {
        program: {1000 * sample for sample in played} for program, played in SHARED.items()
    }
    (tmp_path / "other.sf2").write_bytes(b"RIFF\4\0\0\0WAVE")
    with pytest.raises(ValueError, match=re.escape("other.sf2 is no sound font")):
        recordings(tmp_path / "other.sf2")
