"""Makes a folder for `peav prepare` of the packages that fetch.py brought: media, and `clips.jsonl`.

    python experiments/real/clips.py runs/real/packages runs/real/world

| domain | clips | sound | picture | texts |
|---|---|---|---|---|
| speech | a person says what a thing is, in ten languages | recorded | the thing's | the words: transcript, and caption of the picture |
| effects | things that sound: animals, tools, vehicles; drums and loops | recorded | the thing's, if it has one | its name |
| music | 128 instruments play melodies that are made here | recorded note by note | none | instrument and melody |

**What is held out.** A text belongs to one split wherever it occurs, by a hash of its words; a clip is of the split of its text. Clips
whose sound is the same file are joined first. So neither the sound nor the words of a test clip occur in training; the same thing said in
another language may, and its picture too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import unicodedata
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Of a hundred texts so many are for testing, and so many for validation.
TEST_PERCENT, VALIDATION_PERCENT = 6, 2

#: What the sound of a thing's name is called: `dog_desc_fr.ogg`, and `dog_desc.ogg` in English.
_SPOKEN = re.compile(r"(?P<thing>.+)_desc(?:_(?P<language>[A-Za-z_@]+))?\.(?:ogg|wav)$")

RATE = 32000
NOTES = {
    "a rising melody": (0, 2, 4, 5, 7),
    "a falling melody": (7, 5, 4, 2, 0),
    "one long note": (0,),
    "a chord": (0, 4, 7),
    "fast repeated notes": (0,) * 8,
}

#: The families of General MIDI, of eight programs each.
FAMILIES = (
    *(
        "a piano",
        "a chromatic percussion instrument",
        "an organ",
        "a guitar",
        "a bass",
        "strings",
        "an ensemble",
        "a brass instrument",
    ),
    *(
        "a reed instrument",
        "a pipe",
        "a synthesizer lead",
        "a synthesizer pad",
        "a synthesizer effect",
        "an ethnic instrument",
    ),
    *("a percussive instrument", "a sound effect"),
)


def words_of(text: str) -> str:
    """Returns a text as it is compared: lower case, letters and digits alone.

    >>> words_of("A  little Penguin."), words_of("a little penguin")
    ('a little penguin', 'a little penguin')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(
        "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in folded).split()
    )


def split_of(text: str) -> str:
    """Returns the split of a text, by a hash of its words."""
    number = int.from_bytes(hashlib.blake2b(words_of(text).encode(), digest_size=8).digest()) % 100
    return "test" if number < TEST_PERCENT else "validation" if number < TEST_PERCENT + VALIDATION_PERCENT else "train"


