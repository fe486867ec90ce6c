"""One model, one prepared split: from media to numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from peav.data.manifests.records import SPLITS
from peav.embedding_model import EmbeddingModel
from peav.evaluation.collect import PassOptions, Split, Work, build_table, embed_split, open_store
from peav.evaluation.directions import Evaluation, evaluate_table
from peav.evaluation.intervals import Queries
from peav.evaluation.models import EvaluatedModel, PeavModel
from peav.evaluation.store import EmbeddingStore
from peav.evaluation.table import EmbeddingTable
from peav.suggest import suggest


@dataclass(frozen=True)
class Evaluated:
    """A split as it was evaluated.

    Attributes:
        evaluation: the numbers.
        table: the embeddings.
        queries: what became of the queries, by direction.
        undecodable: clips that could not be decoded, with the reason.
        work: what was embedded now, and what had been.
    """

    evaluation: Evaluation
    table: EmbeddingTable
    queries: dict[str, Queries] = field(default_factory=dict)
    undecodable: dict[str, str] = field(default_factory=dict)
    work: Work = field(default_factory=Work)


def evaluate(
    model: EmbeddingModel | EvaluatedModel,
    data: str | Path,
    split: str = "test",
    options: PassOptions | None = None,
    cache: str | Path | None = None,
) -> Evaluation:
    """Evaluates a model on a prepared split, as `peav evaluate` does: every direction that it allows, and the frame level.

    Args:
        model: what `PEAV.from_pretrained` returns, or one of another family (`peav.evaluation.adapters`).
        data: folder that `peav prepare` wrote.
        split: `train`, `validation` or `test`.
        options: how clips are embedded.
        cache: folder in which embeddings are kept for the next time; a temporary one by default.

    Raises:
        FileNotFoundError: if the split was not prepared.
        ValueError: if there is no such split, or nothing can be compared.
    """
    with ExitStack() as stack:
        folder = Path(cache) if cache is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return evaluate_split(as_evaluated(model), open_split(data, split), folder, options).evaluation


def as_evaluated(model: EmbeddingModel | EvaluatedModel) -> EvaluatedModel:
    """Returns a model as evaluation sees it."""
    return model if isinstance(model, EvaluatedModel) else PeavModel(model)


def open_split(data: str | Path, split: str) -> Split:
    """Opens a prepared split.

    Raises:
        FileNotFoundError: if it was not prepared.
        ValueError: if there is no such split, or it holds no clip.
    """
    check_split_name(split)
    return Split(data, split)


def check_split_name(split: str) -> None:
    """Refuses what is no split's name.

    Raises:
        ValueError: if it is none.
    """
    if split not in SPLITS:
        raise ValueError(f"no split is named {split!r}. {suggest(split, SPLITS)}")


def evaluate_split(
    model: EvaluatedModel,
    split: Split,
    cache: Path,
    options: PassOptions | None = None,
    work: Work | None = None,
) -> Evaluated:
    """Embeds what the cache lacks of a split, and evaluates it.

    Args:
        model: it.
        split: its clips.
        cache: folder of stores.
        options: how clips are embedded.
        work: what other processes did already, where the pass was theirs.

    Raises:
        ValueError: if no clip could be decoded, or nothing can be compared.
    """
    options = options or PassOptions()
    store = open_store(cache, model, options)
    done = embed_split(model, split, store, options)
    table, undecodable = build_table(model, split, store)
    if undecodable and len(undecodable) == len(split):
        clip, reason = next(iter(undecodable.items()))
        raise ValueError(f"none of the {len(split)} clips can be decoded; the first, {clip!r}: {reason}")
    queries: dict[str, Queries] = {}
    evaluation = evaluate_table(table, queries=queries)
    return Evaluated(evaluation, table, queries, undecodable, work or done)


def embed_share(
    model: EvaluatedModel,
    split: Split,
    cache: Path,
    options: PassOptions,
    rank: int,
    world_size: int,
    texts: Mapping[str, Sequence[str]] | None = None,
) -> Work:
    """Embeds a rank's share of a split into the cache that all ranks share."""
    store: EmbeddingStore = open_store(cache, model, options)
    return embed_split(model, split, store, options, texts, rank, world_size)
