"""What stages learn from a sample of clips before the first part: where low ends and high begins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from peav.data.curation.sampling import uniform
from peav.data.manifests.clip import Clip
from peav.engine.compute import Computer, run_in_memory
from peav.engine.job import Job
from peav.engine.rows import replace_file
from peav.engine.stage import EngineStop, take

#: So many times the clips of a sample are looked at; more only while there are fewer than `FEW`.
LOOKED_AT, FEW = 20, 20


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
        numbers = uniform(np.asarray(manifest.index.id), what, seed)
        for looked, position in enumerate(np.argsort(numbers, kind="stable")):
            if looked >= LOOKED_AT * number and len(clips) >= FEW:
                break
            clip = manifest[int(position)]
            if job.condition(clip):
                clips.append(clip)
            if len(clips) == number:
                return clips
    return clips


def calibrate(job: Job, computer: Computer) -> None:
    """Lets the stages that want it see a sample of clips; what one learned is kept, and shared by all processes.

    Raises:
        EngineStop: if a stage cannot work on any clip of the sample.
    """
    for planned in job.pipeline.stages.values():
        if not planned.cls.calibrates:
            continue
        path = calibration_path(job, planned.name)
        if not path.is_file():
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
        computer.stage(planned.name).load_calibration(json.loads(path.read_text(encoding="utf-8"))["learned"])


def calibration_path(job: Job, stage: str) -> Path:
    """Returns where is kept what a stage learned."""
    return job.work / "calibration" / f"{stage}-{job.pipeline.stages[stage].key}.json"
