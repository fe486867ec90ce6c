"""The loader beside a raw torchcodec loop and WebDataset with the same decoding, from three kinds of data; planning; 2,000 batches.

`python benchmarks/loader.py WORK` makes 10-second clips of 480p video and stereo sound in WORK (once, about two minutes), packs them
as they are and normalised, and times each case in a process of its own, in turn, three rounds, two workers. Needs
`pip install -e '.[bench]'`. `--cases decode,plan,steady,step` chooses parts; `step` runs DAC-VAE and the frame encoder at the released
size and takes minutes.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from processes import cpu_seconds, peak_megabytes, resident_megabytes, shared_megabytes
from torchcodec.decoders import AudioDecoder, VideoDecoder
from torchvision.transforms.v2 import functional as transforms

RATE, FRAMES, SIZE, SECONDS = 48000, 16, 336, 10.0
CLIPS, FILES, BATCH, WORKERS = 32, 16, 4, 2


def main(work: Path, cases: str = "decode,plan,steady,step", rounds: int = 3) -> None:
    """Runs the benchmarks.

    Args:
        work: folder for clips and shards.
        cases: of `decode`, `plan`, `steady` and `step`.
        rounds: of each case of `decode`; medians are printed.
    """
    work.mkdir(parents=True, exist_ok=True)
    for case in cases.split(","):
        {"decode": decode, "plan": plan, "steady": steady, "step": step}[case](work, rounds)


def decode(work: Path, rounds: int) -> None:
    """Clips a second and CPU time a clip."""
    make_clips(work)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for data in ("original", "normalised", "features"):
            for reader in ("raw", "webdataset", "peav") if data != "features" else ("peav",):
                found.setdefault(f"{data} {reader}", []).append(alone("measure", str(work), data, reader))
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    print(f"{'case':24} {'clips/s':>8} {'CPU ms':>8} {'MB':>6}   ratios of clips/s")
    for name, run in middle.items():
        data, reader = name.split()
        notes = []
        if reader == "peav" and data != "features":
            notes.append(f"{run['rate'] / middle[f'{data} raw']['rate']:.2f} of raw")
            notes.append(f"{run['rate'] / middle[f'{data} webdataset']['rate']:.2f} of WebDataset")
            notes.append(f"CPU {run['cpu'] / middle[f'{data} raw']['cpu']:.2f} of raw")
        if reader == "peav" and data != "original":
            notes.append(f"{run['rate'] / middle['original peav']['rate']:.1f} of original")
        print(f"{name:24} {run['rate']:8.1f} {run['cpu']:8.1f} {run['megabytes']:6.0f}   {', '.join(notes)}")


def measure(work: str, data: str, reader: str) -> dict[str, float]:
    """Goes through the clips once to warm up and three times by the clock."""
    torch.set_num_threads(1)
    source = {"raw": raw, "webdataset": webdataset, "peav": peav}[reader](Path(work), data)
    count = sum(next(source))
    before, begun = cpu_seconds(), time.perf_counter()
    count = sum(sum(next(source)) for _ in range(3))
    wall, cpu = time.perf_counter() - begun, cpu_seconds() - before
    return {"rate": count / wall, "cpu": 1000 * cpu / count, "megabytes": peak_megabytes()}


def raw(work: Path, data: str) -> Iterator[Iterable[int]]:
    """Two processes that decode bytes and throw away the result."""
    samples = [part for part, _ in read_samples(work / data)]
    with ProcessPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while True:
            yield pool.map(decode_bytes, samples)


def decode_bytes(sample: dict[str, bytes]) -> int:
    """Decodes audio to 48 kHz mono, and 16 frames of 336 x 336, by torchcodec alone."""
    load(sample)
    return 1


def load(sample: dict[str, bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio (S,) and frames (16, 3, 336, 336)."""
    audio = AudioDecoder(sample["audio"], sample_rate=RATE, num_channels=1).get_samples_played_in_range(0, SECONDS)
    video = VideoDecoder(sample["video"], num_ffmpeg_threads=1, seek_mode="exact")
    end = video.metadata.end_stream_seconds or SECONDS
    times = [min((index + 0.5) * SECONDS / FRAMES, end - 1e-3) for index in range(FRAMES)]
    frames = video.get_frames_played_at(times).data
    if frames.shape[-2:] != (SIZE, SIZE):
        frames = transforms.resize(frames, [SIZE, SIZE], antialias=True)
    samples = torch.zeros(round(SECONDS * RATE))
    samples[: audio.data.shape[1]] = audio.data[0, : len(samples)]
    return samples, frames


def webdataset(work: Path, data: str) -> Iterator[Iterable[int]]:
    """WebDataset's pipeline with the same decoding and batches of the same tensors."""
    import webdataset as wds

    pattern = [str(path) for path in sorted((work / data).glob("*.tar"))]
    pipeline = (
        wds.WebDataset(pattern, shardshuffle=False, nodesplitter=None)
        .map(_load_tar)
        .batched(BATCH, collation_fn=_stack)
    )
    loader = wds.WebLoader(
        pipeline, batch_size=None, num_workers=WORKERS, persistent_workers=True, worker_init_fn=_one_thread
    )
    while True:
        yield (len(batch[0]) for batch in loader)


