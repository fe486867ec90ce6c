"""Where the time of a job went, and what that means for a million clips."""

from __future__ import annotations

from dataclasses import dataclass, field

from peav.engine.job import Job

#: What reading and decoding media is called among the stages.
DECODE = "(reading and decoding)"


@dataclass
class Timing:
    """The time of a job, of all its runs.

    Attributes:
        clips: that it worked on.
        stages: seconds by stage, summed over processes; reading and decoding apart.
        tokens: of prompts and answers by stage, of those that ask models.
    """

    clips: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(self.stages.values())

    def per_million(self, seconds: float) -> float:
        """Returns the hours that a million clips would take, where all clips took so many seconds.

        >>> Timing(clips=10).per_million(36.0)
        1000.0
        """
        return seconds / max(self.clips, 1) * 1e6 / 3600

    def tokens_of(self, stage: str) -> str:
        """Says how many tokens a stage asked and was answered, and how fast; "" of one that asks no model.

        >>> Timing(10, {"write": 2.0}, {"write": (1000, 300)}).tokens_of("write")
        '1,000 tokens in, 300 out, 150 out a second'
        """
        given, made = self.tokens.get(stage, (0, 0))
        if not given and not made:
            return ""
        return f"{given:,} tokens in, {made:,} out, {made / max(self.stages[stage], 1e-9):,.0f} out a second"

    def sentence(self) -> str:
        """Says it in a sentence."""
        rate = self.clips / self.seconds if self.seconds else 0.0
        hours = self.per_million(self.seconds)
        return f"{self.clips:,} clips, {rate:,.1f} clips/s in the stages of one process; projected {hours:,.1f} hours per million clips."


def timing_of(job: Job) -> Timing:
    """Adds up what the markers of a job say."""
    timing = Timing(stages=dict.fromkeys([DECODE, *job.pipeline.stages], 0.0))
    for part in job.parts:
        rows = 0
        for stage in job.pipeline.stages:
            marker = job.file(part, stage).marker()
            if marker is not None:
                timing.stages[stage] += marker.seconds
                timing.stages[DECODE] += marker.decode_seconds
                given, made = timing.tokens.get(stage, (0, 0))
                timing.tokens[stage] = given + marker.tokens_in, made + marker.tokens_out
                rows = marker.rows
        timing.clips += rows
    return timing
