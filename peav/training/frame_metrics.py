"""How well sounds are found by name while a model trains: frame AUROC and PSDS1 of a part of each validation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from peav import distributed
from peav.evaluation.detection.metrics import DetectionMetric, FrameAUROC, PSDScore
from peav.masking import lengths_to_mask
from peav.objectives import Objective
from peav.objectives.known import known_labels
from peav.training.virtual import join_rows
from peav.types import Embedding, EventInput, move

log = logging.getLogger(__name__)

#: From this confidence on a soft label is an event to the metrics, which know no half ones.
_HEARD = 0.5


@dataclass(frozen=True)
class _Clips:
    """Clips of a rank on the host: their events, and the phrases of these, (K, D)."""

    events: EventInput
    phrases: Tensor
    group: Tensor
    frames: list[Tensor]
    hops: frozenset[float]


class FrameMetrics:
    """Keeps the frames of the first annotated clips of a validation, and scores them against the phrases of all of them at its end.

    Memory is bounded: 4 T D bytes a clip on the host (1 MB at 250 frames and D = 1024), and at the end 4 T K for K phrases. A phrase is
    known in a clip as the objective knows it (`peav.objectives.frame_mask`), but a weak label, which says not when, is left out; a soft one
    is an event from a confidence of 0.5 on. Ranks share the clips, and each gets the metrics of all of them.

    Args:
        objective: whose `frame_pair` says what is compared.
        clips: at most so many, over all ranks.
    """

    def __init__(self, objective: Objective, clips: int) -> None:
        if objective.frame_pair is None:
            raise ValueError(f"{type(objective).__name__} compares no frames with phrases")
        self._objective, self._limit, self._pair = objective, clips, objective.frame_pair
        self._kept: list[_Clips] = []

    def reset(self) -> None:
        """Forgets all clips."""
        self._kept = []

    @torch.no_grad()
    def add(self, embeddings: Mapping[str, Embedding], events: EventInput) -> None:
        """Takes a batch in, as far as there is room."""
        media, texts = (embeddings[name] for name in self._pair)
        room = -(-self._limit // distributed.world_size()) - sum(len(kept.frames) for kept in self._kept)
        if room <= 0 or media.frames is None or media.mask is None or media.frame_seconds is None:
            return
        events = move(replace(events, phrases=replace(events.phrases, others={})), "cpu")
        mask = media.mask.cpu()
        rows = (events.annotated & media.present.cpu() & mask.any(1)).nonzero().squeeze(1)[:room]
        frames = [media.frames[row].float().cpu()[mask[row]] for row in rows.tolist()]
        hops = torch.as_tensor(media.frame_seconds).float().cpu().expand(len(mask))[rows]
        kept = frozenset(round(hop, 6) for hop in hops.tolist())
        self._kept.append(_Clips(events.of_clips(rows), texts.pooled.float().cpu(), texts.group.cpu(), frames, kept))

    @torch.no_grad()
    def compute(self, device: torch.device | str = "cpu") -> dict[str, float]:
        """Returns `auroc` (macro) and `psds1`, those that are defined. Every rank must call it.

        Args:
            device: on which ranks exchange.
        """
        own = self._joined()
        everyone = distributed.gather_objects(None if own is None else replace(own, frames=[]))
        hops = frozenset().union(*(part.hops for part in everyone if part is not None))
        if len(hops) != 1:
            if hops:
                log.warning("frame AUROC and PSDS1 want one frame rate, but the hops are %s s", sorted(hops))
            return {}
        (hop,) = hops
        num_labels = len(torch.cat([part.group for part in everyone if part is not None]).unique())
        if not num_labels:
            return {}
        metrics: dict[str, DetectionMetric] = {"auroc": FrameAUROC(num_labels, hop), "psds1": PSDScore(num_labels, hop)}
        for metric in metrics.values():
            metric.to(device)
        if own is not None and own.frames:
            self._update(metrics, own, everyone, hop)
        found = {name: float(metric.compute()) for name, metric in metrics.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _joined(self) -> _Clips | None:
        if not self._kept:
            return None
        return _Clips(
            join_rows([kept.events for kept in self._kept]),
            torch.cat([kept.phrases for kept in self._kept]),
            torch.cat([kept.group for kept in self._kept]),
            [frames for kept in self._kept for frames in kept.frames],
            frozenset().union(*(kept.hops for kept in self._kept)),
        )

    def _update(
        self, metrics: Mapping[str, DetectionMetric], own: _Clips, everyone: Sequence[_Clips | None], hop: float
    ) -> None:
        valid = lengths_to_mask(torch.tensor([len(frames) for frames in own.frames]))
        parts = [None if part is None else (part.events, part.group) for part in everyone]
        rows, label, known = known_labels(parts, distributed.rank(), valid, hop)
        columns = torch.cat([part.phrases for part in everyone if part is not None])[rows]
        scale, bias = self._score(columns)
        stated = own.events.stated()
        heard = torch.ones_like(stated.clip, dtype=torch.bool)
        if stated.confidence is not None and stated.timed is not None:
            heard = (stated.confidence >= _HEARD) & stated.timed
        for clip, frames in enumerate(own.frames):
            end = len(frames) * hop
            events = []
            for index in ((stated.clip == clip) & heard).nonzero().flatten().tolist():
                onset, offset = max(float(stated.onset[index]), 0.0), min(float(stated.offset[index]), end)
                if onset < offset:
                    events.append((int(label[index]), onset, offset))
            logits = scale * (columns @ frames.T) + bias
            for metric in metrics.values():
                metric.update(logits[None], valid[clip, : len(frames)][None], [events], known[clip][None])

    def _score(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scale and bias, (K, 1) or (1,); 1 and 0 where the objective declares none, which order frames of one phrase alike."""
        by_text = self._objective.text_scores().get(self._pair)
        if by_text is not None:
            scale, bias = (value.float().cpu().unsqueeze(1) for value in by_text(texts.to(by_text.device)))
            return scale, bias
        scale, bias = self._objective.pair_scores().get(self._pair, (torch.ones(1), torch.zeros(1)))
        return scale.float().cpu(), bias.float().cpu()
