"""`PEAV.embed`: from what a user has (paths, arrays, pictures, strings) to embeddings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.embedding_model import EmbeddingModel
from peav.inputs.audio import AudioLike
from peav.inputs.items import MediaItem, Request, read_items
from peav.inputs.running import KINDS, MediaEmbedder, Output, Precision, embed_texts, kinds_of, select_texts, tokenize
from peav.inputs.video import VideoLike
from peav.inputs.windows import check_windows, group_by_length
from peav.suggest import suggest
from peav.types import Seconds

#: What a text describes: the head that reads it.
TextKind = str

#: Seconds of media that go through the model at once.
BATCH_SECONDS = 120.0


def embed(
    model: EmbeddingModel,
    audio: AudioLike | Sequence[AudioLike] | None = None,
    video: VideoLike | Sequence[VideoLike] | None = None,
    text: str | Sequence[str] | None = None,
    *,
    to: TextKind | None = None,
    sample_rate: int | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    window_seconds: Seconds | Literal["model"] | None = "model",
    overlap_seconds: Seconds = 0.0,
    batch_seconds: Seconds = BATCH_SECONDS,
    precision: Precision = "auto",
) -> dict[str, Tensor]:
    """Embeds media and texts as they are at hand: files, arrays, pictures, strings.

    Every embedding comes back that the inputs allow: audio and video beside each other also give `audio_video`, and texts of their
    number the queries of a medium and a text. Media longer than a window are embedded window by window; an item's embedding is then
    the mean of its windows', weighted by their durations, and of unit length where the model's embeddings are. Files are opened
    before anything is computed, and decoded when their turn comes.

    Args:
        model: the model.
        audio: a path; samples (S,) or (channels, S), floating point in [-1, 1] or integer PCM, one or two channels; or a list of
            these. Resampled and mixed down as the model was trained to hear them; of more than two channels in a file by FFmpeg's rule for
            their layout.
        video: a path; uint8 frames (F, 3, H, W) or (F, H, W, 3), RGB and evenly spaced; PIL images, a list of which is one video;
            or a list of these. Squashed to the model's frame size. Frames in memory last as long as the audio beside them.
        text: a string or a list of strings.
        to: what the texts describe, `audio`, `video`, `audio_video` or `event`: just this head of the text encoder is computed, and
            no query of a medium and a text. Every head by default.
        sample_rate: of arrays given as audio, Hz.
        num_frames: video frames an item (or window), in place of the model's setting. Index int(i * (n - 1) / (num_frames - 1)) of n
            frames where the model samples by index, so that a video with fewer repeats some.
        fps: video frames a second, in place of the model's setting. Without either, and none in the model, every frame is taken.
        window_seconds: longest piece that is embedded at once; the model's own by default, None for whole media.
        overlap_seconds: what neighbouring windows share.
        batch_seconds: media that go through the model at once, padding included; it changes speed and memory, not the result.
        precision: `auto` is bfloat16 autocast on CUDA devices that compute in it and float32 elsewhere; or `fp32`, `bf16`.

    Returns:
        (N, D) float32 on the CPU by embedding name. Of a frame-level model NAME_frames (N, T, D), zero where padded, and
        NAME_frames_mask (N, T) bool; where media were split, frames that windows share come half from the one, half from the other, so
        that each is far from the edge of its window.

    Raises:
        ValueError: if nothing is given, something given is no medium or holds nothing or NaN, the numbers of audios and videos differ, the
            model reads no such thing, or a setting is out of range.
        FileNotFoundError: if a file is not there.
        MediaError: if a file cannot be decoded or lacks the stream that it is given for.
    """
    texts = check_texts(text)
    _check_needless(video, texts, to, num_frames, fps)
    media = media_settings(model.media, num_frames, fps)
    window = resolve_window(model.media, window_seconds, overlap_seconds)
    given = [kind for kind, value in (("audio", audio), ("video", video), ("text", text)) if value is not None]
    if not given:
        raise ValueError("nothing to embed: give audio, video or text")
    names = embedding_names(model, given, to)
    items = read_items(audio, video, sample_rate)
    paired = len(texts) == len(items)
    if not paired:
        names = [name for name in names if not _is_mixed(model, name)]
    if not names:
        raise ValueError(f"{len(items)} media and {len(texts)} texts: this model embeds them in pairs, one by one")
    found: dict[str, Tensor] = {}
    if texts:
        of_text = [name for name in names if kinds_of(model.fields_for([name])) == {"text"}]
        found = embed_texts(model, texts, of_text, precision)
    of_media = [name for name in names if name not in found]
    outputs: list[Output] = []
    if items:
        embedder = MediaEmbedder(model, of_media, media, window, overlap_seconds, precision)
        needed = texts if any(_is_mixed(model, name) for name in of_media) else []
        outputs = _embed_items(embedder, items, needed, batch_seconds)
    merged = found | _pad(outputs, model.embedding_dim)
    keys = [key for name in names for key in (name, f"{name}_frames", f"{name}_frames_mask")]
    return {key: merged[key] for key in keys if key in merged}


def _embed_items(
    embedder: MediaEmbedder, items: Sequence[MediaItem], texts: Sequence[str], batch_seconds: Seconds
) -> list[Output]:
    """Embeds items in groups of similar length, and returns what the model makes of each, in their order."""
    if not batch_seconds > 0:
        raise ValueError(f"batch_seconds must be positive, not {batch_seconds}")
    tokens = tokenize(embedder.model, texts) if texts else None
    requests: list[Request] = [request for row, item in enumerate(items) for request in embedder.plan(row, item)]
    outputs: dict[int, Output] = {}
    for group in group_by_length([request.cost_seconds for request in requests], batch_seconds):
        loaded = [requests[index].load() for index in group]
        some = select_texts(tokens, [requests[index].row for index in group]) if tokens is not None else None
        outputs |= dict(zip(group, embedder.run(loaded, some), strict=True))
    windows: list[list[int]] = [[] for _ in items]
    for index, request in enumerate(requests):
        windows[request.row].append(index)
    return [embedder.join([requests[index] for index in own], [outputs[index] for index in own]) for own in windows]


def _pad(outputs: Sequence[Output], dim: int) -> dict[str, Tensor]:
    """Joins what items gave: pooled embeddings (N, D), frames (N, T, D) and their masks (N, T)."""
    joined: dict[str, Tensor] = {}
    for name in outputs[0].pooled if outputs else ():
        joined[name] = torch.zeros(len(outputs), dim)
        for row, output in enumerate(outputs):
            joined[name][row] = output.pooled[name]
    for name in outputs[0].frames if outputs else ():
        longest = max(len(output.frames[name]) for output in outputs)
        frames, mask = torch.zeros(len(outputs), longest, dim), torch.zeros(len(outputs), longest, dtype=torch.bool)
        for row, output in enumerate(outputs):
            length = len(output.frames[name])
            frames[row, :length], mask[row, :length] = output.frames[name], True
        joined |= {f"{name}_frames": frames, f"{name}_frames_mask": mask}
    return joined


def check_texts(text: str | Sequence[str] | None) -> list[str]:
    """Returns the texts that a user gives, as a list; none for None.

    Raises:
        ValueError: if they are something else than a string or a list of strings.
    """
    if text is None:
        return []
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple) or not texts:
        what = "an empty list" if isinstance(texts, list | tuple) else f"{texts!r:.80}, of type {type(texts).__name__}"
        raise ValueError(f"text is {what}: give a string or a list of strings")
    for row, one in enumerate(texts):
        if not isinstance(one, str):
            raise ValueError(f"text[{row}] is {one!r:.80}, of type {type(one).__name__}: give strings")
    return list(texts)


def _check_needless(
    video: object, texts: Sequence[str], to: str | None, num_frames: int | None, fps: float | None
) -> None:
    """Refuses settings of what is not given."""
    for name, value in (("num_frames", num_frames), ("fps", fps)):
        if value is not None and video is None:
            raise ValueError(f"{name}={value} says which frames of a video to take, but there is no video")
    if to is not None and not texts:
        raise ValueError(f"to={to!r} says what the texts describe, but there is no text")


def _possible(model: EmbeddingModel, name: str, given: Collection[str], to: str | None) -> bool:
    """Whether an embedding can be made of the kinds of input given."""
    kinds = kinds_of(model.fields_for([name]))
    if to is not None and "text" in kinds:
        return name == f"text_{to}"
    return kinds <= set(given)


def _is_mixed(model: EmbeddingModel, name: str) -> bool:
    """Whether an embedding is made of a medium and a text."""
    kinds = kinds_of(model.fields_for([name]))
    return "text" in kinds and len(kinds) > 1


def media_settings(media: MediaSettings, num_frames: int | None = None, fps: float | None = None) -> MediaSettings:
    """Returns a model's settings, with the frames that a user wants instead.

    Raises:
        ValueError: if they are out of range, or both given.
    """
    if num_frames is not None and fps is not None:
        raise ValueError(f"num_frames={num_frames} and fps={fps} both say which frames to take: give one")
    if num_frames is not None:
        if num_frames != int(num_frames) or num_frames < 1:
            raise ValueError(f"num_frames must be a whole number of at least 1, not {num_frames}")
        return replace(media, num_frames=int(num_frames), fps=None)
    if fps is not None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"fps must be positive, not {fps}")
        return replace(media, num_frames=None, fps=fps)
    return media


def resolve_window(
    media: MediaSettings, window_seconds: Seconds | Literal["model"] | None, overlap_seconds: Seconds
) -> Seconds | None:
    """Returns the length of the windows that a user wants; None for whole media.

    Raises:
        ValueError: if it is out of range.
    """
    if isinstance(window_seconds, str) and window_seconds != "model":
        raise ValueError(f"window_seconds must be a number, 'model' or None, not {window_seconds!r}")
    window = media.window_seconds if window_seconds == "model" else window_seconds
    check_windows(window, overlap_seconds)
    return window


def media_kinds(model: EmbeddingModel) -> list[str]:
    """Returns what a model reads of a file: of `audio` and `video`."""
    return [kind for kind in ("audio", "video") if kind in model.batch_fields]


def embedding_names(model: EmbeddingModel, given: Collection[str], to: str | None = None) -> list[str]:
    """Returns the embeddings that inputs allow, those of a medium and a text included.

    Args:
        model: the model.
        given: of `audio`, `video` and `text`.
        to: what the texts describe: just this head, and nothing of a medium and a text.

    Raises:
        ValueError: if nothing can be made of one of them, or the model lacks the head.
    """
    names = [*dict.fromkeys((*model.pooled_names, *model.frame_names))]
    if to is not None and f"text_{to}" not in model.pooled_names:
        kinds = [name.removeprefix("text_") for name in model.pooled_names if name.startswith("text_")]
        raise ValueError(f"to={to!r}: this model has no head text_{to} for texts. {suggest(str(to), kinds)}")
    possible = [name for name in names if _possible(model, name, given, to)]
    for kind in given:
        if not any(kind in kinds_of(model.fields_for([name])) for name in possible):
            needs = "; ".join(f"{name} needs {_needs(model, name)}" for name in names)
            raise ValueError(f"this model makes nothing of {kind} when given {' and '.join(given)}: {needs}")
    return possible


def _needs(model: EmbeddingModel, name: str) -> str:
    needed = kinds_of(model.fields_for([name]))
    return " and ".join([*(kind for kind in KINDS if kind in needed), *sorted(needed - set(KINDS))])
