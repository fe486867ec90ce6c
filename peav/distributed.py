"""Ranks, and what they exchange. Everything asks the process group at call time.

The rule of exactness (N ranks of B clips equal one process of N*B): each rank back-propagates `world_size * local sum / global
count`, the gradients of gathered rows are summed over ranks, and the strategy (DDP, FSDP) averages over ranks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from peav.host import RowIdentities, to_host
from peav.types import Embedding, World

_T = TypeVar("_T")


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Returns this process's rank, 0 without a process group."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Returns the number of ranks, 1 without a process group."""
    return dist.get_world_size() if _active() else 1


def row_counts(num_rows: int, device: torch.device | str = "cpu") -> list[int]:
    """Returns how many rows each rank holds, in the order of the ranks."""
    if world_size() == 1:
        return [num_rows]
    return list(_gather_counts([num_rows], torch.device(device))[0])


def gather_rows(rows: Tensor, counts: list[int] | None = None) -> Tensor:
    """Concatenates the rows (n, ...) of all ranks, in the order of the ranks; the numbers of rows may differ.

    Gradients flow back to the rank that owns the row, summed over ranks. One process gets its own rows back.

    Args:
        rows: (n, ...) tensor, of the same trailing shape and dtype on every rank.
        counts: what :func:`row_counts` returned, to save asking again.
    """
    if world_size() == 1:
        return rows
    spans = [tuple(counts if counts is not None else row_counts(len(rows), rows.device))]
    flat = rows.flatten(1) if rows.ndim > 1 else rows.unsqueeze(1)
    if rows.dtype == torch.bool:
        everyone = _gather_packed([flat.to(torch.uint8)], spans)[0].bool()
    elif rows.is_floating_point():
        (everyone,) = _GatherMany.apply(None, spans, flat)
    else:
        (everyone,) = _gather_packed([flat], spans)
    return everyone.view(-1, *rows.shape[1:])


def sum_over_ranks(value: Tensor) -> Tensor:
    """Returns the sum of a tensor over ranks, without gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def largest_over_ranks(numbers: Sequence[int], device: torch.device | str = "cpu") -> tuple[int, ...]:
    """Returns the largest value of each of several numbers on any rank."""
    if world_size() == 1:
        return tuple(numbers)
    found = torch.tensor(numbers, dtype=torch.int64, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(found.tolist())


def gather_objects(value: _T) -> list[_T]:
    """Returns the values that all ranks give, in the order of the ranks; they are pickled on the way."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def broadcast(value: Tensor) -> None:
    """Sets a tensor, in place, to that of the first rank."""
    if world_size() > 1:
        dist.broadcast(value, 0)


def smallest_cover(pairs: Iterable[tuple[str, str]], forced: Collection[str] = ()) -> tuple[str, ...]:
    """Returns the fewest names that hold at least one of each pair, in alphabetical order; among equals the same on every rank.

    The ten pairs of PE-AV need three gathers, not ten: each has `audio`, `video` or `audio_video` on one side.

    Args:
        pairs: of names.
        forced: names that are in the set in any case.

    >>> smallest_cover([("audio", "text_audio"), ("audio", "video"), ("text_video", "audio")])
    ('audio',)
    """
    best: list[frozenset[str]] = []

    def search(chosen: frozenset[str], rest: Sequence[tuple[str, str]]) -> None:
        if best and len(chosen) >= len(best[0]):
            return
        rest = [pair for pair in rest if not chosen & set(pair)]
        if not rest:
            best[:] = [chosen]
            return
        for name in rest[0]:  # one of the two must be in the set
            search(chosen | {name}, rest)

    search(frozenset(forced), sorted({(min(pair), max(pair)) for pair in pairs}))
    return tuple(sorted(best[0]))


def with_world(
    embeddings: Mapping[str, Embedding],
    pairs: Iterable[tuple[str, str]] = (),
    gathers: Collection[str] = (),
    wire: torch.dtype | None = None,
) -> dict[str, Embedding]:
    """Gives embeddings their `world`: identity and presence of all ranks' rows, and of the fewest embeddings the rows themselves.

    Three collectives, however many pairs there are: the numbers of rows, identities and presence, the rows; and one on the way
    back, which sums what all ranks found for a row. Every rank must call it with the same names, and back-propagate through it.

    Args:
        embeddings: by name, rows of this rank. Those that have their world are left as they are.
        pairs: names that are compared with each other: at least one side's rows are gathered.
        gathers: names whose rows are gathered in any case.
        wire: in which rows travel, such as bfloat16; gradients travel as they are. As they are by default.
    """
    lacking = {name: e for name, e in sorted(embeddings.items()) if e.world is None}
    if not lacking:
        return dict(embeddings)
    if world_size() == 1:
        hosts = _on_host([(e.present, e.group) for e in lacking.values()])
        return {
            **embeddings,
            **{
                n: replace(e, world=World((len(e.pooled),), 0, e.present, e.group, e.pooled, host))
                for (n, e), host in zip(lacking.items(), hosts, strict=True)
            },
        }
    cover = smallest_cover(
        ((a, b) for a, b in pairs if a in lacking and b in lacking), [n for n in gathers if n in lacking]
    )
    counts = _gather_counts([len(e.pooled) for e in lacking.values()], next(iter(lacking.values())).pooled.device)
    identities = _gather_identities(list(lacking.values()), counts)
    own = [lacking[name].pooled for name in cover]
    rows: Sequence[Tensor] = ()
    if cover:
        spans = [counts[list(lacking).index(name)] for name in cover]
        rows = _GatherMany.apply(wire, spans, *own)
    hosts = _on_host(identities)
    found = dict(embeddings)
    for index, (name, embedding) in enumerate(lacking.items()):
        present, group = identities[index]
        pooled = rows[cover.index(name)] if name in cover else None
        world = World(counts[index], sum(counts[index][: rank()]), present, group, pooled, hosts[index])
        found[name] = replace(embedding, world=world)
    return found


