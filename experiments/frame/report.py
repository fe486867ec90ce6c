"""Tabulates what `make demo-frame` reached: FOLDER/frame.md.

python experiments/frame/report.py runs/demo/evaluation.json runs/demo/frame
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

#: What is reported of frames, by name in evaluation.json.
METRICS = {"psds1": "PSDS1", "psds1_alpha_st_0": "PSDS1, alpha_st = 0", "psds2": "PSDS2", "event_f1": "event F1"}

#: The runs of a folder, and what they learned from.
RUNS = {
    "strong": "strong labels, from the demo's model",
    "weak": "weak labels alone, from scratch",
    "unspoken": "four phrases that no event of training names, from scratch",
    "spoken": "the same four, by the model that was told of them",
}


def read(path: Path) -> dict[str, Any]:
    """Reads an evaluation.json."""
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def frame_row(name: str, evaluation: dict[str, Any]) -> str:
    """Returns a line of the table of frames."""
    frames = evaluation["frames"]
    values = [frames["macro"], *(frames["metrics"].get(metric) for metric in METRICS)]
    cells = ["-" if value is None else f"{value:.3f}" for value in values]
    return f"| {name} | {' | '.join(cells)} |"


def retrieval_rows(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Returns a line a direction: R@1 before, after, and the difference in points."""
    rows = []
    for name, found in before["directions"].items():
        first, second = (100 * each["plain"]["R@1"] for each in (found, after["directions"][name]))
        rows.append(f"| {name} | {first:.1f} | {second:.1f} | {second - first:+.1f} |")
    return rows


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    before = read(args.before)
    found = {name: read(args.folder / name / "evaluation.json") for name in RUNS}
    lines = [f"| trained on | frame AUROC | {' | '.join(METRICS.values())} |", "|---|" + "---:|" * (1 + len(METRICS))]
    lines += [frame_row("the demo", before), *(frame_row(text, found[name]) for name, text in RUNS.items())]
    lines += ["", "| retrieval, R@1 % | the demo | after strong labels | points |", "|---|---:|---:|---:|"]
    lines += retrieval_rows(before, found["strong"])
    (args.folder / "frame.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
