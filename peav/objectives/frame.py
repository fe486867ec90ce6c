"""Frame-level alignment: which phrase is heard in which frame (PE-A-Frame of arXiv 2512.19687)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peav import distributed
from peav.objectives.base import Pair, ScoredObjective, Weight
from peav.objectives.event_frames import event_frames, event_labels
from peav.objectives.frame_inputs import Texts
from peav.objectives.frame_mask import FrameMask, TermWeights
from peav.objectives.frame_sum import frame_sum
from peav.objectives.pooling import Pooling
from peav.objectives.text_score import TextScore, prior_loss
from peav.objectives.tiles import PairSums
from peav.registry import register_objective
from peav.types import Embedding, EventInput, ObjectiveOutput, World

__all__ = ["FrameAlignment", "event_frames", "event_labels"]


@register_objective
class FrameAlignment(ScoredObjective):
    """Sigmoid loss of every frame of every annotated clip against every event phrase of the global batch.

    `-(1/M) sum over valid (clip, phrase, frame) of w (y log sigmoid(x) + (1 - y) log sigmoid(-x))`, `x = t <frame, phrase> + b`. The
    label y is the confidence of the clip's event of the phrase that touches the frame, 0 where none does. Which terms are valid,
    `peav.objectives.frame_mask` says: phrases of other clips are negatives, unless the clip has the same phrase or a related one
    itself, or nobody would have annotated it there. Padded frames, absent media and clips without annotation do not count. A phrase that
    is heard, and not known when, gives one term of all frames together (`peav.objectives.pooling`), which counts as often as there are
    frames. M is the number of valid terms over all ranks, whatever their weights w: a weight changes nothing but the terms of its group.
    N ranks equal one process where `clips_weight` equals `ranks_weight`; where they differ they cannot, since one process has no other
    ranks.

    With `per_text` each phrase has a scale and a bias of its own (FLAM, arXiv 2505.05335): `t = exp(MLP(phrase))`, `b = MLP(phrase)`. The
    bias is a constant to the loss above, and fitted by another, its own cross entropy with the frames' labels, to the logit of the rate of
    the phrase's active frames. Weak labels say nothing of that rate and do not enter it.

    Args:
        medium: whose frames: `audio`, `video` or `audio_video`.
        scale: initial t; its log is learned.
        bias: initial b; -5 by default, and -8 (FLAM's) with `per_text`.
        positive_weight: weight of the active frames' terms, those with a label above 0.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below; unbounded by default. Not with `per_text`.
        inactive_weight: weight of the other frames of a clip's own phrases.
        clips_weight: weight of the terms with phrases of other clips of the rank.
        ranks_weight: weight of the terms with phrases that only clips of other ranks have.
        bank_weight: weight of the terms with phrases that no clip of the batch has (`EventInput.bank`).
        present_weight: weight of the terms of phrases that are heard nobody knows when.
        pooling: what the frames say together: `mean`, `max`, linear `softmax`, or `attention` with learned weights, which needs
            `embedding_dim`.
        per_text: whether each phrase has its own scale and bias; needs `embedding_dim`.
        prior_weight: factor of the loss that fits the biases of `per_text`.
        embedding_dim: D, dimension of the shared space.
        open_weight: factor of the terms with phrases that a clip does not have of which only its own are known. By default they are
            unknown there; 1 takes them for absent, as FineLAP (arXiv 2604.01155) does with phrases that it draws.

    Raises:
        ValueError: if an argument is out of range, or `embedding_dim` is missing.
    """

    def __init__(
        self,
        medium: str = "audio",
        scale: float = 10.0,
        bias: float | None = None,
        positive_weight: float = 1.0,
        weight: Weight = 1.0,
        max_scale: float | None = None,
        inactive_weight: float = 1.0,
        clips_weight: float = 1.0,
        ranks_weight: float = 1.0,
        bank_weight: float = 1.0,
        present_weight: float = 1.0,
        pooling: Pooling = "mean",
        per_text: bool = False,
        prior_weight: float = 1.0,
        embedding_dim: int | None = None,
        open_weight: float = 0.0,
    ) -> None:
        bias = (-8.0 if per_text else -5.0) if bias is None else bias
        super().__init__(scale, bias, weight, max_scale)
        weights = {
            "positive": positive_weight,
            "inactive": inactive_weight,
            "clips": clips_weight,
            "ranks": ranks_weight,
            "bank": bank_weight,
            "present": present_weight,
            "open": open_weight,
        }
        for name, value in {**weights, "prior": prior_weight}.items():
            if not 0 <= value < math.inf or (name == "positive" and value == 0):
                least = "positive" if name == "positive" else "at least 0"
                raise ValueError(f"{name}_weight must be {least} and finite, not {value}")
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be 'mean', 'max', 'softmax' or 'attention', not {pooling!r}")
        if embedding_dim is None and (per_text or pooling == "attention"):
            what = "per_text" if per_text else "pooling='attention'"
            raise ValueError(
                f"{what} makes parameters for each dimension of the shared space: set embedding_dim to the model's"
            )
        if per_text and max_scale is not None:
            raise ValueError(
                "max_scale holds one scale, but with per_text each phrase has its own: leave one of the two out"
            )
        self.medium = medium
        self.requires = (medium, "text_event")
        self.frames = (medium,)
        self.targets = ("events",)
        self.gathers = ("text_event",)
        self.frame_pair = (medium, "text_event")
        self.weights, self.pooling, self.prior_weight = TermWeights(**weights), pooling, prior_weight
        self.text_score: TextScore | None = None
        if per_text and embedding_dim is not None:
            self.text_score = TextScore(embedding_dim, scale=scale, bias=bias)
            del self.logit_scale, self.logit_bias
        self.attention: nn.Linear | None = None
        if pooling == "attention" and embedding_dim is not None:
            self.attention = nn.Linear(embedding_dim, embedding_dim, bias=False)
            # At first a frame weighs by its own likeness to the phrase.
            self.attention.weight.data.copy_(scale * torch.eye(embedding_dim))

    def text_scores(self) -> dict[Pair, TextScore]:
        """Returns what makes the scale and bias of each phrase, with `per_text`."""
        return {} if self.text_score is None else {(self.medium, "text_event"): self.text_score}

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss of this rank's clips against every rank's phrases."""
        embeddings = distributed.with_world(embeddings, gathers=self.gathers)
        media, phrases, events = embeddings[self.medium], embeddings["text_event"], targets["events"]
        if media.frames is None or media.mask is None or media.frame_seconds is None:
            raise ValueError(f"FrameAlignment needs the frames of {self.medium!r}, which has only pooled vectors")
        everyone = distributed.world_of(phrases)
        if everyone.pooled is None:
            raise ValueError("FrameAlignment needs all ranks' phrases: `gathers` names them")
        valid = media.mask & (events.annotated & media.present).unsqueeze(1)
        texts = gather_texts(events, phrases, everyone)
        mask = FrameMask(valid, events, media.frame_seconds, texts, self.weights, media.frames.dtype)
        columns, scores = everyone.pooled, self._scores(everyone.pooled)
        if self.text_score is not None:
            columns = columns * scores[0].exp().unsqueeze(1)
        log_scale, bias = scores if self.text_score is None else (scores[0].new_zeros(1), scores[1].detach())
        queries = None if self.attention is None else self.attention(everyone.pooled)
        total, sums, weak = frame_sum(
            media.frames, valid, columns, queries, log_scale, bias, mask, mask.weak, self.pooling
        )
        log = self._log(scores, everyone.present, sums, weak)
        if self.text_score is not None:
            prior = prior_loss(scores[1], *mask.rates())
            total = total + self.prior_weight * prior
            log["prior_loss"] = prior.detach() / (sums.positives + sums.negatives)
        terms = sums.positives + sums.negatives + mask.weak_frames
        counts = distributed.sum_over_ranks(torch.stack((sums.positives + mask.weak_frames, terms)))
        loss = distributed.world_size() * total / counts[1].clamp(min=1)
        return ObjectiveOutput(loss.to(media.frames.dtype), counts[0].ceil().long(), log)

    def _scores(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the log of the scale and the bias, (1,) each, or (M,) with `per_text`."""
        if self.text_score is None:
            return self.logit_scale, self.logit_bias
        scale, bias = self.text_score(texts)
        return scale.log(), bias

    def _log(self, scores: tuple[Tensor, Tensor], present: Tensor, sums: PairSums, weak: Tensor) -> dict[str, Tensor]:
        """Returns what to log; scale and bias are means over the phrases, NaN says that there was none."""
        if self.text_score is None:
            log = self.score_log(sums)
        else:
            positive, negative = sums.means
            number = present.sum()
            scale, bias = (torch.where(present, s.detach(), 0).sum() / number for s in (scores[0].exp(), scores[1]))
            log = {"scale": scale, "bias": bias, "positive_logit": positive, "negative_logit": negative}
        return {**log, "present_loss": weak[1] / weak[0]}


def gather_texts(events: EventInput, phrases: Embedding, everyone: World) -> Texts:
    """Gathers what all ranks say of their phrases.

    One message asks whether any rank says more than the phrases' identities; only then a second brings it.

    Args:
        events: of this rank.
        phrases: embeddings of its K phrases.
        everyone: those of all ranks.

    Raises:
        ValueError: if there are not as many phrases as embeddings, or what is said of them is of another number.
    """
    number = len(phrases.group)
    for name in ("members", "lineage", "bank"):
        value = getattr(events, name)
        if value is not None and (len(value) != number or value.ndim != (1 if name == "bank" else 2)):
            raise ValueError(f"events.{name} is {tuple(value.shape)}, but there are {number} phrases")
    own = [
        0 if events.bank is None else 1,
        0 if events.members is None else events.members.shape[1],
        0 if events.lineage is None else events.lineage.shape[1],
    ]
    banks, vocabularies, ancestors = distributed.largest_over_ranks(own, phrases.group.device)
    texts = Texts(everyone.group, everyone.present, everyone.offset, number)
    if not banks + vocabularies + ancestors:
        return texts
    stated = events.stated()
    parts = []
    for value, width, fill in (
        (stated.bank, banks, 0),
        (stated.members, vocabularies, 0),
        (stated.lineage, ancestors, -1),
    ):
        if value is not None and width:
            wide = value.long() if value.ndim == 2 else value.long().unsqueeze(1)
            parts.append(F.pad(wide, (0, width - wide.shape[1]), value=fill))
    packed = distributed.gather_rows(torch.cat(parts, 1), list(everyone.counts))
    bank, members, lineage = packed.split((banks, vocabularies, ancestors), 1)
    return Texts(
        everyone.group,
        everyone.present,
        everyone.offset,
        number,
        bank.squeeze(1).bool() if banks else None,
        members.bool() if vocabularies else None,
        lineage if ancestors else None,
    )
