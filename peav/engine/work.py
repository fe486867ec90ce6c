"""What a worker does, whichever executor started it: claims parts and computes them until none is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from peav.engine.calibration import calibrate
from peav.engine.claims import Claims, Pulse
from peav.engine.compute import Computer
from peav.engine.execution import Run
from peav.engine.job import Job, JobSpec, Part
from peav.engine.progress import Step
from peav.types import Seconds

_log = logging.getLogger(__name__)

#: Time between two looks at parts that others work on.
POLL_SECONDS: Seconds = 0.5


def work(run: Run, computer: Computer, on_step: Callable[[Step], None] = lambda step: None) -> None:
    """Claims parts and computes them until none is left; waits for those that others have claimed, and takes over those of the dead.

    Args:
        run: of the job.
        computer: its stages.
        on_step: is told how far parts are, by whomever.
    """
    job, pulse, since = run.job, run.pulse, run.since
    claims = Claims(job.work, pulse)
    left = job.parts
    turn = sum(pulse.token.encode()) % max(len(left), 1)
    left = left[turn:] + left[:turn]  # so that many processes do not ask for the same parts
    while left:
        took = False
        for part in list(left):
            if job.settled(part, since):
                left.remove(part)
                on_step(Step(part.name, whole=True))
                continue
            before = claims.take(part.name)
            if before is None:
                continue
            took = True
            try:
                if not job.settled(part, since):
                    _compute(job, part, computer, claims, before, on_step)
                on_step(Step(part.name, whole=True))
            finally:
                claims.drop(part.name)
            left.remove(part)
        if left and not took:
            time.sleep(POLL_SECONDS)


def _compute(
    job: Job,
    part: Part,
    computer: Computer,
    claims: Claims,
    before: Mapping[str, Any],
    on_step: Callable[[Step], None],
) -> None:
    def tell(clips: int, tokens: int) -> None:
        on_step(Step(part.name, clips, tokens))

    if not before:
        computer.about_to = lambda stage, ids: None
        job.compute(part, computer, tell)
    else:
        # A process died here: a clip at a time, and the claim says which, so that one that kills its process is found.
        given_up = {}
        if before.get("inflight"):
            stage, clip_id = before["inflight"]
            given_up[stage, clip_id] = "the process died while it worked on this clip"
            _log.warning("the clip %r is left out: a process died while the stage %s worked on it", clip_id, stage)
        lost = [tuple(item) for item in before.get("lost", ())]
        given_up |= {(stage, clip): "the process died while it worked on this clip" for stage, clip in lost}
        claims.say(part.name, lost=[list(item) for item in given_up])
        computer.about_to = lambda stage, ids: claims.say(
            part.name, inflight=[stage, ids[0]] if len(ids) == 1 else None
        )
        job.compute(part, computer, tell, given_up, batch_clips=1)


def work_alone(
    spec: JobSpec, since: float, stale: Seconds, on_step: Callable[[Step], None] = lambda step: None
) -> None:
    """Opens a job in a process of its own, and works on it until nothing is left.

    Args:
        spec: of the job, which another process registered.
        since: when the run began.
        stale: seconds without a sign of life after which a process on another machine counts as dead.
        on_step: is told how far parts are, by whomever.
    """
    job = Job(spec)
    pulse = Pulse(job.work, stale)
    computer = Computer(job.pipeline, spec.data, spec.max_failures)
    try:
        calibrate(job, computer)
        work(Run(job, pulse, since), computer, on_step)
    finally:
        computer.close()
        pulse.close()
