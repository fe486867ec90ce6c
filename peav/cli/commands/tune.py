"""`peav tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def tune(
    model: str,
    data: Path,
    *,
    out: Path,
    split: str = "validation",
    matching: Literal["collar", "segments", "intersection"] = "intersection",
    threshold: float = 0.3,
    low_threshold: float | None = None,
    median_seconds: float = 0.0,
    merge_seconds: float = 0.0,
    min_seconds: float = 0.0,
    window_seconds: float | None = None,
    overlap_seconds: float | None = None,
    batch_seconds: float = 120.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: str = "auto",
    trust: bool = False,
) -> None:
    """Tune the threshold of each phrase on a validation split, and store it with the model.

    Writes the model in peav's format, with the thresholds and the other settings of detection that are given here, by which the
    thresholds are chosen; `peav detect` and `PEAV.detect` then use them. Phrases without events in the split get --threshold.

    For example: peav tune runs/mine/checkpoints/last.ckpt my_data --out my_detector --median_seconds 0.2

    Args:
        model: a frame-level model: a .ckpt of `peav fit`, a folder in Meta's format, transformers' or peav's, or a repository of the hub.
        data: folder that `peav prepare` wrote, with events.
        out: folder to write.
        split: `validation`; another is for those who know why.
        matching: what counts as found: `collar` (onset and offset within 0.2 s), `segments` (of 1 s) or `intersection` (half of it).
        threshold: of phrases that are not tuned.
        low_threshold: a span reaches on over frames above this lower one; none by default.
        median_seconds: length of a median filter over the probabilities.
        merge_seconds: shorter gaps are closed.
        min_seconds: shorter spans are dropped.
        window_seconds: longest piece that is heard at once; what the model was trained on by default.
        overlap_seconds: what neighbouring windows share; a sixth of a window by default.
        batch_seconds: seconds of sound that go through the model at once.
        precision: `auto` is bf16 on GPUs that compute in it and fp32 elsewhere.
        device: `cpu`, `cuda`, ... or `auto`.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from rich.console import Console
    from rich.progress import track

    from peav.checkpoints import DetectionSettings
    from peav.devices import resolve_device
    from peav.evaluation.collect import Split
    from peav.evaluation.detection import Collar, Intersection, Segments
    from peav.evaluation.detection.counts import Matching
    from peav.evaluation.tune_detection import tune_detection
    from peav.inputs import check_detects
    from peav.model import PEAV

    if out.exists():
        raise ValueError(f"{out} is there already: choose another --out")
    settings = DetectionSettings(
        threshold=threshold,
        thresholds={},
        low_threshold=low_threshold,
        median_seconds=median_seconds,
        merge_seconds=merge_seconds,
        min_seconds=min_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
    )
    matchings: dict[str, Matching] = {"collar": Collar(), "segments": Segments(), "intersection": Intersection()}
    loaded = PEAV.from_pretrained(model, trust=trust).to(resolve_device(device))
    check_detects(loaded)
    tuned = tune_detection(
        loaded,
        Split(data, split),
        settings,
        matchings[matching],
        precision,
        batch_seconds,
        lambda clips, count: track(clips, "listening", count, console=Console(stderr=True)),
    )
    loaded.detection = tuned.settings
    loaded.save_pretrained(out)
    print(f"wrote {out}: thresholds of {len(tuned.f1)} phrases, tuned on {tuned.clips} clips of the {split} split")
    if tuned.f1:
        print(f"mean {matching} F1 there, which flatters: {sum(tuned.f1.values()) / len(tuned.f1):.3f}")
    if tuned.untuned:
        print(
            f"{len(tuned.untuned)} phrases were found at no threshold and keep {threshold:g}: {', '.join(tuned.untuned)[:200]}"
        )
