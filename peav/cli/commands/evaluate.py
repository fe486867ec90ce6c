"""`peav evaluate`."""

from __future__ import annotations

from pathlib import Path


def evaluate(
    checkpoint: Path,
    data: Path,
    *,
    out: Path | None = None,
    split: str = "test",
    control: Path | None = None,
    batch_size: int = 64,
    num_workers: int = 2,
    device: str = "auto",
    trust: bool = False,
) -> None:
    """Measure retrieval in every direction and frame AUROC, and write a report.

    Writes evaluation.json, evaluation.md, report.html and overview.png.

    Args:
        checkpoint: a checkpoint of `peav fit`.
        data: folder that `peav prepare` wrote.
        out: folder to write; the folder above the checkpoint's by default.
        split: `train`, `validation` or `test`.
        control: a checkpoint of the same run with `--data.shuffle_pairing=true`, whose numbers must be at chance.
        batch_size: clips at once.
        num_workers: processes that decode.
        device: `cpu`, `cuda`, ... or `auto`.
        trust: let the checkpoint name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.evaluate import run_evaluation

    folder = run_evaluation(checkpoint, data, out, split, control, batch_size, num_workers, device, trust)
    print(f"wrote {folder / 'evaluation.json'}, {folder / 'report.html'}")
