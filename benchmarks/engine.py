"""What the caption engine costs beside its models: clips a second, memory, and the start, with stages that answer at once.

    python benchmarks/engine.py --clips 20000 100000 1000000

The clips are lines of a manifest without media, for the stages read none; the captions, three a clip of ten words each, have a vocabulary
that grows with the clips (log-uniform ranks, as Zipf's law has them). `peav caption` runs in a process of its own, inline and with one
thread; which phase it is in is told by the files that it writes, and what it uses and holds is read from /proc. A million clips take 8 GB
of disk and some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import write_manifest
from peav.engine.stage import Columns, Stage, register_stage

#: Different words that captions of a type can have.
WORDS = 500_000

_TICKS = os.sysconf("SC_CLK_TCK")


@register_stage
class InstantTags(Stage):
    """Tags that follow from the id."""

    reads = ("duration",)
    provides = ("tags",)

    def __call__(self, batch: Columns) -> Columns:
        tags = [[{"phrase": f"sound {name[-2:]}", "medium": "audio", "score": 1.0, "by": "x"}] for name in batch["id"]]
        return {"id": batch["id"], "tags": tags}


@register_stage
class InstantWriter(Stage):
    """Three captions that follow from the id."""

    reads = ("tags",)
    provides = ("texts",)

    def __call__(self, batch: Columns) -> Columns:
        return {"id": batch["id"], "texts": [{kind: sentence(name, kind) for kind in KINDS} for name in batch["id"]]}


KINDS = ("audio", "video", "audio_video")


def sentence(clip: str, kind: str) -> str:
    """Returns ten words."""
    state, words = crc32(f"{clip}/{kind}".encode()), []
    for _ in range(10):
        state = (1_664_525 * state + 1_013_904_223) & 0xFFFFFFFF
        words.append(f"w{int(math.exp(state / 2**32 * math.log(WORDS)))}")
    return " ".join(words)


def write_clips(data: Path, number: int) -> None:
    """Writes a prepared folder that has a manifest alone."""

    def clips() -> Iterator[Clip]:
        for k in range(number):
            name = f"clip-{k:09d}"
            held = {"store": "shards/train", "row": k, "crc32": k, "audio_group": k, "video_group": k}
            yield Clip(name, 10.0, has_audio=True, has_video=True, media_duration=10.0, **held)

    write_manifest(data / "manifest" / "train.jsonl", clips())


@dataclass(frozen=True)
class State:
    """What a process has used and holds.

    Attributes:
        cpu: seconds of CPU time.
        own: megabytes of memory of its own; what is mapped from files is given back when another wants it.
        resident: megabytes, mapped files included.
    """

    cpu: float
    own: float
    resident: float


@dataclass(frozen=True)
class Phase:
    """A part of a run.

    Attributes:
        name: of it.
        cpu: seconds of CPU time that it took.
        own: the most megabytes of its own that the process held in it.
        resident: the same, mapped files included.
    """

    name: str
    cpu: float
    own: float
    resident: float


def run(data: Path, parts: int) -> list[Phase]:
    """Runs `peav caption`; which phase it is in is told by its files, and what it holds by /proc."""
    stages = {
        name: {"class_path": f"engine.{cls}"} for name, cls in (("tags", "InstantTags"), ("write", "InstantWriter"))
    }
    config = data.with_suffix(".yaml")
    config.write_text(json.dumps({"stages": stages}))
    command = [sys.executable, "-m", "peav.cli.main", "caption", str(data), "--config", str(config)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    manifest, work = data / "manifest" / "train.jsonl", data / "engine"
    before = manifest.stat().st_ino
    done = work.glob
    begins: list[tuple[str, Callable[[], bool]]] = [
        ("imports, opening", lambda: True),
        ("planning", work.is_dir),
        ("computing, first half", lambda: next(done("train/write-*/*.journal"), None) is not None),
        ("computing, second half", lambda: len(list(done("train/write-*/*.done"))) >= parts / 2),
        ("publishing: counting", (work / "publish.lock").exists),
        ("publishing: writing", (data / "provenance" / ".train.jsonl.partial").exists),
        ("report", lambda: manifest.stat().st_ino != before),
    ]
    process = subprocess.Popen(
        command, env={**environment, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seen: list[tuple[str, list[State]]] = []
    while process.poll() is None:
        now = state_of(process.pid)
        if now is not None:
            while begins and begins[0][1]():
                seen.append((begins.pop(0)[0], [now]))
            seen[-1][1].append(now)
        time.sleep(0.02 if parts < 100 else 0.1)
    if process.returncode:
        raise SystemExit(f"peav caption failed: {' '.join(command)}")
    return [
        Phase(name, states[-1].cpu - states[0].cpu, max(s.own for s in states), max(s.resident for s in states))
        for name, states in seen
    ]


def state_of(pid: int) -> State | None:
    """Returns what a process has used and holds; None of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own, resident = (int(status[name].split()[0]) / 1000 for name in ("RssAnon", "VmRSS"))
    except (OSError, KeyError):
        return None
    return State((int(fields[11]) + int(fields[12])) / _TICKS, own, resident)


def whole_of(phases: list[Phase]) -> Phase:
    """Returns all phases but the first, most of which are imports, as one."""
    cpu = sum(phase.cpu for phase in phases[1:])
    return Phase("all but the first", cpu, max(p.own for p in phases), max(p.resident for p in phases))


def start_seconds(folder: Path, repeats: int) -> tuple[float, float]:
    """Returns the median seconds of `peav caption` of one clip, and of its imports alone."""
    imports = "import peav.cli.main, peav.cli.commands.caption, peav.cli.clip_progress, peav.engine.engine"
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats):
        write_clips(folder / f"one-{number}", 1)
        begun = time.perf_counter()
        run(folder / f"one-{number}", 1)
        found[0].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", imports], check=True)
        found[1].append(time.perf_counter() - begun)
    return statistics.median(found[0]), statistics.median(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3, help="of the start")
    parser.add_argument("--folder", type=Path, help="where to write some 5 KB a clip; a temporary folder by default")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        print(f"load {os.getloadavg()[0]:.1f}")
        whole, imports = start_seconds(folder, options.repeats)
        print(f"start: {whole:.2f} s with a single clip, {imports:.2f} s of them imports")
        print("| clips | phase | CPU s | clips/s of CPU | own memory, MB | with mapped files, MB |")
        print("|---:|---|---:|---:|---:|---:|")
        for clips in options.clips:
            data = folder / str(clips)
            write_clips(data, clips)
            phases = run(data, max(1, math.ceil(clips / 1000)))
            for phase in [*phases, whole_of(phases)]:
                rate = f"{clips / phase.cpu:,.0f}" if phase.cpu and phase.name != "imports, opening" else ""
                memory = f"{phase.own:,.0f} | {phase.resident:,.0f}"
                print(f"| {clips:,} | {phase.name} | {phase.cpu:,.1f} | {rate} | {memory} |", flush=True)
            shutil.rmtree(data)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