def world_of(embedding: Embedding) -> World:
    """Returns the rows of all ranks of an embedding.

    Raises:
        ValueError: if it was not given them: see :func:`with_world`.
    """
    if embedding.world is None:
        raise ValueError(
            "the embedding lacks its `world`: call the objective, not its forward, or use distributed.with_world"
        )
    return embedding.world


def identities_of(world: World) -> RowIdentities:
    """Returns presence and identity of all ranks' rows on the host: what `with_world` fetched, or fetched now."""
    return world.identities if world.identities is not None else _on_host([(world.present, world.group)])[0]


def _on_host(identities: Sequence[tuple[Tensor, Tensor]]) -> list[RowIdentities]:
    """Fetches presence and identity of the rows of several embeddings in one copy."""
    flat = to_host(*(tensor for pair in identities for tensor in pair))
    return [RowIdentities(present, group) for present, group in zip(flat[::2], flat[1::2], strict=True)]


def _gather_counts(own: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
    """Returns, for each of several tensors, how many rows each rank holds."""
    mine = torch.tensor(own, dtype=torch.int64, device=device)
    everyone = mine.new_empty(world_size() * len(own))
    dist.all_gather_into_tensor(everyone, mine)
    return [tuple(column) for column in everyone.view(world_size(), -1).T.tolist()]


def _gather_identities(
    embeddings: Sequence[Embedding], counts: Sequence[tuple[int, ...]]
) -> list[tuple[Tensor, Tensor]]:
    """Returns presence and identity of all ranks' rows, for each embedding."""
    own = [torch.stack((e.present.to(torch.int64), e.group), 1) for e in embeddings]
    return [(part[:, 0].bool(), part[:, 1]) for part in _gather_packed(own, counts)]


def _gather_packed(own: Sequence[Tensor], counts: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Gathers several tensors (n, d) of one dtype in one message; each is padded to the longest rank's rows."""
    longest = [max(count) for count in counts]
    buffer = _pack(own, longest)
    everyone = buffer.new_empty(world_size() * len(buffer))
    dist.all_gather_into_tensor(everyone, buffer)
    parts = everyone.view(world_size(), -1).split([n * t.shape[1] for n, t in zip(longest, own, strict=True)], 1)
    return [
        torch.cat([row.view(-1, t.shape[1])[:n] for row, n in zip(part, count, strict=True)])
        for part, t, count in zip(parts, own, counts, strict=True)
    ]


def _pack(tensors: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    buffer = tensors[0].new_zeros(sum(n * t.shape[1] for n, t in zip(lengths, tensors, strict=True)))
    begin = 0
    for tensor, length in zip(tensors, lengths, strict=True):
        buffer[begin : begin + tensor.numel()] = tensor.flatten()
        begin += length * tensor.shape[1]
    return buffer


class _GatherMany(torch.autograd.Function):
    """All ranks' rows of several tensors (n, D); backwards, each row gets the sum of what the ranks found for it."""

    @staticmethod
    def forward(
        ctx: Any, wire: torch.dtype | None, counts: Sequence[tuple[int, ...]], *own: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.counts = counts
        ctx.save_for_backward(*own)
        if wire is None:
            return tuple(_gather_packed(own, counts))
        return tuple(rows.to(own[0].dtype) for rows in _gather_packed([rows.to(wire) for rows in own], counts))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        longest = [max(count) for count in ctx.counts]
        split = [gradient.split(count) for gradient, count in zip(gradients, ctx.counts, strict=True)]
        buffer = torch.cat([_pack([part[r] for part in split], longest) for r in range(world_size())])
        mine = buffer.new_empty(len(buffer) // world_size())
        dist.reduce_scatter_tensor(mine, buffer)
        parts = mine.split([n * rows.shape[1] for n, rows in zip(longest, ctx.saved_tensors, strict=True)])
        own = (
            part[: rows.numel()].view_as(rows).to(rows.dtype)
            for part, rows in zip(parts, ctx.saved_tensors, strict=True)
        )
        return (None, None, *own)
