"""`peav detect`: when sounds are heard in files and folders; it goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.progress import Progress, TaskID
from torch import Tensor

from peav.cli.decoding import MediaFile, check_workers, decoding_seconds, map_ahead, read_headers, split_by_size
from peav.cli.detect_figure import write_figure
from peav.cli.detect_store import ResultStore
from peav.cli.envelope import Envelope
from peav.cli.media_files import RejectFile, decode, file_key, find_media, read_texts
from peav.cli.models import load_model
from peav.cli.progress_bar import progress_bar
from peav.cli.span_files import SUFFIXES, FileSpans, places_of, write_spans
from peav.data.manifests.identities import normalize_text
from peav.devices import resolve_device
from peav.digest import model_digest
from peav.inputs import (
    ClipSpans,
    Detector,
    Loaded,
    Precision,
    check_detects,
    check_queries,
    detect_items,
    detection_rules,
)
from peav.types import Seconds

#: The smallest of the released models that say when.
DEFAULT_MODEL = "facebook/pe-a-frame-small"
_OTHERS = (
    "the folder of a frame-level model (one that was downloaded, or written by `peav convert`), or a .ckpt of `peav fit` with "
    "FrameAlignment"
)


@dataclass(frozen=True)
class DetectOptions:
    """What `peav detect` was asked for; see `peav.cli.commands.detect.detect`."""

    media: Sequence[str]
    text: Sequence[str]
    texts: Path | None
    model: str
    out: Path
    plot: Path | None = None
    threshold: float | Literal["model"] = "model"
    low_threshold: float | Literal["model"] | None = "model"
    median_seconds: Seconds | Literal["model"] = "model"
    merge_seconds: Seconds | Literal["model"] = "model"
    min_seconds: Seconds | Literal["model"] = "model"
    window_seconds: Seconds | Literal["model"] | None = "model"
    overlap_seconds: Seconds | Literal["model"] = "model"
    batch_seconds: Seconds = 120.0
    precision: Precision = "auto"
    device: str = "auto"
    workers: int | None = None
    trust: bool = False


@dataclass(frozen=True)
class DetectReport:
    """What came of it.

    Attributes:
        files: files that were heard.
        spans: spans that were found.
        seconds: of sound.
        written: files of spans.
        pictures: files of pictures.
        rejected: files that could not be heard.
        rejects: where their reasons stand.
        tuned: texts whose threshold was tuned and stored with the checkpoint.
    """

    files: int
    spans: int
    seconds: Seconds
    written: list[Path]
    pictures: list[Path]
    rejected: int
    rejects: Path
    tuned: int


def run_detection(options: DetectOptions) -> DetectReport:
    """Detects, and writes spans and pictures.

    Raises:
        ValueError: if an option is out of range, the model cannot say when, an interrupted run had other settings, or nothing could be
            heard.
        FileNotFoundError: if a file or folder that is named is not there.
    """
    out = options.out
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in one of {', '.join(SUFFIXES)}, not {out.name!r}")
    if options.plot is not None and options.plot.suffix != ".png":
        raise ValueError(f"--plot must end in .png, not {options.plot.name!r}")
    folder, rejects = out.with_suffix(".partial"), out.with_suffix(".rejects.jsonl")
    if out.exists() and not folder.exists():
        raise ValueError(f"{out} is there already: delete it, or choose another --out")
    check_workers(options.workers)
    texts, given = _read_queries(options)
    files = find_media(options.media)
    if not files:
        raise ValueError("nothing to listen to: name files or folders")
    job = _Job(options, texts, given, folder)
    keys = {path: file_key(path) for path in files}
    out.parent.mkdir(parents=True, exist_ok=True)
    rejected = RejectFile(rejects)
    pictures = {} if options.plot is None else dict(zip(files, places_of(options.plot, files), strict=True))
    with progress_bar() as progress:
        try:
            done = {path for path, key in keys.items() if key in job.store}
            done -= {path for path, picture in pictures.items() if not picture.is_file()}
            job.run({path: key for path, key in keys.items() if path not in done}, pictures, rejected, progress)
        except KeyboardInterrupt:
            raise SystemExit(
                f"peav detect: interrupted; what is done lies in {folder}, and the same command goes on from there"
            ) from None
    found = [job.store[key] for key in keys.values() if key in job.store]
    if not found:
        job.store.remove()
        raise ValueError(f"none of the {len(files)} files could be heard; the first: {rejected.first}; all: {rejects}")
    settings = {"model": str(options.model), "settings": asdict(job.detector.rules)}
    written = write_spans(out, texts, found, settings)
    job.store.remove()
    return DetectReport(
        len(found),
        sum(len(spans) for file in found for spans in file.spans),
        sum(file.seconds for file in found),
        written,
        [picture for picture in pictures.values() if picture.is_file()],
        rejected.count,
        rejects,
        job.detector.rules.tuned,
    )


def _read_queries(options: DetectOptions) -> tuple[list[str], dict[str, float]]:
    """Returns the texts, each once, and the thresholds that stand beside them in the file of texts."""
    texts = list(options.text)
    thresholds: dict[str, float] = {}
    known: dict[str, float] = {}
    for line in read_texts(options.texts, "--texts"):
        text, tab, number = line.partition("\t")
        text = text.strip()
        if tab:
            try:
                threshold = float(number)
            except ValueError:
                raise ValueError(
                    f"--texts: after the tab of {line!r} stands no number: a line is a text, or a text, a tab and its threshold"
                ) from None
            key = normalize_text(text)
            if known.setdefault(key, threshold) != threshold:
                raise ValueError(
                    f"--texts: {text!r} has two thresholds, {known[key]:g} and {threshold:g}: leave one out"
                )
            thresholds[text] = threshold
        texts.append(text)
    if not texts:
        raise ValueError('nothing to listen for: give --text "dog barking", as often as you like, or --texts FILE')
    return check_queries(list(dict.fromkeys(texts))), thresholds


class _Job:
    """The model, what it listens for, and what is done."""

    def __init__(
        self, options: DetectOptions, texts: Sequence[str], thresholds: Mapping[str, float], folder: Path
    ) -> None:
        self.options, self.texts = options, texts
        model = load_model(options.model, options.trust, options.model == DEFAULT_MODEL, _OTHERS)
        model.to(resolve_device(options.device))
        check_detects(model)
        threshold: Any = options.threshold
        if thresholds:
            # What stands in the file goes before the one number for all.
            others = {} if threshold == "model" else dict.fromkeys(texts, threshold)
            threshold = {**others, **thresholds}
        rules = detection_rules(
            model,
            texts,
            threshold,
            options.low_threshold,
            options.median_seconds,
            options.merge_seconds,
            options.min_seconds,
            options.window_seconds,
            options.overlap_seconds,
        )
        self.detector = Detector(model, texts, rules, options.precision)
        settings = {"model": model_digest(model), "texts": list(texts), **asdict(rules), "precision": options.precision}
        self.store = ResultStore(folder, settings)

    def run(
        self, keys: Mapping[str, str], pictures: Mapping[str, Path], rejected: RejectFile, progress: Progress
    ) -> None:
        """Listens to files that are not done, given with their keys, one after another."""
        if not keys:
            return
        files = read_headers(keys, ["audio"], self.options.workers, rejected, progress)
        if not files:
            return
        task = progress.add_task("listen", total=len(files), unit="files")
        envelopes: dict[int, tuple[Envelope, Seconds]] = {}

        def listen(row: int, probabilities: Tensor, frame_seconds: Seconds) -> None:
            if row not in envelopes:
                envelopes[row] = (Envelope(len(self.texts)), frame_seconds)
            envelopes[row][0].add(probabilities.double().numpy())

        planned = [self.detector.plan(row, file.item) for row, file in enumerate(files)]
        loaded = self._decoded(planned, files, progress, task)
        results = detect_items(self.detector, planned, loaded, self.options.batch_seconds, listen if pictures else None)
        for row, (file, result) in enumerate(zip(files, results, strict=True)):
            if isinstance(result, ClipSpans):
                if file.path in pictures:
                    self._draw(pictures[file.path], file.path, result, *envelopes.pop(row))
                self.store.add(file.key, FileSpans(file.path, result.seconds, result.spans))
            else:
                envelopes.pop(row, None)
                rejected.add(file.path, result)
            progress.update(task, completed=row + 1)

    def _decoded(
        self, planned: Sequence[Sequence[Any]], files: Sequence[MediaFile], progress: Progress, task: TaskID
    ) -> Iterator[Loaded | str]:
        groups = [part for requests in planned for part in split_by_size(requests)]
        seconds = sum(decoding_seconds(file.item) for file in files)
        for group, results in zip(groups, map_ahead(decode, groups, seconds, self.options.workers), strict=True):
            for request, result in zip(group, results, strict=True):
                yield result
                # Within a long file, too.
                share = (request.window.start + request.window.seconds) / (request.item.seconds or 1.0)
                progress.update(task, completed=request.row + min(share, 0.99))

    def _draw(self, path: Path, media: str, found: ClipSpans, envelope: Envelope, frame_seconds: Seconds) -> None:
        thresholds = self.detector.rules.thresholds
        write_figure(path, media, self.texts, thresholds, envelope, frame_seconds, found.spans, found.seconds)
