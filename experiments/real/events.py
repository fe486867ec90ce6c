"""Makes sounds, speech and mixtures of the recordings of `make real`, to learn and to measure when a sound is heard over speech.

    python experiments/real/events.py runs/real/packages runs/real/world runs/real/events

| folder | splits | what |
|---|---|---|
| sounds | train | one sound a clip: an event without times, whose phrase is the kind of the sound |
| speech | train | eight seconds of running speech, utterances with pauses; nothing else is heard |
| mixtures | validation, test | sounds of *recordings that are not in training* over such speech, with their times |
| melodies | test | melodies that are not in training, of instruments that are, over the speech of the split test |

**Kinds.** The first ten families of General MIDI (the programs of the others have a family's name in common, and no sound), with the
basses and guitars of sonic-pi-samples; birds and mammals of the stamps; bass drums, snare drums, cymbals, toms and tablas.

**What is held out.** A quarter of the recordings of each kind is for testing, and an eighth for validation. An instrument of the sound font
is held out whole: it plays other notes out of the same recordings, and other instruments may play them too; those that share one are of
one split, and so are files of equal bytes. Speech is of the split that clips.py gave it.

**Mixtures.** Each has one to three kinds, or none (every sixth), at 0 to 15 dB over the whole of its speech, at most two at once. Onsets
and offsets are found in the sound alone by the gate that `data.mixing` has (`peav.data.active_spans`).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import re
import sys
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clips import FAMILIES, NOTES, play
from numpy.typing import NDArray
from soundfont import recordings

from peav.data import active_spans, load_audio
from peav.data.loading.mixing import polyphony

RATE = 16000
SECONDS = 8.0

#: How far below its loudest 10 ms a sound still counts as heard, dB: under speech the rest of a decay is not. That of events.yaml.
GATE_DB = 30.0
MIN_SNR_DB, MAX_SNR_DB = 0.0, 15.0
MAX_EVENTS, MAX_POLYPHONY = 3, 2
FADE_SECONDS = 0.005
MIN_SECONDS = 0.05

#: Level of every utterance, relative to full scale.
SPEECH_RMS = 0.05

#: How often an instrument plays each melody, each time in another key; the last take of training instruments is for `melodies`.
TAKES = 3

#: Kinds by what a file is called: samples by their names, stamps by their folders.
KINDS = {
    r"sonic-pi/bass_.*": "a bass",
    r"sonic-pi/guit_.*": "a guitar",
    r"sonic-pi/(bd_.*|drum_heavy_kick|drum_bass_.*|elec_.*kick)": "a bass drum",
    r"sonic-pi/(sn_.*|drum_snare_.*|elec_.*snare)": "a snare drum",
    r"sonic-pi/(drum_cymbal_.*|drum_splash_.*|elec_cymbal)|.*/cymbal_crash/sound": "a cymbal",
    r"sonic-pi/(drum_tom_.*|elec_fuzz_tom)|.*/drum_tomtom_floor/sound": "a tom",
    r"sonic-pi/tabla_.*": "a tabla",
    r"animals/birds/.*": "a bird",
    r"animals/mammals/.*": "a mammal",
}


@dataclass(frozen=True)
class Sound:
    """A recording of one sound, or a melody.

    Attributes:
        name: of its clip.
        kind: the phrase of its event.
        path: of the file.
        source: what it was recorded from; sounds of one source belong to one split.
        take: how many times its instrument had played the melody before.
    """

    name: str
    kind: str
    path: Path
    source: str
    take: int = 0


def sampled(clips: Sequence[dict[str, Any]], world: Path) -> Iterator[Sound]:
    """Yields the recorded sounds whose kind is known, but those that are too short for a clip."""
    for clip in clips:
        kind = next((kind for pattern, kind in KINDS.items() if re.fullmatch(pattern, clip["id"])), None)
        if clip["domain"] == "effects" and kind is not None:
            path = world / clip["audio"]
            if len(load_audio(path, RATE)) >= 0.1 * RATE:
                yield Sound(clip["id"], kind, path, hashlib.blake2b(path.read_bytes()).hexdigest())


def melodies(packages: Path, folder: Path, takes: int) -> Iterator[Sound]:
    """Plays the instruments of the first ten families, and yields their melodies."""
    sys.path.insert(0, str(packages / "tinysoundfont"))
    import tinysoundfont  # noqa: PLC0415  comes with the packages

    font = next((packages / "fluid-soundfont-gm").rglob("*.sf2"))
    source = sources(recordings(font))
    synth = tinysoundfont.Synth(samplerate=32000, gain=-6)
    loaded = synth.sfload(str(font))
    folder.mkdir(parents=True, exist_ok=True)
    for program in range(80):
        synth.program_select(0, loaded, 0, program)
        for number, (melody, steps) in enumerate(NOTES.items()):
            for take in range(takes):
                path = folder / f"{program:03d}-{number}-{take}.wav"
                if not path.is_file():
                    key = 40 + (program * 5 + number * 7 + take * 13) % 36
                    play(synth, path, steps, key, together=melody == "a chord")
                name = f"instrument/{program:03d}/{number}/{take}"
                yield Sound(name, FAMILIES[program // 8], path, f"program {source[program]}", take)


def sources(played: dict[int, set[int]]) -> dict[int, int]:
    """Returns of each program the first of those that it shares recordings with, directly or through others.

    >>> sources({0: {1}, 1: {2}, 2: {1, 2}, 3: {4}})
    {0: 0, 1: 0, 2: 0, 3: 3}
    """
    first = {program: program for program in played}
    for one, recorded in played.items():
        for other in played:
            if recorded & played[other]:
                low, high = sorted((first[one], first[other]))
                first = {program: low if label == high else label for program, label in first.items()}
    return first


def split_sources(sounds: Sequence[Sound]) -> dict[str, str]:
    """Returns the split of each source, so that each kind has about a quarter of its sounds in `test` and an eighth in `validation`.

    A source of several kinds is where the first of them put it.

    Raises:
        ValueError: if a kind has no sound left for one of the splits.
    """
    splits: dict[str, str] = {}
    for kind in dict.fromkeys(sound.kind for sound in sounds):
        of_kind = [sound.source for sound in sounds if sound.kind == kind]
        counts = {source: of_kind.count(source) for source in of_kind}
        wanted = {"test": len(of_kind) / 4, "validation": len(of_kind) / 8}
        held = {name: sum(counts[s] for s in counts if splits.get(s) == name) for name in (*wanted, "train")}
        for source in sorted(counts, key=lambda source: hashlib.blake2b(source.encode()).digest()):
            if source not in splits:
                size = counts[source]
                # Half a source more than wanted is nearer than half a source less.
                fitting = [name for name, goal in wanted.items() if held[name] + size / 2 <= goal or not held[name]]
                splits[source] = fitting[0] if fitting else "train"
                held[splits[source]] += size
        if missing := [name for name, count in held.items() if not count]:
            raise ValueError(f"{kind!r} has no sound for {missing[0]}: its {len(of_kind)} come from too few sources")
    return splits


def utterances(clips: Sequence[dict[str, Any]], world: Path, split: str, count: int) -> list[NDArray[np.float32]]:
    """Returns so many utterances of a split at one level, without the silence at their ends."""
    found: list[NDArray[np.float32]] = []
    for clip in clips:
        if clip["domain"] == "speech" and clip["split"] == split and len(found) < count:
            samples = load_audio(world / clip["audio"], RATE).numpy()
            if spans := active_spans(samples, RATE, GATE_DB):
                spoken = samples[spans[0][0] : spans[-1][1]]
                found.append(spoken * np.float32(SPEECH_RMS / np.sqrt(np.square(spoken).mean())))
    if not found:
        raise ValueError(f"no clip of speech is of the split {split}")
    return found


def running_speech(spoken: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns `SECONDS` of utterances with pauses between them, (S,)."""
    speech = np.zeros(round(SECONDS * RATE), np.float32)
    at = int(rng.integers(0, RATE // 2))
    while at < len(speech):
        one = spoken[int(rng.integers(len(spoken)))][: len(speech) - at]
        speech[at : at + len(one)] = one
        at += len(one) + int(rng.uniform(0.2, 0.8) * RATE)
    return speech


def heard(sound: Sound) -> tuple[NDArray[np.float32], list[tuple[int, int]]] | None:
    """Returns a sound from its first to its last sample that is heard, and where in it, in samples; None if that is too little."""
    samples = load_audio(sound.path, RATE).numpy()
    spans = active_spans(samples, RATE, GATE_DB)
    if not spans or spans[-1][1] - spans[0][0] < MIN_SECONDS * RATE:
        return None
    first, last = spans[0][0], spans[-1][1]
    part = samples[first:last].copy()
    ramp = np.linspace(0, 1, min(round(FADE_SECONDS * RATE), len(part) // 4), dtype=np.float32)
    if len(ramp):
        part[: len(ramp)] *= ramp
        part[-len(ramp) :] *= ramp[::-1]
    return part, [(begin - first, end - first) for begin, end in spans]


def mixture(
    speech: NDArray[np.float32], kinds: dict[str, list[Sound]], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], list[dict[str, Any]], list[str]]:
    """Puts sounds of so many kinds over speech.

    Args:
        speech: (S,).
        kinds: the sounds of each kind.
        count: how many kinds; a sound that finds no place is left out.
        rng: the only source of randomness.

    Returns:
        samples (S,), the events, and the names of the sounds.
    """
    mixed = speech.copy()
    power = float(np.square(speech).mean())
    busy: list[tuple[float, float]] = []
    events: list[dict[str, Any]] = []
    names: list[str] = []
    for kind in rng.choice(sorted(kinds), count, replace=False).tolist():
        sound = kinds[kind][int(rng.integers(len(kinds[kind])))]
        snr_db = rng.uniform(MIN_SNR_DB, MAX_SNR_DB)
        found = heard(sound)
        if found is None:
            continue
        part, spans = found[0][: len(speech)], found[1]
        for begin in rng.integers(0, len(speech) - len(part), 10, endpoint=True).tolist():
            if polyphony(busy, (begin / RATE, (begin + len(part)) / RATE)) < MAX_POLYPHONY:
                gain = math.sqrt(power * 10 ** (snr_db / 10) / float(np.square(part).mean()))
                mixed[begin : begin + len(part)] += np.float32(gain) * part
                for one, other in spans:
                    times = (begin + one) / RATE, (begin + min(other, len(part))) / RATE
                    if times[0] < times[1]:
                        busy.append(times)
                        events.append({"phrase": kind, "onset": round(times[0], 4), "offset": round(times[1], 4)})
                names.append(sound.name)
                break
    return mixed / max(1.0, float(np.abs(mixed).max())), events, names


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Writes mono of 16 bits at `RATE`; a file that holds just that stays, so that `peav prepare` knows it again."""
    content = io.BytesIO()
    with wave.open(content, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(RATE)
        stream.writeframes((samples * 32767).round().astype("<i2").tobytes())
    if not path.is_file() or path.read_bytes() != content.getvalue():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())


def write_clips(folder: Path, clips: Sequence[dict[str, Any]]) -> None:
    """Writes `clips.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "clips.jsonl.partial"
    partial.write_text("".join(json.dumps(clip, ensure_ascii=False) + "\n" for clip in clips), encoding="utf-8")
    partial.replace(folder / "clips.jsonl")


def write_mixtures(
    folder: Path, split: str, count: int, sounds: Sequence[Sound], spoken: Sequence[NDArray[np.float32]], seed: int
) -> list[dict[str, Any]]:
    """Writes the mixtures of a split, and in SPLIT.sounds.json which sounds each has; returns their clips."""
    kinds: dict[str, list[Sound]] = {}
    for sound in sounds:
        kinds.setdefault(sound.kind, []).append(sound)
    made: list[dict[str, Any]] = []
    held: dict[str, list[str]] = {}
    for number in range(count):
        rng = np.random.default_rng([seed, *split.encode(), number])
        wanted = 0 if number % 6 == 5 else int(rng.integers(1, MAX_EVENTS + 1))
        samples, events, names = mixture(running_speech(spoken, rng), kinds, wanted, rng)
        path = folder / split / f"{number:04d}.wav"
        write_wav(path, samples)
        name = f"{split}/{number:04d}"
        clip = {"id": name, "audio": path.relative_to(folder).as_posix(), "domain": "mixtures"}
        made.append({**clip, "split": split, "events": events})
        held[name] = names
    (folder / f"{split}.sounds.json").write_text(json.dumps(held, indent=1), encoding="utf-8")
    return made


def write_training(
    out: Path, sounds: Sequence[Sound], spoken: Sequence[NDArray[np.float32]], count: int, seed: int
) -> None:
    """Writes `sounds` and `speech`. The sounds of a small kind are there several times, so that all kinds are heard alike often."""
    numbers = {kind: sum(sound.kind == kind for sound in sounds) for kind in dict.fromkeys(s.kind for s in sounds)}
    single = []
    for sound in sounds:
        path = out / "sounds" / f"{sound.name.replace('/', '-')}.wav"
        write_wav(path, load_audio(sound.path, RATE).numpy().clip(-1, 1))
        for copy in range(round(max(numbers.values()) / numbers[sound.kind])):
            clip = {"id": f"{sound.name}#{copy}", "audio": path.name, "domain": "sounds", "split": "train"}
            single.append({**clip, "events": [{"phrase": sound.kind}]})
    write_clips(out / "sounds", single)
    running = []
    for number in range(count):
        path = out / "speech" / f"{number:04d}.wav"
        write_wav(path, running_speech(spoken, np.random.default_rng([seed, number])).clip(-1, 1))
        clip = {"id": f"speech/{number:04d}", "audio": path.name, "domain": "speech", "split": "train"}
        running.append({**clip, "events": []})
    write_clips(out / "speech", running)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder that fetch.py filled")
    parser.add_argument("world", type=Path, help="folder that clips.py made")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--speech", type=int, default=480, help="clips of speech to train on")
    parser.add_argument("--mixtures", type=int, default=300, help="test clips of each set; half as many for validation")
    parser.add_argument("--takes", type=int, default=TAKES, help="how often an instrument plays each melody")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    world, out, seed = options.world, options.out, options.seed
    clips = [json.loads(line) for line in (world / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    played = list(melodies(options.packages, out / "instruments", options.takes))
    sounds = [*played, *sampled(clips, world)]
    splits = split_sources(sounds)
    by_split = {
        name: [s for s in sounds if splits[s.source] == name and (name != "train" or s.take < options.takes - 1)]
        for name in ("train", "validation", "test")
    }
    known = [sound for sound in played if splits[sound.source] == "train" and sound.take == options.takes - 1]
    spoken = {name: utterances(clips, world, name, 4 * options.speech) for name in by_split}
    write_training(out, by_split["train"], spoken["train"], options.speech, seed)
    folder, size = out / "mixtures", options.mixtures
    mixed = [
        *write_mixtures(folder, "validation", size // 2, by_split["validation"], spoken["validation"], seed),
        *write_mixtures(folder, "test", size, by_split["test"], spoken["test"], seed),
    ]
    write_clips(folder, mixed)
    write_clips(out / "melodies", write_mixtures(out / "melodies", "test", size, known, spoken["test"], seed + 1))
    print("recordings and melodies: " + ", ".join(f"{len(held)} {name}" for name, held in by_split.items()))
    for kind in sorted({sound.kind for sound in sounds}):
        counts = [f"{len({s.source for s in held if s.kind == kind})} {name}" for name, held in by_split.items()]
        events = sum(e["phrase"] == kind for clip in mixed if clip["split"] == "test" for e in clip["events"])
        print(f"{kind}: sources {', '.join(counts)}; {events} test events")


if __name__ == "__main__":
    main()
