"""Gathers on two ranks with uneven rows, and on one process."""

from __future__ import annotations

import torch

from peav.distributed import gather_rows, rank, row_counts, sum_over_ranks, world_size
from peav.masking import lengths_to_mask, mask_to_lengths, masked_mean
from peav.testing import GlooPool


def gather_uneven(rank_: int) -> dict[str, object]:
    rows = torch.full((rank_ + 1, 2), float(rank_), requires_grad=True)
    counts = row_counts(len(rows))
    everything = gather_rows(rows, counts)
    # each rank weighs the rows differently; the owner must see the sum of the weights
    (everything * (rank_ + 1)).sum().backward()
    return {
        "rank": rank(),
        "world_size": world_size(),
        "counts": counts,
        "rows": everything.detach(),
        "grad": rows.grad,
        "mask": gather_rows(torch.tensor([rank_ == 0] * (rank_ + 1)), counts),
        "ids": gather_rows(torch.arange(rank_ + 1) + 10 * rank_, counts),
        "sum": sum_over_ranks(torch.tensor(rank_ + 1)),
    }


def test_gathers_are_uneven_ordered_and_differentiable(gloo: GlooPool) -> None:
    found = gloo.run(gather_uneven)
    for index, part in enumerate(found):
        assert (part["rank"], part["world_size"], part["counts"]) == (index, 2, [1, 2])
        assert part["rows"].tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
        assert part["mask"].tolist() == [True, False, False]
        assert part["ids"].tolist() == [0, 10, 11]
        assert int(part["sum"]) == 3
        assert (part["grad"] == 3).all()


def test_one_process_needs_no_group() -> None:
    rows = torch.randn(3, 2)
    assert gather_rows(rows) is rows
    assert (rank(), world_size(), row_counts(3)) == (0, 1, [3])


def test_masked_mean_ignores_nan_in_padding_and_empty_rows() -> None:
    values = torch.tensor([[[1.0], [3.0], [torch.nan]], [[torch.nan]] * 3])
    mask = lengths_to_mask(torch.tensor([2, 0]), 3)
    assert masked_mean(values, mask).tolist() == [[2.0], [0.0]]
    assert mask_to_lengths(mask).tolist() == [2, 0]
