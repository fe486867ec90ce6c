"""What starting costs: CPU seconds of imports in fresh interpreters, and of `peav embed` on twenty small files beside its own work.

    python benchmarks/start.py [--repeats 3]

Medians. `peav embed` is run as a user runs it, with a tiny model of the released architecture; `its own work` is decoding and embedding the
same files in a process that has imported everything.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTS = (
    "torch",
    "torch, torchcodec",
    "peav",
    "peav.model",
    "peav.data.media.decode",
    "peav.data",
    "peav.training",
    "peav.cli.main",
)

#: The work of `peav embed` itself, in a process that has imported everything and embedded a file before.
WORK = """
import sys, time
from pathlib import Path
from peav import PEAV
model = PEAV.from_pretrained(sys.argv[1])
files = sorted(str(path) for path in Path(sys.argv[2]).iterdir())
sounds = [f for f in files if f.endswith((".wav", ".mp3"))]
videos = [f for f in files if f.endswith(".mp4")]
model.embed(audio=sounds[:1]), model.embed(audio=videos[:1], video=videos[:1])
begun, used = time.perf_counter(), time.process_time()
model.embed(audio=sounds)
model.embed(audio=videos, video=videos)
print(time.process_time() - used, time.perf_counter() - begun)
"""


def measure(command: list[str]) -> tuple[float, float, str]:
    """Runs a command; returns the CPU seconds of it and its children, seconds by the clock, and what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, done.stdout


def make_files(folder: Path) -> None:
    """Makes ten sounds and ten videos of two seconds."""
    folder.mkdir()
    for number in range(10):
        sound = ["-f", "lavfi", "-i", f"sine={200 + 50 * number}:d=2"]
        picture = ["-f", "lavfi", "-i", f"testsrc=s=320x240:r=25:d={2 + 0.1 * number}"]
        for inputs, name in (
            (sound, f"{number}.{'wav' if number % 2 else 'mp3'}"),
            ([*picture, *sound], f"{number}.mp4"),
        ):
            subprocess.run(["ffmpeg", "-v", "error", *inputs, "-shortest", str(folder / name)], check=True)


def make_model(folder: Path) -> None:
    """Writes a tiny model of the released architecture, in a process of its own."""
    code = "import sys; from device import spec_of, complete; from peav import PEAV; "
    code += "PEAV.from_spec(complete(spec_of('tiny'))).save_pretrained(sys.argv[1])"
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{Path(__file__).parent}"}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=root, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print("| what | CPU s | s |\n|---|---:|---:|")

    def row(what: str, runs: list[tuple[float, float]]) -> None:
        cpu, wall = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"| {what} | {cpu:.2f} | {wall:.2f} |", flush=True)

    for names in IMPORTS:
        row(f"`import {names}`", [measure([sys.executable, "-c", f"import {names}"])[:2] for _ in range(repeats)])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_files(folder / "files")
        make_model(folder / "model")
        runs = []
        for number in range(repeats):
            out = folder / f"{number}.npz"
            command = [
                sys.executable,
                "-m",
                "peav.cli.main",
                "embed",
                str(folder / "files"),
                "--model",
                str(folder / "model"),
            ]
            runs.append(measure([*command, "--out", str(out)])[:2])
        row("`peav embed` of twenty small files", runs)
        work = [
            measure([sys.executable, "-c", WORK, str(folder / "model"), str(folder / "files")])[2]
            for _ in range(repeats)
        ]
        row("its own work: decoding and embedding", [(float(w.split()[-2]), float(w.split()[-1])) for w in work])


if __name__ == "__main__":
    main()
