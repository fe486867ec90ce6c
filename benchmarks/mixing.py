"""The loader with mixing on the fly beside the loader without it: clips of sound alone, and of sound and video, in the same run.

`python benchmarks/mixing.py WORK` makes backgrounds of 10 s and foregrounds of 1 to 3 s in WORK (once, about two minutes), and times both
in turn, each in a process of its own, two workers, 48 kHz. It also prints what Lhotse's own path from cut to mixture takes for one clip,
beside ours from the same sounds. Needs FFmpeg.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from processes import cpu_seconds, peak_megabytes

RATE, SECONDS, BACKGROUNDS, FOREGROUNDS, BATCH, WORKERS = 48000, 10.0, 64, 200, 8, 2


def main(work: Path, rounds: int = 5, parts: str = "audio,audio and video,lhotse") -> None:
    """Runs the benchmark.

    Args:
        work: folder for clips and shards.
        rounds: of each case; medians are printed.
        parts: of `audio`, `audio and video` and `lhotse`.
    """
    work.mkdir(parents=True, exist_ok=True)
    make(work)
    wanted = parts.split(",")
    for media in ("audio", "audio and video"):
        if media in wanted:
            compare(work, rounds, media)
    if "lhotse" in wanted:
        found = alone("measure_lhotse", str(work))
        print(
            f"one mixture of 10 s and two foregrounds, CPU ms: {found['lhotse']:.1f} by Lhotse's cuts, {found['ours']:.1f} by ours"
        )
        print(
            f"with a memory of foregrounds ours takes {found['cached']:.1f}; Lhotse's mixer alone takes {found['mix']:.1f} for the same sum"
        )


def compare(work: Path, rounds: int, media: str) -> None:
    """Clips a second and CPU time a clip, without and with mixing."""
    cases = [(media, mixing) for mixing in ("none", "no cache", "cache")]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for case in cases:
            found.setdefault(case, []).append(alone("measure", str(work), *case))
    print(f"{'case':28} {'clips/s':>8} {'CPU ms':>8} {'MB':>6}   rate beside no mixing, in the same round")
    for case, runs in found.items():
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        ratios = [run["rate"] / other["rate"] for run, other in zip(runs, found[case[0], "none"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"{', '.join(case):28} {middle['rate']:8.1f} {middle['cpu']:8.1f} {middle['megabytes']:6.0f}   {spread}",
            flush=True,
        )


def dataset(work: Path, media: str, mixing: str) -> Any:
    """The training clips, every one of them a mixture of one to three foregrounds."""
    from peav.data import ClipDataset
    from peav.data.loading.mixing import Mixing

    made = Mixing(str(work / "foregrounds"), share=1.0, cache_megabytes=256 if mixing == "cache" else 0)
    fields = ["audio", "events", *(["video"] if "video" in media else [])]
    return ClipDataset(
        work / "backgrounds",
        "train",
        fields=fields,
        sample_rate=RATE,
        num_frames=16,
        frame_size=336,
        mixing=None if mixing == "none" else made,
    )


def measure(work: str, media: str, mixing: str) -> dict[str, float]:
    """Goes through the clips once to warm up and several times by the clock."""
    from peav.data import ClipLoader, Population, TrainingPlan

    torch.set_num_threads(1)
    clips = dataset(Path(work), media, mixing)
    loader = ClipLoader(clips, TrainingPlan(Population.of(clips.manifest.index), BATCH), letters, WORKERS)
    count = sum(len(batch) for batch in loader)
    before, begun = cpu_seconds(), time.perf_counter()
    count = sum(len(batch) for _ in range(1 if "video" in media else 3) for batch in loader)
    wall, cpu = time.perf_counter() - begun, cpu_seconds() - before
    loader.close()
    return {"rate": count / wall, "cpu": 1000 * cpu / count, "megabytes": peak_megabytes()}


def letters(texts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A tokenizer of first letters."""
    ids = torch.tensor([[ord(text[0])] for text in texts], dtype=torch.int64).reshape(-1, 1)
    return ids, torch.ones_like(ids, dtype=torch.bool)


