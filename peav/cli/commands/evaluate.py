"""`peav evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal


def evaluate(
    model: str,
    prepared: Path | None = None,
    *,
    suite: str | None = None,
    data: Path | None = None,
    published: str | None = None,
    out: Path | None = None,
    split: str = "test",
    control: Path | None = None,
    before: str = "start",
    adapter: str | None = None,
    adapter_options: dict[str, Any] | None = None,
    cache: Path | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    window_seconds: float | None = None,
    batch_size: int = 64,
    num_workers: int = 2,
    devices: int = 1,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    keep: Literal["fp32", "fp16"] = "fp32",
    trust: bool = False,
) -> None:
    """Measure retrieval in every direction and frame AUROC, and write a report.

    Writes evaluation.json, evaluation.md, report.html and overview.png. Embeddings are kept by content: a run that was interrupted
    goes on where it was, and the next one of the same model and clips embeds nothing.

    Args:
        model: a .ckpt of `peav fit`; a folder in Meta's format, transformers' or peav's; a repository of the hub; or a model of another
            family that an adapter knows.
        prepared: folder that `peav prepare` wrote; left out with --suite.
        suite: tasks to run on published data sets, as their authors lay them out: `paper`, `sound`, `music`, `speech`, `video`, `frames`,
            or a YAML file (docs/evaluation.md). What is missing is said, nothing is downloaded.
        data: for --suite, the folder in which the data sets lie, each in a folder of its own.
        published: the published model to stand beside; by default the one of the same name, else the last that a task lists.
        out: folder to write; the folder above a checkpoint's by default, runs/evaluate/NAME for other models.
        split: `train`, `validation` or `test`.
        control: a checkpoint of the same run with `--data.shuffle_pairing=true`, whose numbers must be at chance.
        before: the model whose retrieval stands beside, with a bootstrap that draws the same clips for both: what training must not have
            cost. `start` is the checkpoint that a run began from (`init_from`), if it lies on this machine; `none` for none.
        adapter: for a model of another family, the adapter's name (`peav plugins`); what its config.json says decides by default.
        adapter_options: arguments of the adapter.
        cache: folder of the embeddings; `embeddings` in OUT by default.
        num_frames: video frames a clip, in place of the model's setting. Meta's format knows 16 and all of them.
        fps: video frames a second, instead.
        window_seconds: longer clips are embedded in windows, and averaged; whole by default.
        batch_size: clips at once.
        num_workers: processes that decode, on each device; with --suite those that pack, too.
        devices: how many embed; torchrun's processes share the work, too.
        device: `cpu`, `cuda`, ... or `auto`.
        precision: `auto` is bf16 on GPUs that compute in it and fp32 elsewhere.
        keep: the numbers in which embeddings are kept.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.evaluate import EvaluateOptions, run_evaluation
    from peav.cli.evaluate_model import ModelChoice
    from peav.evaluation.collect import PassOptions

    choice = ModelChoice(model, adapter, device, precision, trust, adapter_options or {}, num_frames, fps)
    how = PassOptions(window_seconds, 0.0, batch_size, num_workers, keep)
    if suite is not None:
        from peav.cli.evaluate_suite import SuiteOptions, run_suite_command

        if data is None or prepared is not None:
            raise ValueError("--suite needs --data ROOT, the folder in which the data sets lie, and no prepared folder")
        if control is not None or before not in ("start", "none") or window_seconds is not None:
            raise ValueError(
                "--control, --before and --window_seconds are not for --suite: its tasks say how clips are sampled, and peav compare "
                "compares two results"
            )
        options = SuiteOptions(choice, suite, data, out, cache, published, devices, num_workers, how)
        folder = run_suite_command(options)
        if folder is not None:
            print(f"wrote {folder / 'evaluation.json'}, {folder / 'evaluation.md'}, {folder / 'report.html'}")
        return
    if prepared is None:
        raise ValueError("give the folder that `peav prepare` wrote; or --suite NAME and --data ROOT")
    if data is not None or published is not None:
        raise ValueError("--data and --published are for --suite")
    folder = run_evaluation(EvaluateOptions(choice, prepared, out, split, control, before, cache, devices, how))
    if folder is not None:
        print(f"wrote {folder / 'evaluation.json'}, {folder / 'report.html'}")
