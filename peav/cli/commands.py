"""peav's own commands: thin functions over the library, turned into command lines by jsonargparse."""

from __future__ import annotations

import inspect
import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, auto_cli
from rich.console import Console
from rich.table import Table

from peav import registry

if TYPE_CHECKING:
    from peav.data.readers import Reader

Domain = Literal["speech", "music", "effects"]


def run_command(command: Callable[..., Any], name: str, args: Sequence[str]) -> int:
    """Parses the options of a command from its signature and runs it.

    Returns:
        0, or 1 after an error that the user can mend, which is printed in one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("litdata").setLevel(logging.WARNING)
    try:
        args = _said(args, "--trust")
        parameters = inspect.signature(command).parameters
        if "media" in parameters:
            _run_on_words(command, {"media": "*"}, name, args)
        elif "features" in parameters:
            _run_on_words(command, {"source": "", "out": "?"}, name, _join_pairs(args, "--features"))
        else:
            auto_cli(command, args=list(args), prog=f"peav {name}")
    except (FileNotFoundError, ValueError, KeyError, RuntimeError) as error:
        # RuntimeError: what peav raises for bad data (MediaError, ShardError, PrepareError, PluginError) and FFmpeg's absence.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"peav {name}: {message}", file=sys.stderr)
        return 1
    return 0


def _said(args: Sequence[str], option: str) -> list[str]:
    """Lets an option that is true or false stand alone for true.

    >>> _said(["a", "--trust", "--out", "x"], "--trust"), _said(["--trust", "false"], "--trust")
    (['a', '--trust=true', '--out', 'x'], ['--trust', 'false'])
    """
    words = [*args, ""]
    return [
        f"{word}=true" if word == option and words[index + 1] not in ("true", "false") else word
        for index, word in enumerate(args)
    ]


def _join_pairs(args: Sequence[str], option: str) -> list[str]:
    """Joins the words `NAME=VALUE` after an option into one mapping, which jsonargparse reads.

    >>> _join_pairs(["a", "--features", "audio=dac", "video=pe", "--model", "m"], "--features")
    ['a', '--features={"audio": "dac", "video": "pe"}', '--model', 'm']
    """
    joined = list(args)
    for index, word in enumerate(joined):
        if word == option or word.startswith(f"{option}="):
            end = index + 1
            pairs = [word.removeprefix(f"{option}=")] if word != option else []
            while end < len(joined) and "=" in joined[end] and not joined[end].startswith("-"):
                pairs.append(joined[end])
                end += 1
            if pairs and all(re.fullmatch(r"\w+=\w+", pair) for pair in pairs):
                mapping = dict(pair.split("=") for pair in pairs)
                joined[index:end] = [f"{option}={json.dumps(mapping)}"]
            break
    return joined


def _run_on_words(command: Callable[..., Any], words: dict[str, str], name: str, args: Sequence[str]) -> None:
    """Runs a command with words that `auto_cli` knows not: any number of them (`*`), or one that may be left out (`?`).

    Args:
        command: the function.
        words: how many, by argument; one where it says "".
        name: of the command.
        args: of the command line.
    """
    text = inspect.getdoc(command) or ""
    description, _, details = text.partition("\n\nArgs:\n")
    parser = ArgumentParser(prog=f"peav {name}", description=description)
    for word, number in words.items():
        help = re.search(rf"^ +{word}: (.*(?:\n {{8,}}.*)*)", details, re.MULTILINE)
        options: dict[str, Any] = {"metavar": word.upper(), "help": " ".join(help[1].split()) if help else None}
        if number:
            options |= {"nargs": number, "default": [] if number == "*" else None}
        if number != "*":
            options["type"] = Path
        parser.add_argument(word, **options)
    parser.add_function_arguments(command, skip=set(words), as_group=False)
    values = parser.instantiate_classes(parser.parse_args(list(args)))
    command(**values.as_dict())


def synth(
    out: Path,
    clips: int = 1600,
    seed: int = 0,
    domains: tuple[Domain, ...] = ("speech", "music", "effects"),
    workers: int | None = None,
    frame_size: int = 96,
    fps: int = 12,
    sample_rate: int = 16000,
) -> None:
    """Make a small synthetic audio-visual world: media, captions, events, splits.

    Args:
        out: folder to write; an interrupted call continues there.
        clips: how many clips, test and validation clips included.
        seed: of everything random.
        domains: kinds of sound to make; speech needs an FFmpeg with flite.
        workers: clips made at once; the CPUs by default.
        frame_size: height and width of the picture, pixels.
        fps: frames a second.
        sample_rate: of the sound, Hz.
    """
    from peav.data.synthetic import synthesize

    report = synthesize(out, clips, seed, domains, workers, frame_size, fps, sample_rate)
    print(f"{report.clips} clips in {report.out}: {_counts(report.splits)}; {_counts(report.domains)}")


def prepare(
    source: Path,
    out: Path | None = None,
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
    from peav.data.packing.report import describe_coverage

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
        )
        done = "is prepared already" if report.done_before else f"prepared in {report.seconds:.0f} s"
        print(f"{report.out} {done}: {_counts(report.clips)} clips, {report.hours:.2f} h, {report.events} events")
        for line in describe_coverage(report):
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

    _load_plugins()
    for info in extract_features(data, ExtractOptions(**options)):
        folder = data / "features" / info.name
        size = sum(path.stat().st_size for path in folder.rglob("*.bin")) / max(1, sum(info.rows.values()))
        print(
            f"{info.kind} features in {folder}: {_counts(info.rows)} clips, {info.dim} channels, {size / 1000:.0f} KB a clip"
        )
        for path in sorted(folder.glob("*-rejects-*.jsonl")):
            print(f"  some could not be made, with the reasons in {path}")


def evaluate(
    checkpoint: Path,
    data: Path,
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

    _load_plugins()
    folder = run_evaluation(checkpoint, data, out, split, control, batch_size, num_workers, device, trust)
    print(f"wrote {folder / 'evaluation.json'}, {folder / 'report.html'}")


def embed(
    media: list[str],
    *,
    model: str,
    out: Path,
    text: Path | None = None,
    to: Literal["audio", "video", "audio_video", "event"] | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    window_seconds: float | Literal["model"] | None = "model",
    overlap_seconds: float = 0.0,
    batch_seconds: float = 120.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: str = "auto",
    workers: int | None = None,
    trust: bool = False,
) -> None:
    """Embed files of audio and video, and texts, into one table.

    A file gives what it holds: audio, video, or both and their joint embedding. A run that was interrupted goes on where it was when it
    is started again; until it is done, its results lie in OUT with the suffix .partial. Files that cannot be decoded are listed with
    their reasons in OUT with the suffix .rejects.jsonl.

    The .npz holds `ids` (N,), paths and then texts; for each embedding NAME an array (N, D) and NAME.present (N,), which says which
    rows have it; of frame-level models NAME_frames (frames of all rows, D) and NAME_frames.lengths (N,). The .parquet has the columns
    `id` and NAME, null where a row lacks it.

    For example: peav embed talks/ --model facebook/pe-av-small-16-frame --out talks.npz

    Args:
        media: files, and folders that are searched at any depth for files that end like media.
        model: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        out: the table to write, .npz or .parquet.
        text: a file of texts, one a line; blank lines are left out.
        to: what the texts describe; all of the model's heads for texts by default.
        num_frames: video frames a file (or window); the model's own number by default.
        fps: video frames a second, instead.
        window_seconds: longer files are embedded in windows of so many seconds, and averaged; `model` is what the model was trained on,
            `null` embeds whole files.
        overlap_seconds: what neighbouring windows share.
        batch_seconds: seconds of media that go through the model at once; more is faster and takes more memory.
        precision: `auto` is bf16 on GPUs that compute in it and fp32 elsewhere.
        device: `cpu`, `cuda`, ... or `auto`.
        workers: processes that decode; the CPUs by default, at most 8; 0 for none.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.embed import EmbedOptions, run_embed

    _load_plugins()
    windows = {"window_seconds": window_seconds, "overlap_seconds": overlap_seconds}
    running = {
        "batch_seconds": batch_seconds,
        "precision": precision,
        "device": device,
        "workers": workers,
        "trust": trust,
    }
    report = run_embed(EmbedOptions(media, model, out, text, to, num_frames, fps, **windows, **running))  # type: ignore[arg-type]
    print(f"wrote {out}: {report.rows} rows; {_counts(report.counts)}")
    if report.rejected:
        print(f"{report.rejected} files could not be embedded, for the reasons in {report.rejects}")


