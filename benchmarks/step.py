"""Where the time of a training step of experiments/tiny_cpu.yaml goes, in CPU milliseconds, and how two threads compare with one.

Needs `runs/demo/data` (make demo). Run it with nothing else running: `make bench`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

import peav.encoders
import peav.objectives  # noqa: F401  registers the plugins
from peav.data import ClipDataset, ClipLoader, Population, TrainingPlan
from peav.objectives import Objective
from peav.training import PeavModule

ROOT = Path(__file__).parents[1]


def median_ms(function: Callable[[], object], repeats: int = 7) -> tuple[float, float]:
    """Returns the median wall and CPU milliseconds of a call, after one that warms up."""
    function()
    wall, cpu = [], []
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        function()
        wall.append(1000 * (time.perf_counter() - begun))
        cpu.append(1000 * (time.process_time() - used))
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    config = yaml.safe_load((ROOT / "experiments/tiny_cpu.yaml").read_text())
    data = config["data"]
    module = PeavModule(**config["model"])
    dataset = ClipDataset(
        data["data"],
        "train",
        module.batch_fields,
        module.clip_format.sample_rate,
        data["num_frames"],
        frame_size=data["frame_size"],
        cache_megabytes=data["cache_megabytes"],
    )
    loader = ClipLoader(
        dataset, TrainingPlan(Population.of(dataset.manifest.index), data["batch_size"], 0), module.tokenize
    )
    batch = next(iter(loader))

    def encode(*names: str) -> Callable[[], None]:
        def run() -> None:
            found = module.model.encode(batch, names)
            total = sum(f.pooled.sum() + (0 if f.frames is None else f.frames.sum()) for f in found.values())
            total.backward()  # type: ignore[union-attr]

        return run

    def step() -> None:
        embeddings = module.model.embed_batch(batch, module.trained, module.frames)
        total = torch.zeros(())
        for objective in module.objectives.values():
            if isinstance(objective, Objective):
                targets = {target: batch.read(target) for target in objective.targets}
                total = total + objective({k: embeddings[k] for k in objective.requires}, targets).loss
        total.backward()

    parts = {
        "audio encoder": encode("audio"),
        "video encoder": encode("video"),
        "audio, video and fusion": encode("audio_video"),
        "captions (three types)": encode("text_audio", "text_video", "text_audio_video"),
        "whole step": step,
    }
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, function in parts.items():
            wall, cpu = median_ms(function)
            print(
                f"{threads} thread(s)  {name:24} {wall:7.0f} ms wall  {cpu:7.0f} ms CPU  (batch {data['batch_size']})"
            )


if __name__ == "__main__":
    main()
