"""Our pair loss beside open_clip's SigLipLoss: one pair and the ten of PE-AV, forward and backward, from the same embeddings.

The two run in turn in one process; memory is the peak beyond the embeddings. open_clip comes from its own package, for this benchmark
alone: `pip install -e '.[bench]'`. Run it with nothing else running: `python benchmarks/pair_loss.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from measure import peak_megabytes, timed
from open_clip.loss import SigLipLoss
from torch import Tensor

from peav.checkpoints import TEN_PAIRS
from peav.objectives.functional import PairMask, sigmoid_pair_loss

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def peav_loss(left: Tensor, right: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """As in training: with presence and identities, of which none repeats."""
    present, ids = torch.ones(len(left), dtype=torch.bool), torch.arange(len(left))
    mask = PairMask(present, present, (ids, ids), (ids, ids))
    return sigmoid_pair_loss(left, right, log_scale, bias, mask=mask)


def open_clip_loss(left: Tensor, right: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    return SigLipLoss()(left, right, log_scale.exp(), bias)


def compare(batch: int, dim: int, num_pairs: int, repeats: int) -> None:
    """Prints a line for each loss and one of ratios."""
    pairs = TEN_PAIRS[:num_pairs]
    names = sorted({name for pair in pairs for name in pair})
    torch.manual_seed(0)
    embeddings = {name: F.normalize(torch.randn(batch, dim), dim=1).requires_grad_() for name in names}
    scores = [(torch.tensor([math.log(10.0)]), torch.tensor([-10.0])) for _ in pairs]
    leaves = [*embeddings.values(), *(value.requires_grad_() for score in scores for value in score)]

    def step(loss: Loss) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            total = torch.stack(
                [loss(embeddings[a], embeddings[b], *score) for (a, b), score in zip(pairs, scores, strict=True)]
            ).sum()
            for leaf in leaves:
                leaf.grad = None
            total.backward()
            return [total.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

        return run

    runs = {"open_clip": step(open_clip_loss), "peav": step(peav_loss)}
    expected, found = [value.clone() for value in runs["open_clip"]()], runs["peav"]()
    worst = max(float((a - b).norm() / a.norm()) for a, b in zip(expected, found, strict=True))
    if worst > 1e-4:
        raise SystemExit(f"the losses or their gradients differ by {worst:.2g}, relatively")
    del expected, found
    times = timed({name: run for name, run in runs.items()}, repeats, "cpu")
    peaks = {name: peak_megabytes(run, "cpu") for name, run in runs.items()}
    for name in runs:
        wall, cpu = times[name]
        print(f"| {num_pairs} | {batch} | {name} | {wall:.3f} | {cpu:.3f} | {peaks[name]:.0f} | |", flush=True)
    (wall, cpu), (their_wall, their_cpu) = times["peav"], times["open_clip"]
    memory = peaks["peav"] / peaks["open_clip"]
    print(
        f"| {num_pairs} | {batch} | **peav / open_clip** | **{wall / their_wall:.2f}** | **{cpu / their_cpu:.2f}** "
        f"| **{memory:.3f}** | {worst:.1e} |",
        flush=True,
    )


def main(
    batches: tuple[int, ...] = (1024, 4096, 8192),
    pairs: tuple[int, ...] = (1, 10),
    dim: int = 1024,
    repeats: int = 3,
    threads: int = 2,
) -> None:
    torch.set_num_threads(threads)
    print(
        "| pairs | batch | | wall, s | CPU, s | peak, MB | largest relative difference |\n|---:|---:|---|---:|---:|---:|---:|"
    )
    for num_pairs in pairs:
        for batch in batches:
            compare(batch, dim, num_pairs, repeats)


if __name__ == "__main__":
    auto_cli(main)
