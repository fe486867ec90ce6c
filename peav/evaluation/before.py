"""Retrieval before and after: what training that went on from a checkpoint did to what the checkpoint could do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from peav.evaluation.compare import Difference, paired_difference
from peav.evaluation.directions import Evaluation
from peav.evaluation.intervals import Queries

#: Headings of the rows of `BeforeAfter.rows`.
COLUMNS = ("direction", "R@1 before", "R@1 after", "difference", "95 % interval", "p")


@dataclass(frozen=True)
class BeforeAfter:
    """R@1 of two models on the same clips.

    Attributes:
        name: of the model before.
        path: where it is.
        differences: of the directions that both have, after minus before.
        lost: directions that only the model before has.
    """

    name: str
    path: str
    differences: list[Difference] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        name: str,
        path: str,
        before: tuple[Evaluation, dict[str, Queries]],
        after: tuple[Evaluation, dict[str, Queries]],
        clip_ids: Sequence[str],
    ) -> BeforeAfter:
        """Compares two evaluations of one split, by a bootstrap that draws the same clips for both.

        Args:
            name: of the model before.
            path: where it is.
            before: its evaluation, and what became of its queries.
            after: likewise, of the model that went on from it.
            clip_ids: of the split, which both number alike.
        """
        first, second = before[0].directions, after[0].directions
        found = [
            paired_difference(
                direction,
                (first[direction].plain["R@1"], second[direction].plain["R@1"]),
                (before[1].get(direction), after[1].get(direction)),
                (clip_ids, clip_ids),
            )
            for direction in second
            if direction in first
        ]
        return cls(name, path, found, [direction for direction in first if direction not in second])

    @property
    def fallen(self) -> list[Difference]:
        """Directions whose interval lies below zero."""
        return [found for found in self.differences if found.interval is not None and found.interval[1] < 0]

    def rows(self) -> list[tuple[str, ...]]:
        """Returns a row a direction, numbers in percent and percentage points."""
        rows: list[tuple[str, ...]] = []
        for found in self.differences:
            interval = p = "–"
            if found.interval is not None and found.p_value is not None:
                interval = f"{100 * found.interval[0]:+.1f} to {100 * found.interval[1]:+.1f}"
                p = f"{found.p_value:.3f}"
            change = 100 * (found.second - found.first)
            rows.append(
                (found.name, f"{100 * found.first:.1f}", f"{100 * found.second:.1f}", f"{change:+.1f}", interval, p)
            )
        return rows

    def sentence(self) -> str:
        """Says what became of retrieval."""
        if not self.differences:
            text = f"Retrieval is not kept: no direction of {self.name} is left."
        elif self.fallen:
            fell = (f"{found.name} by {100 * (found.first - found.second):.1f} points" for found in self.fallen)
            text = f"Retrieval fell since {self.name}, beyond what chance over the clips explains: {', '.join(fell)}."
        else:
            text = f"In no direction did R@1 fall since {self.name} beyond what chance over the clips explains."
        if self.lost:
            text += f" No longer trained, and so not compared: {', '.join(self.lost)}."
        return text

    def to_markdown(self) -> str:
        """Returns the table and the sentence."""
        lines = [" | ".join(COLUMNS), "|".join(["---", *["---:"] * (len(COLUMNS) - 1)]), *map(" | ".join, self.rows())]
        table = "".join(f"| {line} |\n" for line in lines) if self.differences else ""
        return f"\n## Retrieval before and after\n\n{table}\n{self.sentence()}\n"

    def to_rich(self) -> Table:
        """Returns the table for a terminal."""
        table = Table(title="Retrieval before and after, %", caption=self.sentence(), min_width=100)
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == COLUMNS[0] else "right")
        for row in self.rows():
            table.add_row(*row)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON data."""
        return asdict(self)
