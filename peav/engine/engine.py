"""`peav caption`: a job from its probes to the manifest and the page."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peav.engine.blacklist import read_for
from peav.engine.calibration import calibrate, sample_clips
from peav.engine.compute import Computer, run_in_memory
from peav.engine.execution import Execution
from peav.engine.job import Job, JobSpec
from peav.engine.probes import Probe, probe_stages
from peav.engine.progress import Progress
from peav.engine.publish import Published, PublishOptions, publish
from peav.engine.report import write_page
from peav.engine.rows import Rows
from peav.engine.run import opened, run_parts
from peav.engine.semantic import check_semantic
from peav.engine.timing import Timing, timing_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captioned:
    """What a job did.

    Attributes:
        published: what was written into the manifests.
        timing: where the time went.
        probes: that were made.
        page: the report.
    """

    published: Published
    timing: Timing
    probes: list[Probe]
    page: Path

    @property
    def failed(self) -> int:
        """Clips that failed at some stage."""
        return self.published.survey.failed

    @property
    def nothing(self) -> bool:
        """Whether every clip failed at a stage, and nothing came out."""
        survey = self.published.survey
        return 0 < survey.clips == survey.failed and not survey.with_text and not any(self.published.filled.values())


def caption(
    spec: JobSpec,
    options: PublishOptions | None = None,
    execution: Execution | None = None,
    *,
    probes: int = 8,
    samples: int = 12,
    progress: Progress = lambda total: nullcontext(lambda clips, tokens: None),
) -> Captioned:
    """Runs a job, and writes what it made into the manifests of its data.

    Args:
        spec: the job.
        options: how results are written.
        execution: where it is computed; in this process by default.
        probes: clips that each stage that listens or looks is probed with; 0 for none.
        samples: clips on the page.
        progress: shows how far the run is.

    Raises:
        EngineError: if the folder holds another job, another run with other settings is at work there, a stage fails its probe or
            cannot work at all, the manifest changed, or too many captions begin alike. What was computed is kept.
        OSError: if the disk is full.
        ValueError: if a setting or a stage cannot be, `options.blacklist` cannot be read, or the vectors of `options.semantic` are not
            those of the clips.
    """
    for name, value in (("probes", probes), ("samples", samples)):
        if value < 0:
            raise ValueError(f"{name} must be 0, for none, or more, got {value}")
    execution = execution or Execution()
    job, options = Job(spec), options or PublishOptions()
    read_for(job, options.blacklist)
    if options.semantic is not None:
        check_semantic(job, options.semantic)
    with opened(job, execution.stale_seconds) as run:
        if not sample_clips(job, 1, "any"):
            _log.warning(
                "no clip of %s (%s) is chosen%s",
                spec.data,
                ", ".join(spec.splits),
                f" by {spec.where!r}" * bool(spec.where),
            )
        computer = Computer(job.pipeline, spec.data, spec.max_failures)
        try:
            calibrate(job, computer)
            made = probe_stages(job, computer, probes)
            with progress(sum(part.count for part in job.parts)) as tell:
                if execution.executor != "inline":
                    computer.close()
                run_parts(run, execution, tell, computer)
        finally:
            computer.close()
        published = publish(job, options)
    timing = timing_of(job)
    page = write_page(Job(spec), job.work / "report.html", published, timing, made, samples)
    return Captioned(published, timing, made, page)


def try_out(spec: JobSpec, number: int = 10) -> list[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Runs the stages over a few clips, and keeps and writes nothing but what stages learned of the sample.

    Args:
        spec: the job.
        number: of clips.

    Returns:
        for each clip its id, and what each stage made of it: columns, or `failed` and the reason.
    """
    job = Job(spec)
    with opened(job, tried=True):
        computer = Computer(job.pipeline, spec.data, spec.max_failures)
        try:
            calibrate(job, computer)
            clips = sample_clips(job, number, "dry run")
            shown: dict[str, list[tuple[str, dict[str, Any]]]] = {clip.id: [] for clip in clips}

            def look(stage: str, lines: Rows) -> None:
                for clip_id, line in lines.items():
                    shown[clip_id].append((stage, line["out"] if "out" in line else {"failed": line["failed"]}))

            run_in_memory(computer, clips, look=look)
        finally:
            computer.close()
    return list(shown.items())
