"""Ranks of a large gallery beside the matrix products alone: time in the same run, the most memory that either holds.

    python benchmarks/scoring.py --queries 200000 --items 50000 --dim 1024

Both take embeddings in fp16. What is compared with is the product of the same tiles, whose results nobody reads.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from peav.evaluation.retrieval import SharedPositives
from peav.evaluation.tiles import _Work, rank_in_tiles


def draw(rows: int, dim: int, seed: int) -> torch.Tensor:
    """Makes rows of unit length in fp16, a few at a time."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.empty(rows, dim, dtype=torch.float16)
    for start in range(0, rows, 4096):
        part = torch.randn(min(4096, rows - start), dim, generator=generator)
        found[start : start + 4096] = torch.nn.functional.normalize(part, dim=1).half()
    return found


def main() -> None:
    """Measures, and prints ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    queries, items = draw(arguments.queries, arguments.dim, 0), draw(arguments.items, arguments.dim, 1)
    clips = torch.arange(arguments.queries) % arguments.items
    positives = SharedPositives(
        clips, torch.arange(arguments.items), torch.arange(arguments.queries), torch.arange(arguments.items)
    )
    # Processor time too: on a machine that others use, it says more than the clock.
    taken = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, run in (
        ("product", lambda: [None for _ in _Work(queries, items, 10.0, (1024, 4096)).tiles()]),
        ("plain", lambda: rank_in_tiles(queries, items, positives, dual=False)),
        ("dual", lambda: rank_in_tiles(queries, items, positives)),
    ):
        began, worked = time.perf_counter(), time.process_time()
        run()
        taken[name] = time.perf_counter() - began, time.process_time() - worked
        clock, cpu = (now / then for now, then in zip(taken[name], taken["product"], strict=True))
        print(
            f"{name}: {taken[name][0]:.1f} s, {taken[name][1]:.1f} s of processors: {clock:.2f} and {cpu:.2f} times the product"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"most memory: {peak / 1e6:.2f} GB, of which {before / 1e6:.2f} GB are the embeddings, torch and peav")


if __name__ == "__main__":
    main()