def _load_tar(sample: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return load({"audio": sample["audio"], "video": sample["video"]})


def _stack(items: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.stack(part) for part in zip(*items, strict=True)]


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def peav(work: Path, data: str) -> Iterator[Iterable[int]]:
    """peav's loader."""
    from peav.data import ClipDataset, ClipLoader, Population, TrainingPlan

    features = {"audio": "dac", "video": "pe"} if data == "features" else None
    dataset = ClipDataset(
        work / ("original" if data == "features" else data),
        "train",
        fields=["audio", "video"],
        sample_rate=RATE,
        num_frames=FRAMES,
        frame_size=SIZE,
        features=features,
    )
    plan = TrainingPlan(Population.of(dataset.manifest.index), BATCH)
    loader = ClipLoader(dataset, plan, num_workers=WORKERS)
    while True:
        yield (len(batch) for batch in loader)


def plan(work: Path, rounds: int) -> None:
    """Ten million clips planned for one rank of sixteen."""
    for name in ("plain", "buckets", "weights", "windows"):
        found = alone("measure_plan", name)
        print(
            f"plan of 10M clips, {name:8}: first epoch {found['first']:.1f} CPU s, next {found['next']:.1f} CPU s, process at most "
            f"{found['megabytes']:.0f} MB ({found['columns']:.0f} MB before the plan)"
        )


def measure_plan(name: str) -> dict[str, float]:
    """Plans two epochs."""
    from peav.data.loading.plan import Population, TrainingPlan

    clips = 10_000_000
    rng = np.random.default_rng(0)
    domains = tuple(f"domain-{number}" for number in range(8))
    population = Population(
        rng.uniform(1, 30, clips),
        rng.integers(0, 8, clips).astype(np.uint32),
        rng.integers(1, 4, clips).astype(np.uint8),
        domains,
        (np.arange(clips) // 200).astype(np.int32),
    )
    weights = {name: number + 1.0 for number, name in enumerate(domains)}
    options: dict[str, Any] = {
        "plain": {},
        "buckets": {"num_buckets": 4},
        "weights": {"num_buckets": 4, "domain_weights": weights, "origin_weights": {"real": 1.0, "synthetic": 10.0}},
        "windows": {"num_buckets": 4, "window_chunks": 64},
    }[name]
    columns = peak_megabytes()
    begun = time.process_time()
    made = TrainingPlan(population, 64, **options)
    made.batches(0, 3, 16)
    first = time.process_time() - begun
    begun = time.process_time()
    made.batches(1, 3, 16)
    return {"first": first, "next": time.process_time() - begun, "megabytes": peak_megabytes(), "columns": columns}


def steady(work: Path, rounds: int) -> None:
    """Throughput and memory over 2,000 batches."""
    found = alone("measure_steady", str(work))
    for quarter, (rate, memory, shm) in enumerate(found["quarters"]):
        print(
            f"batches {500 * quarter:4} to {500 * quarter + 499}: {rate:.0f} clips/s, {memory:.0f} MB, {shm:.0f} MB of /dev/shm at most"
        )


def measure_steady(work: str) -> dict[str, Any]:
    """Small clips, so that what grows would show: rate, resident memory of all processes, and shared memory by quarter."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from peav.data import ClipDataset, ClipLoader, Population, TrainingPlan
    from tests.data.world import RATE as RATE_OF_TONES
    from tests.data.world import make_data

    data = Path(work) / "tones"
    if not (data / "prepare.json").exists():
        make_data(data, clips=4000, chunk_bytes=1 << 20)
    dataset = ClipDataset(data, "train", fields=["audio"], sample_rate=RATE_OF_TONES)
    loader = ClipLoader(dataset, TrainingPlan(Population.of(dataset.manifest.index), 16), num_workers=WORKERS)
    quarters, taken, shm = [], 0, 0.0
    begun = time.perf_counter()
    while taken < 2000:
        for _ in loader:
            taken += 1
            shm = max(shm, shared_megabytes())
            if taken % 500 == 0:
                quarters.append((500 * 16 / (time.perf_counter() - begun), resident_megabytes(), shm))
                begun, shm = time.perf_counter(), 0.0
            if taken == 2000:
                break
    return {"quarters": quarters}


def step(work: Path, rounds: int) -> None:
    """A training step from media and from cached features."""
    make_clips(work)
    found = alone("measure_step", str(work))
    print(
        f"a step of {found['batch']:.0f} clips, decoding included: {found['media']:.1f} s from media ({found['frontends']:.1f} s of "
        f"it the frontends), {found['features']:.3f} s from cached features: {found['media'] / found['features']:.0f} times faster"
    )


def measure_step(work: str) -> dict[str, float]:
    """One batch from media, five from features; encoders of pe-av-small, frontends of the released size."""
    from peav.data import ClipDataset, collate
    from peav.encoders import DacAudioEncoder, PEVideoEncoder

    torch.manual_seed(0)
    torch.set_num_threads(2)
    encoders = {"audio": DacAudioEncoder(), "video": PEVideoEncoder()}
    for encoder in encoders.values():
        encoder.train()
    settings: dict[str, Any] = {
        "fields": ["audio", "video"],
        "sample_rate": RATE,
        "num_frames": FRAMES,
        "frame_size": SIZE,
    }
    batch = 2
    media = ClipDataset(Path(work) / "original", "train", **settings)
    cached = ClipDataset(Path(work) / "original", "train", features={"audio": "dac", "video": "pe"}, **settings)
    frontends = 0.0

    def run(dataset: Any) -> float:
        nonlocal frontends
        begun = time.perf_counter()
        joined = collate([dataset[0, row] for row in range(batch)])
        total = torch.zeros(())
        for name, encoder in encoders.items():
            value = joined.read(name)
            if dataset is media:
                before = time.perf_counter()
                with torch.no_grad():
                    value = encoder.frontend_features(value)  # type: ignore[operator]
                frontends += time.perf_counter() - before
            pooled = encoder({name: value}, (name,))[name].pooled
            total = total + pooled.square().mean()
        total.backward()
        return time.perf_counter() - begun

    run(cached)
    from_features = statistics.median(run(cached) for _ in range(5))
    from_media = run(media)
    return {"batch": batch, "media": from_media, "features": from_features, "frontends": frontends}


def make_clips(work: Path) -> None:
    """Makes the clips and packs them in all ways."""
    from peav.data.loading.features import FeatureInfo, FeatureRow, join_segments, write_segment
    from peav.data.manifests.manifest import iter_manifest, manifest_path
    from peav.data.media.normalize import Normalize
    from peav.data.packing.prepare import prepare

    media = work / "media"
    media.mkdir(exist_ok=True)
    for number in range(FILES):
        path = media / f"{number}.mp4"
        if not path.exists():
            pictures = f"testsrc2=s=854x480:r=30:d={SECONDS},noise=alls=12:allf=t:all_seed={number},hue=h={20 * number}"
            sound = f"aevalsrc=0.3*sin({200 + 40 * number}*2*PI*t)|0.2*random({number})-0.1:s=44100:d={SECONDS}"
            partial = path.with_suffix(".partial.mp4")
            command = [
                "ffmpeg",
                "-nostdin",
                "-v",
                "error",
                "-y",
                "-f",
                "lavfi",
                "-i",
                pictures,
                "-f",
                "lavfi",
                "-i",
                sound,
            ]
            command += [
                "-c:v",
                "libx264",
                "-preset",
                "fast",
                "-crf",
                "26",
                "-pix_fmt",
                "yuv420p",
                "-c:a",
                "aac",
                str(partial),
            ]
            subprocess.run(command, check=True)
            partial.replace(path)
    records = [{"id": f"clip-{i}", "media": f"{i % FILES}.mp4"} for i in range(CLIPS)]
    listing = work / "clips.jsonl"
    if not listing.exists():
        listing.write_text("".join(json.dumps(record) + "\n" for record in records))
    for name, how in (("original", None), ("normalised", Normalize(SIZE))):
        prepare(media, work / name, captions=str(listing.resolve()), normalize=how, workers=WORKERS, progress=False)
        if not list((work / name).glob("*.tar")):
            write_tars(work / name)
    for kind, name, shape in (("audio", "dac", (250, 128)), ("video", "pe", (FRAMES, 1024))):
        folder = work / "original" / "features" / name
        if not (folder / "features.json").exists():
            rows = [
                FeatureRow(clip.id, torch.randn(shape), SECONDS / shape[0], clip.crc32)
                for _, clip in iter_manifest(manifest_path(work / "original", "train"))
            ]
            write_segment(folder / "train", 0, rows)
            join_segments(folder / "train", 1)
            size = [SIZE, SIZE]
            choices: dict[str, Any] = {"num_frames": FRAMES, "fps": None, "frame_size": size, "sampling": "time"}
            media_choices = {"sample_rate": RATE, "downmix": "meta"} if kind == "audio" else choices
            FeatureInfo(name, kind, shape[1], "", "", media_choices, {"train": len(rows)}).write(folder)


def read_samples(data: Path) -> list[tuple[dict[str, bytes], str]]:
    """The packed bytes of all clips."""
    from peav.data.manifests.manifest import open_manifest
    from peav.data.stores.reader import ShardReader

    reader = ShardReader(data / "shards" / "train")
    samples = [(reader.read(clip.row), clip.id) for clip in open_manifest(data, "train")]
    return [({"audio": s.source("audio"), "video": s.source("video")}, name) for s, name in samples]


def write_tars(data: Path) -> None:
    """The same bytes as two WebDataset shards, one a worker; a file that holds both is stored once."""
    samples = read_samples(data)
    for shard in range(WORKERS):
        with tarfile.open(data / f"shard-{shard}.tar", "w") as tar:
            for parts, name in samples[shard::WORKERS]:
                for kind, content in parts.items():
                    entry = tarfile.TarInfo(f"{name}.{kind}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def alone(function: str, *arguments: str) -> dict[str, Any]:
    """Calls a function in a process of its own."""
    command = [sys.executable, __file__, "--alone", function, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        auto_cli(main)
