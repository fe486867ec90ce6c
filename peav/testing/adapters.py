"""The contract of adapters of other models: what evaluation relies on, for anybody's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from peav.evaluation.adapters import EmbeddingAdapter
from peav.testing.rows import require


def check_adapter(
    adapter: EmbeddingAdapter, texts: tuple[str, ...] = ("a dog barks", "rain"), tolerance: float = 1e-4
) -> None:
    """Checks an adapter: rows and dimension, unit length where it says so, the same for an input alone and among others, and twice.

    Args:
        adapter: to check.
        texts: some that differ.
        tolerance: between two ways to make one embedding.

    Raises:
        AssertionError: if the contract is broken; the message says where.
    """
    generator = torch.Generator().manual_seed(0)
    rate, size = adapter.settings.sample_rate, adapter.settings.frame_size
    sounds = [0.1 * torch.randn(seconds * rate // 2, generator=generator) for seconds in (1, 3, 2)]
    videos = [torch.randint(256, (count, 3, *size), dtype=torch.uint8, generator=generator) for count in (2, 1, 3)]
    kinds: dict[str, list[Any]] = {"audio": sounds, "video": videos, "text": list(texts)}
    require(
        bool(adapter.embeds) and set(adapter.embeds) <= set(kinds),
        f"embeds must be of {', '.join(kinds)}, it is {adapter.embeds!r}",
    )
    adapter.eval()
    for kind in adapter.embeds:
        given = kinds[kind]
        embed = partial(adapter.embed, kind)
        with torch.inference_mode():
            found = embed(given)
            again = embed(given)
            alone = torch.cat([embed([one]) for one in given])
        require(
            tuple(found.shape) == (len(given), adapter.embedding_dim),
            f"{kind}: made {tuple(found.shape)} of {len(given)} inputs",
        )
        require(bool(torch.isfinite(found).all()), f"{kind}: an embedding is not finite")
        require(torch.equal(found, again), f"{kind}: the second time gives another embedding")
        require(
            bool((found - alone).abs().max() <= tolerance),
            f"{kind}: an input alone gives another embedding than among others",
        )
        require(bool((found[0] - found[1]).abs().max() > tolerance), f"{kind}: different inputs give one embedding")
        if adapter.normalize:
            require(
                bool((found.norm(dim=1) - 1).abs().max() < 1e-3),
                f"{kind}: embeddings lack unit length, normalize says they have it",
            )
