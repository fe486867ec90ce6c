"""Probes: a captioner that does not hear or see is found before it writes a million captions.

A few clips are given to each stage that listens or looks four times: as they are, with silence or a black picture, with the sound or
picture of another clip, and in another order. A stage that still names the sound in silence, that tells of a clip's own sound where
another one's was played, or whose answers stay in their places when the clips move, fails the run. Models that hear and see read the
sound off the picture (arXiv 2410.18325, 2510.24024), and servers have dropped the sound without a word (vllm, issue 47788).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from peav.data.manifests.clip import Clip
from peav.engine.calibration import sample_clips
from peav.engine.compute import Computer, run_in_memory
from peav.engine.gates.words import words_of
from peav.engine.job import Job
from peav.engine.pipeline import Planned
from peav.engine.rows import read_json_file, replace_file
from peav.engine.stage import Columns, EngineError, Failed, take

_log = logging.getLogger(__name__)

#: Columns in which a stage says what it heard or saw.
SAYING = ("tags", "candidates", "texts")

#: Two answers that share at least this much of their words say the same.
ALIKE = 0.5

_EMPTY_WORDS = frozenset(
    words_of(
        "a an the and or of in on with to is are be can while then as by for from at it its this that some what which sound sounds heard "
        "hear seen see picture possibly perhaps maybe might looks like together little else both after before first followed"
    )
)


class ProbeError(EngineError):
    """A stage that does not hear, does not see, or mixes clips up. The message says which, and how it shows."""


@dataclass(frozen=True)
class Probe:
    """What came of probing a stage with a medium.

    Attributes:
        stage: its name.
        medium: `audio` or `video`.
        clips: that were tried.
        blank: how alike its answers to silence or black and to the clips themselves are, from 0 to 1.
        own: how alike its answers to another clip's medium are to those to the clip's own; None if all answers are alike.
        other: and how alike to those to the other clip's; None likewise.
        moved: how alike its answers are when the clips are given in another order; None of a stage that is not deterministic.
        fault: what is wrong; "" if nothing is.
    """

    stage: str
    medium: str
    clips: int
    blank: float
    own: float | None
    other: float | None
    moved: float | None
    fault: str = ""


def probe_stages(job: Job, computer: Computer, number: int = 8) -> list[Probe]:
    """Probes all stages that listen or look, unless that was done for them before.

    Args:
        job: the job.
        computer: its stages.
        number: clips to try; 0 for no probe.

    Raises:
        ProbeError: if a stage fails.
    """
    if not number:
        return []
    path = job.work / "probes.json"
    known: dict[str, Any] = read_json_file(path) if path.is_file() else {}
    found: list[Probe] = []
    clips = sample_clips(job, 4 * number, "probe")
    for planned in job.pipeline.stages.values():
        for medium, column in (("audio", "audio"), ("video", "frames")):
            if not _can_be_probed(job, planned, column):
                continue
            key = f"{planned.key}/{medium}/{number}"
            if key not in known:
                own = [clip for clip in clips if (clip.has_audio if medium == "audio" else clip.has_video)][:number]
                if len(own) < 2:
                    _log.warning("the stage %s was not probed: fewer than two clips have %s", planned.name, medium)
                    continue
                probe = probe_stage(computer, planned, medium, own)
                if probe is None:
                    _log.warning(
                        "the stage %s was not probed: it said nothing about %s of the sample", planned.name, medium
                    )
                    continue
                if not probe.fault:
                    known[key] = asdict(probe)
                    replace_file(path, [json.dumps(known, indent=1)])
            else:
                probe = Probe(**known[key])
            found.append(probe)
            if probe.fault:
                raise ProbeError(
                    f"the stage {planned.name} failed its probe with {probe.clips} clips: {probe.fault}. No caption was written; see that "
                    "the model gets the sound and the picture (--probes 0 goes on all the same)"
                )
    return found


def _can_be_probed(job: Job, planned: Planned, column: str) -> bool:
    """Whether a stage says something about a medium that it can know from nothing but the medium."""
    says = any(name in planned.provides for name in SAYING)
    told = any(set(SAYING) & set(job.pipeline.stages[other].provides) for other in planned.upstream)
    return says and column in planned.reads and not told


def probe_stage(computer: Computer, planned: Planned, medium: str, clips: Sequence[Clip]) -> Probe | None:
    """Probes a stage with a medium.

    Args:
        computer: holds the stage.
        planned: the stage.
        medium: `audio` or `video`.
        clips: at least two that have it.

    Returns:
        None if it says nothing about the clips as they are.
    """
    column = "audio" if medium == "audio" else "frames"
    rows = run_in_memory(computer, clips, planned.name)
    batch, lost = computer.batch_for(planned, clips, rows)
    good = [place for place, clip in enumerate(clips) if clip.id not in lost]
    batch = take(batch, good)
    computer.media.forget()
    stage = computer.stage(planned.name)

    def answers(changed: Columns) -> list[set[str]]:
        made = stage(changed)
        by_id = {name: place for place, name in enumerate(made["id"])}
        return [_said(made, by_id.get(name), medium) for name in batch["id"]]

    plain = answers(batch)
    if sum(map(bool, plain)) < 2:
        return None
    blank = answers({**batch, column: [np.zeros_like(value) for value in batch[column]]})
    order = list(range(len(batch["id"])))
    swapped = answers({**batch, column: [batch[column][place - 1] for place in order]})
    moved = answers(take(batch, order[::-1])) if planned.cls.deterministic else None
    held = [place for place in order if plain[place]]
    same_blank = float(np.mean([alike(plain[place], blank[place]) for place in held]))
    differ = [place for place in held if plain[place - 1] and alike(plain[place], plain[place - 1]) < ALIKE]
    own = float(np.mean([alike(swapped[place], plain[place]) for place in differ])) if differ else None
    other = float(np.mean([alike(swapped[place], plain[place - 1]) for place in differ])) if differ else None
    same_moved = float(np.mean([alike(moved[place], plain[place]) for place in held])) if moved else None
    fault = ""
    deaf, nothing = ("deaf", "silence") if medium == "audio" else ("blind", "a black picture")
    if same_moved is not None and same_moved < ALIKE:
        fault = f"its answers stay in their places when the clips move (alike {same_moved:.2f}): it mixes clips up"
    elif same_blank > ALIKE:
        fault = f"it is {deaf}: it says of {nothing} what it says of the clips (alike {same_blank:.2f})"
    elif own is not None and other is not None and own > ALIKE and own >= other:
        fault = f"it is {deaf}: given another clip's {medium} it tells of the clip's own (alike {own:.2f}, of the other's {other:.2f})"
    return Probe(planned.name, medium, len(good), same_blank, own, other, same_moved, fault)


def alike(left: set[str], right: set[str]) -> float:
    """Returns the share of words that two answers have in common; 0 where one of them is empty.

    >>> alike({"dog", "bark"}, {"dog", "rain", "bark"})
    0.6666666666666666
    """
    return len(left & right) / len(left | right) if left and right else 0.0


def _said(made: Mapping[str, Sequence[Any]], place: int | None, medium: str) -> set[str]:
    """Returns the words by which a stage names what it heard or saw."""
    if place is None:
        return set()
    texts: list[str] = []
    for name in SAYING:
        value = made[name][place] if name in made else None
        if value is None or isinstance(value, Failed):
            continue
        if name == "texts":
            given = value.get(medium) or []
            texts += [given] if isinstance(given, str) else given
        else:
            kind = "medium" if name == "tags" else "kind"
            texts += [item["phrase" if name == "tags" else "text"] for item in value if item.get(kind) == medium]
    return {word for text in texts for word in words_of(text)} - _EMPTY_WORDS
