"""`peav compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def compare(results: Sequence[str] = (), *, out: Path | None = None, any_protocol: bool = False) -> None:
    """Compare results of peav evaluate: numbers beside each other, and what their differences are worth.

    Differences are to the first result, with 95 % intervals and p-values of a bootstrap that draws the same clips for both. Results that
    were measured differently are refused.

    Args:
        results: files evaluation.json, two or more; what became of each query lies beside them.
        out: folder to write comparison.md and comparison.png to; the table is printed in any case.
        any_protocol: compare also what was measured differently, or on other clips.
    """
    from peav.evaluation.compare import comparison_markdown, read_result

    if len(results) < 2:
        raise ValueError("give two results or more: peav compare A/evaluation.json B/evaluation.json")
    read = [read_result(path) for path in results]
    table = comparison_markdown(read, any_protocol)
    print(table, end="")
    if out is not None:
        from peav.evaluation.plots import comparison_figure

        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.md").write_text(table, encoding="utf-8")
        comparison_figure({f"{n + 1}: {one.name}": one.entries() for n, one in enumerate(read)}).savefig(
            out / "comparison.png", dpi=150
        )
        print(f"wrote {out / 'comparison.md'}, {out / 'comparison.png'}")
