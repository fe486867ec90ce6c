"""`peav embed`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from peav.cli.printing import counts


def embed(
    media: Sequence[str] = (),
    *,
    model: str,
    out: Path,
    text: Path | None = None,
    to: str | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    window_seconds: float | Literal["model"] | None = "model",
    overlap_seconds: float = 0.0,
    batch_seconds: float = 120.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: str = "auto",
    workers: int | None = None,
    animations: Literal["first", "all"] = "first",
    cover_art: bool = False,
    partial: Literal["keep", "reject"] = "reject",
    trust: bool = False,
) -> None:
    """Embed files of audio, video and pictures, and texts, into one table.

    A file gives what it holds: audio, video, or both and their joint embedding. A still picture is a video of one frame. A run that was
    interrupted goes on where it was when it is started again; until it is done, its results lie in OUT with the suffix .partial. Files
    that cannot be decoded are listed with their reasons in OUT with the suffix .rejects.jsonl.

    The .npz holds `ids` (N,), paths and then texts; for each embedding NAME an array (N, D) and NAME.present (N,), which says which
    rows have it; of frame-level models NAME_frames (frames of all rows, D) and NAME_frames.lengths (N,). The .parquet has the columns
    `id` and NAME, null where a row lacks it.

    For example: peav embed talks/ --model facebook/pe-av-small-16-frame --out talks.npz

    Args:
        media: files, and folders that are searched at any depth for files that end like media. Links to folders are followed, each
            folder once; hidden files and folders are passed over.
        model: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        out: the table to write, .npz or .parquet.
        text: a file of texts, one a line; blank lines are left out.
        to: what the texts describe (`audio`, `video`, `audio_video`, `event`, or another type that the model reads); all of the model's
            heads for texts by default.
        num_frames: video frames a file (or window); the model's own number by default.
        fps: video frames a second, instead.
        window_seconds: longer files are embedded in windows of so many seconds, and averaged; `model` is what the model was trained on,
            `null` embeds whole files.
        overlap_seconds: what neighbouring windows share.
        batch_seconds: seconds of media that go through the model at once; more is faster and takes more memory.
        precision: `auto` is bf16 on GPUs that compute in it and fp32 elsewhere.
        device: `cpu`, `cuda`, ... or `auto`.
        workers: processes that decode; by default the CPUs, at most 8, or none where that is done sooner than they start; 0 for none.
            A file that crashes the decoder costs a process its life, and without processes the command.
        animations: what is taken of GIF, APNG and animated WebP: the `first` picture, or `all` as a video.
        cover_art: take the cover of a file of sound as its picture.
        partial: a file of which one medium cannot be read is left out (`reject`), or embedded without it (`keep`) and noted in OUT with
            the suffix .notes.jsonl.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.embed import EmbedOptions, run_embed

    options = EmbedOptions(
        media=media,
        model=model,
        out=out,
        text=text,
        to=to,
        num_frames=num_frames,
        fps=fps,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        batch_seconds=batch_seconds,
        precision=precision,
        device=device,
        workers=workers,
        animations=animations,
        cover_art=cover_art,
        partial=partial,
        trust=trust,
    )
    report = run_embed(options)
    print(f"wrote {out}: {report.rows} rows; {counts(report.counts)}")
    if report.rejected:
        print(f"{report.rejected} files could not be embedded, for the reasons in {report.rejects}")
    for kind, number in report.lost.items():
        print(f"{number} files were embedded without their {kind}, which could not be read: {report.notes}")