def measure_lhotse(work: str) -> dict[str, float]:
    """One clip with two foregrounds: by `cut.mix` and `load_audio` from the same FLAC files, and by ours."""
    from lhotse import Recording
    from lhotse.audio.mixer import AudioMixer

    torch.set_num_threads(1)
    media = Path(work) / "media"
    cut = Recording.from_file(media / "background-0.flac").to_cut()
    sounds = [Recording.from_file(media / f"foreground-{number}.flac").to_cut() for number in (0, 1)]
    mixed = cut.mix(sounds[0], offset_other_by=1.0, snr=-5.0).mix(sounds[1], offset_other_by=5.0, snr=-5.0)
    plain, cached = dataset(Path(work), "audio", "no cache"), dataset(Path(work), "audio", "cache")
    none = dataset(Path(work), "audio", "none")
    base, added = none[0, 0, 0].samples.numpy(), [one.load_audio() for one in sounds]

    def mix() -> None:
        mixer = AudioMixer(base[None], RATE)
        for number, one in enumerate(added):
            mixer.add_to_mix(one, snr=-5.0, offset=1.0 + 4 * number)
        _ = mixer.mixed_mono_audio

    runs = {
        "lhotse": mixed.load_audio,
        "ours": lambda: plain[0, 0, 0],
        "cached": lambda: cached[0, 0, 0],
        "mix": mix,
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(30):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            found[name].append(1000 * (time.process_time() - begun))
    return {name: statistics.median(times) for name, times in found.items()}


def make(work: Path) -> None:
    """Makes the sounds and videos and packs them: FLAC at 48 kHz, video at 336 x 336, as `--normalize true` writes them."""
    from peav.data import prepare
    from peav.data.media.normalize import Normalize

    if (work / "foregrounds" / "prepare.json").exists() and (work / "backgrounds" / "prepare.json").exists():
        return
    media = work / "media"
    media.mkdir(exist_ok=True)
    lines: dict[str, list[str]] = {"foregrounds": [], "backgrounds": []}
    rng = np.random.default_rng(0)
    for number in range(FOREGROUNDS):
        seconds = rng.uniform(1, 3)
        sound = f"aevalsrc=0.4*sin({200 + 20 * number}*2*PI*t)*gt(t\\,0.2):s=48000:d={seconds:.3f}"
        _ffmpeg(media / f"foreground-{number}.flac", "-f", "lavfi", "-i", sound)
        events = f'[{{"phrase": "tone {number % 40}"}}]'
        lines["foregrounds"].append(f'{{"id": "{number}", "audio": "foreground-{number}.flac", "events": {events}}}')
    for number in range(BACKGROUNDS):
        noise = f"anoisesrc=d={SECONDS}:r=48000:a=0.1:seed={number}"
        pictures = f"testsrc2=s=480x360:r=25:d={SECONDS},hue=h={20 * number}"
        _ffmpeg(media / f"background-{number}.flac", "-f", "lavfi", "-i", noise)
        inputs = ["-f", "lavfi", "-i", pictures, "-i", str(media / f"background-{number}.flac")]
        _ffmpeg(media / f"{number}.mp4", *inputs, "-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac")
        lines["backgrounds"].append(f'{{"id": "{number}", "media": "{number}.mp4", "events": []}}')
    for name, records in lines.items():
        (media / f"{name}.jsonl").write_text("\n".join(records))
        prepare(media, work / name, captions=f"{name}.jsonl", overwrite=True, normalize=Normalize(336), chunk_seconds=0)


def _ffmpeg(path: Path, *arguments: str) -> None:
    if not path.exists():
        partial = path.with_name(f"partial-{path.name}")
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments, str(partial)]
        subprocess.run(command, check=True)
        partial.replace(path)


def alone(function: str, *arguments: str) -> dict[str, float]:
    """Calls a function in a process of its own."""
    command = [sys.executable, __file__, "--alone", function, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        auto_cli(main)
