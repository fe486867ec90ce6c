"""Chooses what a report shows: clips of a similarity matrix, retrieved examples, clips with events.

Nothing is chosen by its result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peav.evaluation.directions import BOTH_WAYS, compared_pairs, frame_logits
from peav.evaluation.retrieval import SharedPositives, ranks, similarity
from peav.evaluation.table import EmbeddingTable

#: Pairs to show similarities of, the first that are there.
MATRICES = (("audio", "video"), ("text_audio", "audio"), ("text_video", "video"))

#: Directions to show examples of, the richest first.
EXAMPLE_DIRECTIONS = (
    ("text_audio_video", "audio_video"),
    ("text_audio", "audio"),
    ("text_video", "video"),
    ("text_audio_video", "audio"),
    ("text_audio_video", "video"),
)


@dataclass(frozen=True)
class Hit:
    """A retrieved clip.

    Attributes:
        clip_id: the clip.
        score: its similarity to the query.
        right: whether it is right for the query.
        caption: a caption of its own of the query's type; "" if it has none.
    """

    clip_id: str
    score: float
    right: bool
    caption: str


@dataclass(frozen=True)
class RetrievedExample:
    """A text query and what it finds.

    Attributes:
        query: the text.
        direction: `query->item`.
        hits: best first.
        rank: rank of the best right clip.
        num_candidates: clips searched.
    """

    query: str
    direction: str
    hits: list[Hit]
    rank: int
    num_candidates: int


def spread(count: int, wanted: int) -> list[int]:
    """Returns at most `wanted` indices spread evenly over `range(count)`.

    >>> spread(10, 3), spread(2, 5)
    ([1, 5, 8], [0, 1])
    """
    if count <= wanted:
        return list(range(count))
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]


def similarity_matrix(table: EmbeddingTable, left: str, right: str, max_clips: int = 64) -> Tensor | None:
    """Returns the similarities (m, m) of the first rows of up to `max_clips` clips that have both, spread evenly.

    None if an embedding is missing or fewer than two clips have both.
    """
    if left not in table.embeddings or right not in table.embeddings:
        return None
    first_left, first_right = _first_rows(table, left), _first_rows(table, right)
    both = [clip for clip in range(len(table)) if clip in first_left and clip in first_right]
    if len(both) < 2:
        return None
    chosen = [both[i] for i in spread(len(both), max_clips)]
    return similarity(
        table.embeddings[left][[first_left[c] for c in chosen]],
        table.embeddings[right][[first_right[c] for c in chosen]],
    )


def shown_pairs(table: EmbeddingTable) -> list[tuple[str, str]]:
    """Returns the pairs to show similarities of: `MATRICES`, and up to three of those that a model has of its own."""
    own = [pair for pair in compared_pairs(table) if pair not in BOTH_WAYS]
    return [*MATRICES, *own[:3]]


def retrieved_examples(table: EmbeddingTable, count: int = 4, top: int = 3) -> list[RetrievedExample]:
    """Returns what `count` captions, spread evenly over the split, retrieve in the first direction there is."""
    others = [direction for left, right in compared_pairs(table) for direction in ((left, right), (right, left))]
    for query, item in (*EXAMPLE_DIRECTIONS, *others):
        if query in table.texts and item in table.embeddings and item not in table.texts:
            found = _examples_of(table, query, item, count, top)
            if found:
                return found
    return []


def _examples_of(table: EmbeddingTable, query: str, item: str, count: int, top: int) -> list[RetrievedExample]:
    # One query a clip: its first caption.
    first = _first_rows(table, query)
    has_item = set(table.clips[item].tolist())
    rows = [row for clip, row in sorted(first.items()) if clip in has_item]
    chosen = torch.tensor([rows[i] for i in spread(len(rows), count)], dtype=torch.int64)
    if not len(chosen):
        return []
    # All captions tell which clips share a caption with the chosen ones, so positives are computed over all rows.
    pairs = SharedPositives(table.clips[query], table.clips[item], table.groups[query], table.groups[item])
    scores = similarity(table.embeddings[query][chosen], table.embeddings[item])
    positives = torch.zeros(scores.shape, dtype=torch.bool)
    positives[pairs.of(chosen)] = True
    found = []
    for row, score, positive, rank in zip(chosen.tolist(), scores, positives, ranks(scores, positives), strict=True):
        best = score.argsort(descending=True, stable=True)[:top].tolist()
        hits = []
        for m in best:
            clip = int(table.clips[item][m])
            caption = table.texts[query][first[clip]] if clip in first else ""
            hits.append(Hit(table.clip_ids[clip], float(score[m]), bool(positive[m]), caption))
        found.append(
            RetrievedExample(table.texts[query][row], f"{query}->{item}", hits, int(rank), len(table.embeddings[item]))
        )
    return found


def event_clips(table: EmbeddingTable, count: int = 4) -> list[int]:
    """Returns up to `count` clips with frames and events, spread over those with the most phrases (three or more)."""
    if table.frames is None:
        return []
    part = table.frame_part
    distinct = {
        c: len({e[0] for e in events}) for c, events in enumerate(part.events) if events and len(part.frames[c])
    }
    richest = sorted(distinct, key=lambda c: (-min(distinct[c], 3), c))
    enough = [c for c in richest if distinct[c] == distinct[richest[0]]] if richest else []
    pool = sorted(enough if len(enough) >= count else richest[: max(count, len(enough))])
    return [pool[i] for i in spread(len(pool), count)]


def event_probabilities(table: EmbeddingTable, clip: int, max_phrases: int = 4) -> dict[str, Tensor]:
    """Returns (T,) by phrase for the phrases of a clip, and for the phrase that scores highest of those that are known to be absent.

    Probabilities where the table knows scale and bias; otherwise dot products stretched to [0, 1] over the phrases
    shown.

    Raises:
        ValueError: if the table has no frames.
    """
    logits = frame_logits(table, clip)
    held = dict.fromkeys(event[0] for event in table.frame_part.events[clip] or [])
    true = list(held)[:max_phrases]
    known = table.frame_part.known
    absent = [k for k, phrase in enumerate(table.phrases) if phrase not in held and (known is None or known[clip, k])]
    shown = [table.phrases.index(phrase) for phrase in true]
    if absent:
        shown.append(absent[int(logits[absent].amax(1).argmax())])
    values = logits[shown]
    stretched = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-9)
    values = values.sigmoid() if table.is_calibrated else stretched
    return {table.phrases[k]: v for k, v in zip(shown, values, strict=True)}


def _first_rows(table: EmbeddingTable, name: str) -> dict[int, int]:
    first: dict[int, int] = {}
    for row, clip in enumerate(table.clips[name].tolist()):
        first.setdefault(clip, row)
    return first
