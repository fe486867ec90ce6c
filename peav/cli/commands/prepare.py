"""`peav prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from peav.cli.printing import counts
from peav.data.readers import Reader


def prepare(
    source: Path,
    out: Path | None = None,
    *,
    captions: str = "clips.jsonl",
    reader: Reader | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    min_seconds: float = 0.1,
    max_caption_words: int = 1000,
    chunk_seconds: float | None = 30.0,
    chunk_captions: Literal["copy", "drop"] = "copy",
    normalize: bool = False,
    normalize_size: int = 336,
    normalize_fps: float = 30.0,
    audio_codec: Literal["flac", "opus"] = "flac",
    check_video: bool = True,
    still_seconds: float = 1.0,
    animations: Literal["first", "all"] = "first",
    cover_art: bool = False,
    partial: Literal["keep", "reject"] = "reject",
    vocab_size: int = 2048,
    chunk_bytes: int = 64 << 20,
    features: dict[str, str] | None = None,
    model: str | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    batch_size: int = 8,
    num_frames: int | None = None,
    fps: float | None = None,
    sampling: Literal["time", "index"] | None = None,
    trust: bool = False,
) -> None:
    """Turn a folder of media with captions into a Lhotse manifest and LitData shards, and run frozen frontends over it once.

    A call that was killed, or found the disk full, goes on where it was when it is given again. `peav prepare DATA --features
    audio=dac video=pe --model MODEL` makes features of a folder that was prepared before.

    Args:
        source: folder that holds the media; or one that was prepared, when OUT is left out.
        out: folder to write.
        captions: JSONL file of the clips, relative to `source` or absolute; docs/data.md lists its fields.
        reader: of a data set as its authors published it, such as `AudioCaps`, in place of `captions`.
        workers: processes that check the media; the CPUs by default.
        overwrite: replace what an earlier run left in `out`.
        strict: stop at the first record or file that cannot be used.
        min_seconds: shorter clips are left out.
        max_caption_words: longer captions are dropped.
        chunk_seconds: longer recordings are cut into clips of so many seconds, and a rest below 1 s is dropped; 0 leaves them whole.
        chunk_captions: whether the clips of a recording all get its captions without times (`copy`), or none does (`drop`).
        normalize: re-encode clips to small square frames with many key frames, and aligned sound at 48 kHz; decodes 4 times faster.
        normalize_size: height and width of these frames, pixels.
        normalize_fps: frames a second.
        audio_codec: of this sound: `flac`, lossless, or `opus`.
        check_video: decode all video with every error fatal, the only way to notice damaged frames.
        still_seconds: duration of a clip that is nothing but a still picture; beside sound a still lasts as long as the sound.
        animations: what is taken of GIF, APNG and animated WebP: the `first` picture, or `all` as a video.
        cover_art: take the cover of a file of sound as its picture.
        partial: a clip of which one medium cannot be read is left out (`reject`), or kept without it and noted (`keep`).
        vocab_size: tokens of the tokenizer that is trained on the training texts.
        chunk_bytes: size of a file of the shards, bytes.
        features: frozen frontends to run, by medium: audio=dac video=pe.
        model: whose frontends they are: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of
            the hub.
        accelerator: what runs them: `auto`, `cpu`, `cuda`, ...
        devices: how many.
        precision: of the frontends.
        batch_size: clips that go through them at once.
        num_frames: video frames a clip for them; the model's own number by default.
        fps: video frames a second, instead.
        sampling: which frames: `index`, Meta's rule, or `time`; the model's rule by default.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    if features is not None and model is None:
        raise ValueError("--features needs --model: the frontends' weights are a model's")
    if out is None and features is None:
        raise ValueError(
            "give OUT, the folder to write; it may be left out only with --features, for a prepared SOURCE"
        )
    from peav.data.media.normalize import Normalize
    from peav.data.packing.prepare import prepare as run
    from peav.data.packing.report import describe_coverage, describe_partial

    how = Normalize(normalize_size, normalize_fps, audio_codec=audio_codec)
    if not normalize and how != Normalize():
        raise ValueError(
            "--normalize_size, --normalize_fps and --audio_codec say how to normalize: give --normalize true too"
        )
    if out is not None:
        report = run(
            source,
            out,
            captions,
            workers,
            overwrite,
            strict,
            min_seconds,
            max_caption_words,
            check_video,
            vocab_size,
            chunk_bytes,
            chunk_seconds=chunk_seconds,
            chunk_captions=chunk_captions,
            normalize=how if normalize else None,
            reader=reader,
            still_seconds=still_seconds,
            animations=animations,
            cover_art=cover_art,
            partial=partial,
        )
        done = "is prepared already" if report.done_before else f"prepared in {report.seconds:.0f} s"
        print(f"{report.out} {done}: {counts(report.clips)} clips, {report.hours:.2f} h, {report.events} events")
        for line in (*describe_coverage(report), *describe_partial(report)):
            print(line)
        if report.rejected:
            print(f"{report.rejected} left out, with the reasons in {Path(report.out) / 'rejects.jsonl'}:")
            for reject in report.rejects[:10]:
                print(f"  {reject.file or reject.id}: {reject.reason}")
            if report.rejected > 10:
                print(f"  ... and {report.rejected - 10} more")
    if features is not None and model is not None:
        _make_features(
            out or source,
            {
                "features": features,
                "model": model,
                "accelerator": accelerator,
                "devices": devices,
                "precision": precision,
                "batch_size": batch_size,
                "num_workers": 2 if workers is None else workers,
                "num_frames": num_frames,
                "fps": fps,
                "sampling": sampling,
                "trust": trust,
            },
        )


def _make_features(data: Path, options: dict[str, Any]) -> None:
    from peav.training.extract import ExtractOptions, extract_features

    for info in extract_features(data, ExtractOptions(**options)):
        folder = data / "features" / info.name
        size = sum(path.stat().st_size for path in folder.rglob("*.bin")) / max(1, sum(info.rows.values()))
        print(
            f"{info.kind} features in {folder}: {counts(info.rows)} clips, {info.dim} channels, {size / 1000:.0f} KB a clip"
        )
        for path in sorted(folder.glob("*-rejects-*.jsonl")):
            print(f"  some could not be made, with the reasons in {path}")
