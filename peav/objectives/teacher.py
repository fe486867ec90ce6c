"""The fused embedding teaches those of a single medium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from peav import distributed
from peav.objectives.base import Weight
from peav.objectives.pairs import PairObjective
from peav.objectives.tiles import DuplicatePolicy
from peav.registry import register_objective
from peav.types import Embedding, ObjectiveOutput


@register_objective
class FusionTeacher(PairObjective):
    """A medium is drawn to the fused embedding of its clip and pushed from those of others; the fused embeddings get no gradient.

    The fusion hears and sees the clip, so that it knows more than either medium alone; the student learns what of it can be told from
    one. The idea is that of OmniRetriever (arXiv 2605.26641); form and settings are ours. Needs other objectives that train the teacher.

    Args:
        student: `audio` or `video`.
        scale: initial t; its log is learned.
        bias: initial b.
        duplicates: what to do with other clips whose media are the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below; unbounded by default.
    """

    def __init__(
        self,
        student: Literal["audio", "video"],
        scale: float = 10.0,
        bias: float = -10.0,
        duplicates: DuplicatePolicy = "drop",
        weight: Weight = 1.0,
        max_scale: float | None = None,
    ) -> None:
        super().__init__(student, "audio_video", scale, bias, duplicates, weight, max_scale)
        self.detached = ("audio_video",)

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the pair loss against the teacher as it is."""
        embeddings = distributed.with_world(embeddings, self.pairs)
        teacher = embeddings["audio_video"]
        world = distributed.world_of(teacher)
        everyone = None if world.pooled is None else world.pooled.detach()
        still = replace(teacher, pooled=teacher.pooled.detach(), world=replace(world, pooled=everyone))
        return super().forward({**embeddings, "audio_video": still}, targets)