def texts_of(path: Path) -> dict[str, str]:
    """Returns the descriptions of a stamp by language: English on the first line, then `xx.utf8=...`."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    texts = {"en": lines[0].strip()} if lines else {}
    for line in lines[1:]:
        language, found, text = line.partition(".utf8=")
        if found and text.strip():
            texts[language.strip()] = text.strip()
    return {language: text for language, text in texts.items() if words_of(text)}


def picture_of(stem: Path, svg: bool) -> Path | None:
    """Returns the picture of a stamp."""
    endings = (".png", ".svg") if svg else (".png",)
    return next((path for ending in endings if (path := stem.with_name(stem.name + ending)).is_file()), None)


def stamps(root: Path, svg: bool) -> Iterator[dict[str, Any]]:
    """Yields the clips of tuxpaint-stamps-default: what people say, and how things sound."""
    for path in sorted(root.rglob("*")):
        if path.suffix not in (".ogg", ".wav"):
            continue
        spoken = _SPOKEN.fullmatch(path.name)
        if (
            spoken is None and "symbols" in path.relative_to(root).parts
        ):  # names of numbers, in languages that the file says another way
            continue
        thing = path.with_name(spoken["thing"] if spoken else path.stem)
        described = thing.with_name(thing.name + ".txt")
        if not described.is_file():
            continue
        texts = texts_of(described)
        language = (spoken["language"] or "en") if spoken else "en"
        if language not in texts:
            continue
        name = thing.relative_to(root).as_posix()
        clip: dict[str, Any] = {
            "id": f"{name}/{language if spoken else 'sound'}",
            "audio": path,
            "licence": "GPL-2",
            "dataset": "tuxpaint-stamps",
        }
        picture = picture_of(thing, svg)
        captions = {"video": texts[language]} if picture is not None else {}
        if picture is not None:
            clip["video"] = picture
        if spoken:
            clip |= {"domain": "speech", "transcript": texts[language], "captions": captions}
        else:
            clip |= {"domain": "effects", "captions": {**captions, "audio": texts["en"]}}
        yield {**clip, "text": texts[language]}


def samples(root: Path) -> Iterator[dict[str, Any]]:
    """Yields the clips of sonic-pi-samples; their names are their texts."""
    kinds = {
        "bd": "a bass drum",
        "sn": "a snare drum",
        "elec": "an electronic sound",
        "perc": "percussion",
        "guit": "a guitar",
        "ambi": "ambience",
    }
    kinds |= {
        "drum": "a drum kit",
        "bass": "a bass",
        "tabla": "a tabla",
        "loop": "a loop",
        "vinyl": "a record player",
        "glitch": "a glitch",
    }
    for path in sorted(root.rglob("*.flac")):
        kind, _, rest = path.stem.partition("_")
        text = f"{kinds.get(kind, 'a sound')}, {re.sub(r'[_0-9]+', ' ', rest).strip()}"
        yield {
            **{
                "id": f"sonic-pi/{path.stem}",
                "audio": path,
                "domain": "effects",
                "captions": {"audio": text},
                "text": text,
            },
            **{"licence": "CC0-1.0", "dataset": "sonic-pi-samples"},
        }


def instruments(packages: Path, out: Path) -> Iterator[dict[str, Any]]:
    """Plays each instrument of the sound font, and yields the clips."""
    sys.path.insert(0, str(packages / "tinysoundfont"))
    import tinysoundfont  # noqa: PLC0415  comes with the packages

    synth = tinysoundfont.Synth(samplerate=RATE, gain=-6)
    font = synth.sfload(str(next((packages / "fluid-soundfont-gm").rglob("*.sf2"))))
    out.mkdir(parents=True, exist_ok=True)
    for program in range(128):
        synth.program_select(0, font, 0, program)
        name = synth.sfpreset_name(font, 0, program).strip()
        for number, (melody, steps) in enumerate(NOTES.items()):
            path = out / f"{program:03d}-{number}.wav"
            if not path.is_file():
                play(synth, path, steps, 48 + (program * 5 + number * 7) % 24, together=melody == "a chord")
            text = f"{name} plays {melody}"
            yield {
                **{"id": f"instrument/{program:03d}/{number}", "audio": path, "domain": "music", "text": text},
                **{
                    "captions": {"audio": [text, f"{FAMILIES[program // 8]} plays {melody}"]},
                    "licence": "MIT",
                    "dataset": "fluid-soundfont-gm",
                },
            }


def play(synth: Any, path: Path, steps: tuple[int, ...], key: int, together: bool) -> None:
    """Writes notes as a mono wav of two seconds or so."""
    parts = []
    length = 2.0 / (1 if together else len(steps))
    for group in [steps] if together else [(step,) for step in steps]:
        for step in group:
            synth.noteon(0, key + step, 100)
        parts.append(np.frombuffer(bytes(synth.generate(int(length * RATE))), dtype=np.float32).copy())
        for step in group:
            synth.noteoff(0, key + step)
    synth.sounds_off()
    stereo = np.concatenate(parts).reshape(-1, 2)
    mono = np.clip(stereo.mean(1), -1, 1)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(RATE)
        stream.writeframes((mono * 32767).astype("<i2").tobytes())


def joined_splits(clips: list[dict[str, Any]]) -> list[str]:
    """Returns the split of each clip: that of its text, and of one text for all clips that share a sound."""
    by_sound: dict[str, list[int]] = {}
    for number, clip in enumerate(clips):
        by_sound.setdefault(hashlib.blake2b(clip["audio"].read_bytes()).hexdigest(), []).append(number)
    parent: dict[str, str] = {}

    def find(text: str) -> str:
        while parent.setdefault(text, text) != text:
            text = parent[text]
        return text

    for numbers in by_sound.values():
        first, *others = (words_of(clips[number]["text"]) for number in numbers)
        for other in others:
            one, two = sorted((find(first), find(other)))
            parent[two] = one
    return [split_of(find(words_of(clip["text"]))) for clip in clips]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder that fetch.py filled")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--svg", action="store_true", help="pictures that are SVG too (needs peav[svg])")
    options = parser.parse_args()
    packages, out = options.packages, options.out
    clips = [*stamps(packages / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps", options.svg)]
    clips += [*samples(packages / "sonic-pi-samples"), *instruments(packages, out / "instruments")]
    splits = joined_splits(clips)
    counts: dict[str, int] = {}
    partial = out / "clips.jsonl.partial"
    with partial.open("w") as stream:
        for clip, split in zip(clips, splits, strict=True):
            del clip["text"]
            for role in ("audio", "video"):
                if role in clip:
                    clip[role] = linked(clip[role], packages, out)
            stream.write(json.dumps({**clip, "split": split}, ensure_ascii=False) + "\n")
            key = f"{clip['domain']} {split}"
            counts[key] = counts.get(key, 0) + 1
    partial.replace(out / "clips.jsonl")
    print(", ".join(f"{key}: {count}" for key, count in sorted(counts.items())))


def linked(path: Path, packages: Path, out: Path) -> str:
    """Returns the path of a file inside the folder: its own, or that of a link to the package it is in."""
    if path.is_relative_to(out):
        return path.relative_to(out).as_posix()
    inner = path.relative_to(packages)
    link = out / inner.parts[0]
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(packages / inner.parts[0], out), target_is_directory=True)
    return inner.as_posix()


if __name__ == "__main__":
    main()
