"""How a job is executed, and the job while it is: what travels together from the command to the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from peav.engine.claims import STALE_SECONDS, Pulse
from peav.engine.job import Job
from peav.types import Seconds

#: Where the parts of a job are computed: in this process, in several of this machine, or in actors of a Ray cluster.
Executor = Literal["inline", "process", "ray"]


@dataclass(frozen=True)
class Execution:
    """Where a job is computed, and by how many.

    Attributes:
        executor: `inline`, in this process; `process`, in several; or `ray`, in actors of a cluster.
        workers: of the executors `process` and `ray`.
        gpus: that each worker of `ray` asks for, a part of one or several.
        stale_seconds: time without a sign of life after which a process on another machine counts as dead.

    Raises:
        ValueError: if a setting cannot be.
    """

    executor: Executor = "inline"
    workers: int = 2
    gpus: float = 0.0
    stale_seconds: Seconds = STALE_SECONDS

    def __post_init__(self) -> None:
        if self.executor not in get_args(Executor):
            raise ValueError(f"executor must be one of {', '.join(get_args(Executor))}, got {self.executor!r}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.gpus < 0:
            raise ValueError(f"gpus must not be negative, got {self.gpus:g}")
        if self.gpus and self.executor != "ray":
            raise ValueError(
                f"gpus are what actors of ray ask for, and say nothing with the executor {self.executor}: stages have a device, such as "
                "--set tags.device=cuda"
            )
        if self.stale_seconds <= 0:
            raise ValueError(f"stale_seconds must be positive, got {self.stale_seconds:g}")


@dataclass(frozen=True)
class Run:
    """A job at which this process is at work, registered in its folder.

    Attributes:
        job: the job.
        pulse: of this process.
        since: when the run began, by the clock of the file system: failures of before are tried again.
    """

    job: Job
    pulse: Pulse
    since: float