def convert(
    source: str,
    out: Path,
    to: Literal["peav", "meta", "transformers"] = "peav",
    revision: str | None = None,
    trust: bool = False,
) -> None:
    """Write a model in another format.

    Args:
        source: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        out: folder to write.
        to: `peav`; `meta`, which Meta's code reads; or `transformers`.
        revision: of the repository; `perception_models` of the released ones is Meta's format.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.model import PEAV

    _load_plugins()
    model = PEAV.from_pretrained(source, revision, trust)
    model.save_pretrained(out, to)
    print(f"wrote {out}: {', '.join(model.embedding_names)}; {sum(p.numel() for p in model.parameters()):,} parameters")
    if model.missing_pairs:
        print(f"no scale and bias are known for {', '.join(' x '.join(pair) for pair in model.missing_pairs)}")


def plugins() -> None:
    """List the encoders and objectives that are registered, and where they come from."""
    _load_plugins()
    sources = {entry.value.partition(":")[0]: entry for entry in entry_points(group=registry.ENTRY_POINT_GROUP)}
    table = Table("kind", "name", "what it is", "from")
    for plugins_ in (registry.encoders, registry.objectives):
        for name in plugins_:
            cls = plugins_.get(name)
            entry = next((e for module, e in sources.items() if cls.__module__.startswith(module)), None)
            package = (
                entry.dist.name if entry is not None and entry.dist is not None else cls.__module__.partition(".")[0]
            )
            first = (inspect.getdoc(cls) or "").partition("\n")[0]
            table.add_row(plugins_.kind, name, first, f"{package} ({cls.__module__})")
    Console().print(table)


def _load_plugins() -> None:
    import peav.encoders
    import peav.objectives  # noqa: F401  registers the built-in plugins

    registry.load_plugins()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())
