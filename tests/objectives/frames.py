"""Clips that say of phrases all that can be said, and the loss of frames written as loops over them."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.objectives import FrameAlignment
from peav.objectives.frame_mask import TermWeights
from peav.types import Embedding, EventInput, TextInput

CLIPS, PHRASES, FRAMES, DIM, HOP = 11, 12, 9, 8, 0.04
#: Phrases of the bank: no clip has an event of them.
BANK = (10, 11)


def rich_events(seed: int = 0) -> EventInput:
    """Strong, weak, soft and absent events of eleven clips and ten phrases, vocabularies and a hierarchy; one clip is not annotated."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    number = 60
    onset = draw(40, number) / 100.0
    members = draw(2, PHRASES, 3).bool()
    # Keys: 100 + k of the text, 200 + k of the label id. 3 lies under 2 lies under 0; 5 and 6 are synonyms; 11 of the bank lies under 1.
    lineage = torch.full((PHRASES, 4), -1)
    lineage[:, 0] = 100 + torch.arange(PHRASES)
    lineage[:7, 1] = 200 + torch.arange(7)
    lineage[6, 1] = 205
    lineage[2, 2], lineage[3, 2], lineage[3, 3], lineage[11, 3] = 200, 102, 200, 201
    return EventInput(
        phrases=TextInput(
            torch.zeros(PHRASES, 1).long(),
            torch.ones(PHRASES, 1).bool(),
            torch.ones(PHRASES).bool(),
            torch.arange(PHRASES),
        ),
        annotated=torch.arange(CLIPS) != 4,
        clip=draw(CLIPS, number),
        phrase=draw(PHRASES - len(BANK), number),
        onset=onset,
        offset=onset + draw(12, number) / 100.0,
        confidence=torch.tensor([0.0, 0.25, 0.7, 1.0, 1.0])[draw(5, number)],
        timed=draw(3, number) > 0,
        vocabulary=torch.tensor([-2, -1, -1, 0, 1, 2, -1, -2, 0, -1, -1]),
        members=members,
        lineage=lineage,
        bank=torch.arange(PHRASES) >= PHRASES - len(BANK),
    )


