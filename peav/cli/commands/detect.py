"""`peav detect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def detect(
    media: Sequence[str] = (),
    *,
    text: Sequence[str] = (),
    texts: Path | None = None,
    out: Path = Path("detections.json"),
    plot: Path | None = None,
    model: str = "facebook/pe-a-frame-small",
    threshold: float | Literal["model"] = "model",
    low_threshold: float | Literal["model"] | None = "model",
    median_seconds: float | Literal["model"] = "model",
    merge_seconds: float | Literal["model"] = "model",
    min_seconds: float | Literal["model"] = "model",
    window_seconds: float | Literal["model"] | None = "model",
    overlap_seconds: float | Literal["model"] = "model",
    batch_seconds: float = 120.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: str = "auto",
    workers: int | None = None,
    trust: bool = False,
) -> None:
    """Find when sounds are heard in files of any length, by their names.

    A run that was interrupted goes on where it was when it is started again; until it is done, its results lie in OUT with the suffix
    .partial. Files that cannot be heard are listed with their reasons in OUT with the suffix .rejects.jsonl. `model` for a setting is what
    the checkpoint was tuned to, or the default where it says nothing (docs/frame_level.md).

    OUT ends in .json, .tsv (the columns of DCASE), .rttm, .vtt (WebVTT) or .txt (a label track of Audacity). The last two hold one file:
    for several there is one for each in the folder OUT without its suffix, and so for pictures.

    For example: peav detect street.mp4 --text "dog barking" --text siren --out street.json --plot street.png

    Args:
        media: files of sound or video, and folders that are searched at any depth for files that end like media.
        text: the name of a sound; give it as often as there are sounds.
        texts: a file of such names, one a line; after a tab there may stand a threshold.
        out: the file to write.
        plot: a .png to draw: the spectrogram (of a video frames above it), and each text's probability over time and its spans.
        model: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        threshold: probability above which a frame holds the sound; by default 0.3, that of the released models.
        low_threshold: a span reaches on over frames above this lower one; `null` for none, the default.
        median_seconds: length of a median filter over the probabilities; 0 by default.
        merge_seconds: shorter gaps are closed; 0 by default.
        min_seconds: shorter spans are dropped; 0 by default.
        window_seconds: longest piece that is heard at once; by default what the model was trained on; `null` for whole files.
        overlap_seconds: what neighbouring windows share; a sixth of a window by default.
        batch_seconds: seconds of sound that go through the model at once; more is faster on a GPU and takes more memory.
        precision: `auto` is bf16 on GPUs that compute in it and fp32 elsewhere.
        device: `cpu`, `cuda`, ... or `auto`.
        workers: processes that decode; by default the CPUs, at most 8, or none where that is done sooner than they start; 0 for none.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.detect import DetectOptions, run_detection

    options = DetectOptions(
        media=media,
        text=text,
        texts=texts,
        model=model,
        out=out,
        plot=plot,
        threshold=threshold,
        low_threshold=low_threshold,
        median_seconds=median_seconds,
        merge_seconds=merge_seconds,
        min_seconds=min_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        batch_seconds=batch_seconds,
        precision=precision,
        device=device,
        workers=workers,
        trust=trust,
    )
    report = run_detection(options)
    written = report.written[0] if len(report.written) == 1 else f"{len(report.written)} files in {out.with_suffix('')}"
    print(f"wrote {written}: {report.spans} spans in {report.files} files of {report.seconds:.1f} s")
    if report.tuned:
        print(f"{report.tuned} texts have the threshold that the checkpoint was tuned to")
    if report.pictures:
        print(f"drew {report.pictures[0]}" + (f" and {len(report.pictures) - 1} more" if report.pictures[1:] else ""))
    if report.rejected:
        print(f"{report.rejected} files could not be heard, for the reasons in {report.rejects}")
