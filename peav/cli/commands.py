"""peav's own commands: thin functions over the library, turned into command lines by jsonargparse."""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, auto_cli
from rich.console import Console
from rich.table import Table

from peav import registry

Domain = Literal["speech", "music", "effects"]


def run_command(command: Callable[..., Any], name: str, args: Sequence[str]) -> int:
    """Parses the options of a command from its signature and runs it.

    Returns:
        0, or 1 after an error that the user can mend, which is printed in one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("litdata").setLevel(logging.WARNING)
    try:
        if "media" in inspect.signature(command).parameters:
            _run_on_words(command, "media", name, args)
        else:
            auto_cli(command, args=list(args), prog=f"peav {name}")
    except (FileNotFoundError, ValueError, KeyError, RuntimeError) as error:
        # RuntimeError: what peav raises for bad data (MediaError, ShardError, PrepareError, PluginError) and FFmpeg's absence.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"peav {name}: {message}", file=sys.stderr)
        return 1
    return 0


def _run_on_words(command: Callable[..., Any], words: str, name: str, args: Sequence[str]) -> None:
    """Runs a command whose argument `words` is any number of words; `auto_cli` knows none such."""
    text = inspect.getdoc(command) or ""
    description, _, details = text.partition("\n\nArgs:\n")
    help = re.search(rf"^ +{words}: (.*(?:\n {{8,}}.*)*)", details, re.MULTILINE)
    parser = ArgumentParser(prog=f"peav {name}", description=description)
    parser.add_argument(
        words, nargs="*", default=[], metavar=words.upper(), help=" ".join(help[1].split()) if help else None
    )
    parser.add_function_arguments(command, skip={words}, as_group=False)
    command(**parser.parse_args(list(args)).as_dict())


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
    out: Path,
    captions: str = "clips.jsonl",
    workers: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    min_seconds: float = 0.1,
    max_caption_words: int = 1000,
    vocab_size: int = 2048,
) -> None:
    """Turn a folder of media with captions into a Lhotse manifest and LitData shards.

    Args:
        source: folder that holds the media.
        out: folder to write.
        captions: JSONL file of the clips, relative to `source` or absolute; docs/data.md lists its fields.
        workers: processes that check the media; the CPUs by default.
        overwrite: replace what an earlier run left in `out`.
        strict: stop at the first record or file that cannot be used.
        min_seconds: shorter clips are left out.
        max_caption_words: longer captions are dropped.
        vocab_size: tokens of the tokenizer that is trained on the training texts.
    """
    from peav.data.prepare import prepare as run

    report = run(
        source, out, captions, workers, overwrite, strict, min_seconds, max_caption_words, vocab_size=vocab_size
    )
    done = "is prepared already" if report.done_before else f"prepared in {report.seconds:.0f} s"
    print(f"{report.out} {done}: {_counts(report.clips)} clips, {report.hours:.2f} h, {report.events} events")
    if report.rejects:
        print(f"{len(report.rejects)} left out, with the reasons in {Path(report.out) / 'rejects.jsonl'}:")
        for reject in report.rejects[:10]:
            print(f"  {reject.file or reject.id}: {reject.reason}")
        if len(report.rejects) > 10:
            print(f"  ... and {len(report.rejects) - 10} more")


def evaluate(
    checkpoint: Path,
    data: Path,
    out: Path | None = None,
    split: str = "test",
    control: Path | None = None,
    batch_size: int = 64,
    num_workers: int = 2,
    device: str = "auto",
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
    """
    from peav.cli.evaluate import run_evaluation

    _load_plugins()
    folder = run_evaluation(checkpoint, data, out, split, control, batch_size, num_workers, device)
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
    """
    from peav.cli.embed import EmbedOptions, run_embed

    _load_plugins()
    windows = {"window_seconds": window_seconds, "overlap_seconds": overlap_seconds}
    running = {"batch_seconds": batch_seconds, "precision": precision, "device": device, "workers": workers}
    report = run_embed(EmbedOptions(media, model, out, text, to, num_frames, fps, **windows, **running))  # type: ignore[arg-type]
    print(f"wrote {out}: {report.rows} rows; {_counts(report.counts)}")
    if report.rejected:
        print(f"{report.rejected} files could not be embedded, for the reasons in {report.rejects}")


def convert(
    source: str, out: Path, to: Literal["peav", "meta", "transformers"] = "peav", revision: str | None = None
) -> None:
    """Write a model in another format.

    Args:
        source: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        out: folder to write.
        to: `peav`; `meta`, which Meta's code reads; or `transformers`.
        revision: of the repository; `perception_models` of the released ones is Meta's format.
    """
    from peav.model import PEAV

    _load_plugins()
    model = PEAV.from_pretrained(source, revision)
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