def rich_embeddings(seed: int = 0, medium: str = "audio") -> dict[str, Embedding]:
    """Frames of different lengths, of a clip none and of another no medium, and phrases, all of unit length in float64."""
    generator = torch.Generator().manual_seed(seed + 1)
    frames = torch.randn(CLIPS, FRAMES, DIM, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([9, 3, 7, 9, 9, 1, 8, 9, 0, 5, 6])
    texts = F.normalize(torch.randn(PHRASES, DIM, generator=generator, dtype=torch.float64), dim=1)
    there, every = torch.arange(CLIPS) != 2, torch.ones(PHRASES, dtype=torch.bool)
    mask = torch.arange(FRAMES) < lengths[:, None]
    frames = F.normalize(frames, dim=-1)
    return {
        medium: Embedding(frames[:, 0], there, torch.arange(CLIPS), frames, mask, HOP),
        "text_event": Embedding(texts, every, torch.arange(PHRASES)),
    }


def states(events: EventInput, groups: Tensor, clip: int) -> dict[int, tuple[str, list[int]]]:
    """Says by the definition what a clip says of each identity of a phrase: its state, and its events."""
    events = events.stated()
    assert events.lineage is not None and events.timed is not None and events.confidence is not None
    assert events.vocabulary is not None and events.members is not None
    own: dict[int, set[int]] = {}
    lineage: dict[int, set[int]] = {}
    member: dict[int, Tensor] = {}
    for row, group in enumerate(groups.tolist()):
        keys = events.lineage[row].tolist()
        own.setdefault(group, set()).update(set(keys[:2]) - {-1})
        lineage.setdefault(group, set()).update(set(keys) - {-1})
        member[group] = member.get(group, torch.zeros(events.members.shape[1]).bool()) | events.members[row]
    found: dict[int, tuple[str, list[int]]] = {}
    for group in own:
        mine = [e for e in range(len(events.clip)) if events.clip[e] == clip and groups[events.phrase[e]] == group]
        timed = [e for e in mine if events.timed[e]]
        if timed:
            found[group] = ("STRONG", timed)
        elif mine:
            found[group] = ("PRESENT" if max(events.confidence[e] for e in mine) > 0 else "ABSENT", mine)
    held = [
        g for g, (state, some) in found.items() if state != "ABSENT" and max(events.confidence[e] for e in some) > 0
    ]
    vocabulary = int(events.vocabulary[clip])
    for group in own:
        if group in found:
            continue
        related = any(own[group] & lineage[h] or own[h] & lineage[group] for h in held)
        known = vocabulary == -1 or (vocabulary >= 0 and bool(member[group][vocabulary]))
        found[group] = ("UNKNOWN" if related else "FREE" if known else "OPEN" if vocabulary == -2 else "UNKNOWN", [])
    below = {g: [h for h in held if h != g and own[g] & lineage[h]] for g in own}
    return {g: (state, some) if g not in found else (*found[g], below[g]) for g, (state, some) in found.items()}  # type: ignore[misc]


def touched(events: EventInput, event: int, frame: int) -> bool:
    begin, end = float(events.onset[event]), float(events.offset[event])
    return begin < (frame + 1) * HOP - 2e-6 and end > frame * HOP + 2e-6


def pool(logits: Tensor, pooling: str, attention: Tensor) -> Tensor:
    p = logits.sigmoid()
    if pooling == "max":
        return p.max()
    if pooling == "mean":
        return p.mean()
    share = p / p.sum() if pooling == "softmax" else attention.softmax(0)
    return (share * p).sum()


def reference(
    objective: FrameAlignment,
    embeddings: dict[str, Embedding],
    events: EventInput,
    texts: Tensor | None = None,
    groups: Tensor | None = None,
) -> tuple[Tensor, int]:
    """The loss, and M, by loops. `texts` and `groups` may hold, after this rank's phrases, those of others."""
    media, phrases = embeddings[objective.medium], embeddings["text_event"]
    assert media.frames is not None and media.mask is not None
    texts = phrases.pooled if texts is None else texts
    groups = phrases.group if groups is None else groups
    stated, weights = events.stated(), objective.weights
    assert stated.confidence is not None and stated.bank is not None
    names = list(dict.fromkeys(groups.tolist()))
    own = {int(g) for g, bank in zip(phrases.group, stated.bank, strict=True) if not bank}
    banked = {int(g) for g, bank in zip(phrases.group, stated.bank, strict=True) if bank} - own
    total, terms = torch.zeros((), dtype=torch.float64), 0
    valid, positive = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for i in range(len(media.frames)):
        frames = [t for t in range(media.mask.shape[1]) if media.mask[i, t]]
        if not (events.annotated[i] and media.present[i] and frames):
            continue
        said = states(events, phrases.group, i)
        free = int(stated.vocabulary[i]) == -1  # type: ignore[index]
        for name in names:
            text = texts[groups.tolist().index(name)]
            scale, bias = scores(objective, text)
            logits = torch.stack([scale * (media.frames[i, t] @ text) + bias for t in frames])
            state, some, below = said.get(name, ("FREE" if free else "UNKNOWN", [], []))  # type: ignore[misc]
            other = weights.clips if name in own else weights.bank if name in banked else weights.ranks
            if state == "PRESENT":
                attention = torch.zeros(()) if objective.attention is None else objective.attention(text)
                drawn = torch.stack([(media.frames[i, t] * attention).sum() for t in frames])
                p = pool(logits, objective.pooling, drawn)
                y = max(float(stated.confidence[e]) for e in some)
                if weights.present > 0:
                    total = total - weights.present * len(frames) * (y * p.log() + (1 - y) * (1 - p).log())
                    terms += len(frames)
                continue
            for logit, t in zip(logits, frames, strict=True):
                y = max(
                    [float(stated.confidence[e]) for e in some if state == "STRONG" and touched(events, e, t)],
                    default=0.0,
                )
                weight = (
                    weights.positive
                    if y
                    else {
                        "STRONG": weights.inactive,
                        "ABSENT": weights.inactive,
                        "FREE": other,
                        "OPEN": other * weights.open,
                    }.get(state, 0)
                )
                if not y and state in ("STRONG", "ABSENT"):
                    for h in below:
                        kind, ones, _ = said[h]  # type: ignore[misc]
                        hears = [e for e in ones if stated.confidence[e] > 0 and touched(events, e, t)]
                        weight = 0 if kind == "PRESENT" or hears else weight
                if not weight:
                    continue
                total = total + weight * (y * F.softplus(-logit) + (1 - y) * F.softplus(logit))
                terms, valid[name], positive[name] = terms + 1, valid[name] + 1, positive[name] + y
    if objective.text_score is not None:
        for name in names:
            bias = objective.text_score(texts[groups.tolist().index(name)][None])[1].squeeze()
            total = total + objective.prior_weight * (valid[name] * F.softplus(bias) - positive[name] * bias)
    return total / max(terms, 1), terms


def scores(objective: FrameAlignment, text: Tensor) -> tuple[Tensor, Tensor]:
    if objective.text_score is None:
        return objective.logit_scale.exp().squeeze(), objective.logit_bias.squeeze()
    scale, bias = objective.text_score(text[None])
    return scale.squeeze(), bias.squeeze().detach()


def make(seed: int = 5, weights: TermWeights | None = None, **options: object) -> FrameAlignment:
    """An objective whose parameters are random, in float64."""
    torch.manual_seed(seed)
    names = vars(weights or TermWeights(2.0, 0.7, 0.5, 0.5, 0.3, 1.3))
    given = {f"{name}_weight": value for name, value in names.items()}
    objective = FrameAlignment(scale=4.0, bias=-1.0, embedding_dim=DIM, **{**given, **options}).double()
    for parameter in objective.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return objective


def with_leaves(embeddings: dict[str, Embedding]) -> tuple[dict[str, Embedding], list[Tensor]]:
    """Copies whose frames and texts require a gradient."""
    copies, leaves = {}, []
    for name, e in embeddings.items():
        if e.frames is not None:
            leaves.append(e.frames.clone().requires_grad_())
            copies[name] = replace(e, frames=leaves[-1])
        else:
            leaves.append(e.pooled.clone().requires_grad_())
            copies[name] = replace(e, pooled=leaves[-1])
    return copies, leaves
