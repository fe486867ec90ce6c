"""What stages learn from a sample of clips before the first part: where low ends and high begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peav.data.curation.sampling import uniform
from peav.data.manifests.clip import Clip
from peav.engine.compute import Computer, run_in_memory
from peav.engine.job import Job
from peav.engine.rows import read_json_file, replace_file
from peav.engine.stage import EngineStop, take

#: So many times the clips of a sample are looked at; more only while there are fewer than `FEW`.
LOOKED_AT, FEW = 20, 20

#: Clips whose random numbers are held at once.
BLOCK = 1 << 18


def sample_clips(job: Job, number: int, what: str, seed: int = 0) -> list[Clip]:
    """Chooses clips among those that are asked for, by their ids alone.

    Where few clips are asked for there may be fewer than `number`, but some if there are any: then the whole manifest is read.

    Args:
        job: the job.
        number: of clips, at most.
        what: for; two purposes have other clips.
        seed: of the choice.
    """
    clips: list[Clip] = []
    for manifest in job.manifests.values():
        for looked, position in enumerate(_in_order(manifest.index.id, what, seed, LOOKED_AT * number)):
            if looked >= LOOKED_AT * number and len(clips) >= FEW:
                break
            clip = manifest[position]
            if job.condition(clip):
                clips.append(clip)
            if len(clips) == number:
                return clips
    return clips


def _in_order(ids: NDArray[np.int64], what: str, seed: int, wanted: int) -> Iterator[int]:
    """Yields all positions in a random order, of which mostly the first `wanted` are asked for.

    The numbers that order them are drawn in bands, so that those of all clips are never held at once.
    """
    low, width = 0.0, 2.0 * wanted / max(len(ids), 1)
    while low < 1.0:
        places, numbers = [np.zeros(0, np.int64)], [np.zeros(0)]
        for first in range(0, len(ids), BLOCK):
            drawn = uniform(np.asarray(ids[first : first + BLOCK]), what, seed)
            inside = np.flatnonzero((drawn >= low) & (drawn < low + width))
            places.append(first + inside)
            numbers.append(drawn[inside])
        yield from np.concatenate(places)[np.argsort(np.concatenate(numbers), kind="stable")].tolist()
        low, width = low + width, 4 * width


def calibrate(job: Job, computer: Computer) -> None:
    """Lets the stages that want it see a sample of clips; what one learned is kept, and shared by all processes.

    Raises:
        EngineStop: if a stage cannot work on any clip of the sample.
    """
    for planned in job.pipeline.stages.values():
        if not planned.cls.calibrates:
            continue
        path = calibration_path(job, planned.name)
        if not path.is_file() or "learned" not in read_json_file(path):
            clips = sample_clips(job, job.spec.calibration_clips, "calibration")
            if not clips:
                continue  # no clip will come
            rows, kept = [], []
            for first in range(0, len(clips), job.spec.batch_clips):
                some = clips[first : first + job.spec.batch_clips]
                for clip, row in zip(some, run_in_memory(computer, some, planned.name), strict=True):
                    if not set(planned.upstream) & set(row.get("failed", ())):
                        rows.append(row)
                        kept.append(clip)
            batch, lost = computer.batch_for(planned, kept, rows)
            good = [place for place, clip in enumerate(kept) if clip.id not in lost]
            computer.media.forget()
            if not good:
                why = next(iter(lost.values()), "no clip of the sample came as far as this stage")
                raise EngineStop(f"the stage {planned.name} has no clip to calibrate on: {why}")
            learned = computer.stage(planned.name).calibrate(take(batch, good))
            replace_file(path, [json.dumps({"clips": len(good), "learned": learned}, ensure_ascii=False)])
        computer.stage(planned.name).load_calibration(read_json_file(path)["learned"])


def calibration_path(job: Job, stage: str) -> Path:
    """Returns where is kept what a stage learned."""
    return job.work / "calibration" / f"{stage}-{job.pipeline.stages[stage].key}.json"
