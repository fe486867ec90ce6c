"""FrameAlignment beside its matrix products alone, and beside plain PyTorch: forward and backward, from the same embeddings.

The first table is of 256 clips x 1,280 phrases x 250 frames, whose logits would take 328 MB: time over that of the products (forward, and
the two of the backward pass, in blocks of 1,024), and the peak of memory beyond the inputs and beyond their gradient. The second is
of a size at which plain PyTorch can hold logits and labels (clips, phrases, frames) at once. All run in turn in one process. Run it with
nothing else running: `python benchmarks/frame_alignment.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from measure import peak_megabytes, timed
from torch import Tensor

from peav.objectives import FrameAlignment
from peav.objectives.event_frames import event_labels
from peav.types import Embedding, EventInput, TextInput

SECONDS, HOP, EVENTS_A_CLIP, BLOCK = 10.0, 0.04, 5, 1024

#: What is told of the clips, and how the objective is set.
KINDS: dict[str, dict[str, Any]] = {
    "strong": {},
    "positive_weight=4": {"positive_weight": 4.0},
    "every kind": {"positive_weight": 4.0, "bank_weight": 0.5, "inactive_weight": 2.0},
    "every kind, attention": {"pooling": "attention"},
    "strong, per_text": {"per_text": True},
}


def make_events(clips: int, phrases: int, every_kind: bool) -> EventInput:
    """Five events of 0 to 2 s a clip; with `every_kind` a third of them weak, soft labels, four vocabularies, a hierarchy and a bank."""
    number = EVENTS_A_CLIP * clips
    text = TextInput(
        torch.zeros(phrases, 1).long(), torch.ones(phrases, 1).bool(), torch.ones(phrases).bool(), torch.arange(phrases)
    )
    phrase = torch.randint(0, phrases, (number,))
    onset = torch.rand(number) * (SECONDS - 2)
    events = EventInput(
        text,
        torch.ones(clips).bool(),
        torch.arange(number) % clips,
        phrase,
        onset,
        onset + 2 * torch.rand(number),
    )
    if not every_kind:
        return events
    lineage = torch.full((phrases, 6), -1)
    lineage[:, 0] = torch.arange(phrases)
    for level in range(1, 5):  # a tree of which each node has four children
        lineage[:, level + 1] = torch.where(lineage[:, 0] >= 4**level, lineage[:, 0] // 4**level, -1)
    return replace(
        events,
        confidence=torch.tensor([1.0, 1.0, 0.6, 0.0])[torch.randint(0, 4, (number,))],
        timed=torch.rand(number) > 1 / 3,
        vocabulary=torch.randint(-2, 4, (clips,)),
        members=torch.rand(phrases, 4) < 0.3,
        lineage=lineage,
        bank=~torch.isin(torch.arange(phrases), phrase),
    )


class Case:
    """One batch and the functions that are compared on it."""

    def __init__(self, kind: str, clips: int, phrases: int, dim: int) -> None:
        torch.manual_seed(0)
        self.frames = int(SECONDS / HOP)
        self.events = make_events(clips, phrases, kind.startswith("every kind"))
        self.values = F.normalize(torch.randn(clips, self.frames, dim), dim=-1).requires_grad_()
        self.texts = F.normalize(torch.randn(phrases, dim), dim=-1).requires_grad_()
        self.objective = FrameAlignment(embedding_dim=dim, **KINDS[kind])
        self.mask = torch.ones(clips, self.frames, dtype=torch.bool)

    def leaves(self) -> list[Tensor]:
        return [self.values, self.texts, *self.objective.parameters()]

    def ours(self) -> list[Tensor]:
        every = torch.ones(len(self.values), dtype=torch.bool)
        media = Embedding(self.values[:, 0], every, torch.arange(len(every)), self.values, self.mask, HOP)
        words = Embedding(self.texts, self.events.phrases.present, self.events.phrases.group)
        loss = self.objective({"audio": media, "text_event": words}, {"events": self.events}).loss
        return [loss.detach(), *torch.autograd.grad(loss, self.leaves())]

    def plain(self) -> list[Tensor]:
        """Of strong labels alone, as one writes it first."""
        labels = event_labels(self.events, self.frames, HOP).float()
        scale, bias = self.objective.logit_scale.exp(), self.objective.logit_bias
        logits = scale * torch.einsum("atd,kd->akt", self.values, self.texts) + bias
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        return [loss.detach(), *torch.autograd.grad(loss, self.leaves())]

    def products(self) -> None:
        rows, columns = self.values.detach().flatten(0, 1), self.texts.detach()
        d_rows, d_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        for begin in range(0, len(rows), BLOCK):
            some = slice(begin, begin + BLOCK)
            for first in range(0, len(columns), BLOCK):
                others = slice(first, first + BLOCK)
                logits = rows[some] @ columns[others].T
                d_rows[some].addmm_(logits, columns[others])
                d_columns[others].addmm_(logits.T, rows[some])

    @property
    def gradient_megabytes(self) -> float:
        return sum(leaf.numel() * leaf.element_size() for leaf in self.leaves()) / 1e6


def beside_products(clips: int, phrases: int, dims: tuple[int, ...], repeats: int) -> None:
    """Prints a line for each kind and dimension."""
    print(
        "| D | labels | CPU, s | products, s | ratio | peak, MB | without gradient, MB |\n|---:|---|---:|---:|---:|---:|---:|"
    )
    for dim in dims:
        for kind in KINDS:
            case = Case(kind, clips, phrases, dim)
            times = timed({"ours": case.ours, "products": case.products}, repeats, "cpu")
            peak = peak_megabytes(case.ours, "cpu")
            (_, ours), (_, products) = times["ours"], times["products"]
            print(
                f"| {dim} | {kind} | {ours:.2f} | {products:.2f} | {ours / products:.2f} | {peak:.0f} | "
                f"{peak - case.gradient_megabytes:.0f} |",
                flush=True,
            )


def beside_pytorch(clips: int, phrases: int, dim: int, repeats: int) -> None:
    """Prints a line for plain PyTorch and for ours, which must give the same."""
    case = Case("strong", clips, phrases, dim)
    expected, found = case.plain(), case.ours()
    worst = max(float((a - b).norm() / a.norm()) for a, b in zip(expected, found, strict=True))
    if worst > 1e-4:
        raise SystemExit(f"the losses or their gradients differ by {worst:.2g}, relatively")
    runs: dict[str, Callable[[], object]] = {"PyTorch": case.plain, "peav": case.ours}
    times = timed(runs, repeats, "cpu")
    print(f"\n{clips} clips x {phrases} phrases x {case.frames} frames, D = {dim}, strong labels:\n")
    print("| | wall, s | CPU, s | peak, MB |\n|---|---:|---:|---:|")
    for name, run in runs.items():
        wall, cpu = times[name]
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {peak_megabytes(run, 'cpu'):.0f} |", flush=True)
    print(f"\nLargest relative difference of the loss or a gradient: {worst:.1e}")


def main(
    clips: int = 256,
    phrases: int = 1280,
    dims: tuple[int, ...] = (256, 1024),
    repeats: int = 3,
    threads: int = 1,
) -> None:
    """Compares.

    Args:
        clips: of the first table; the second has a quarter.
        phrases: likewise.
        dims: dimensions of the shared space; the second table has the first of them.
        repeats: rounds after one that warms up; medians are printed.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    print(f"{clips} clips x {phrases} phrases x {int(SECONDS / HOP)} frames, {threads} threads:\n")
    beside_products(clips, phrases, dims, repeats)
    beside_pytorch(max(clips // 4, 1), max(phrases // 4, 1), dims[0], repeats)


if __name__ == "__main__":
    auto_cli(main)
