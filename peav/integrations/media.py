"""Media as other libraries hand them over, decoders, dictionaries, arrays and paths, embedded as `PEAV.embed` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchcodec.decoders import AudioDecoder, VideoDecoder

from peav.data.media.decode import count_frames, frame_times
from peav.inputs import media_settings, resolve_window
from peav.model import PEAV

#: What is embedded of an input, by what is in it.
_NAMES = {
    frozenset({"audio"}): "audio",
    frozenset({"video"}): "video",
    frozenset({"audio", "video"}): "audio_video",
    frozenset({"audio", "text"}): "audio_plus_text",
    frozenset({"video", "text"}): "video_plus_text",
}

#: A container may say a little more than there is, seconds.
_TOLERANCE = 0.1


def text_names(model: PEAV) -> tuple[str, ...]:
    """Returns what texts may describe to a model, of `audio`, `video` and `audio_video`: the heads that it has."""
    return tuple(kind for kind in ("audio", "video", "audio_video") if f"text_{kind}" in model.embedding_names)


def media_names(model: PEAV) -> list[tuple[str, ...]]:
    """Returns the kinds of input that a model embeds besides text alone, such as `("audio", "text")`."""
    return [tuple(sorted(kinds)) for kinds, name in _NAMES.items() if name in model.embedding_names]


def waveform_of(audio: Any) -> tuple[Any, int | None]:
    """Returns samples and sample rate, None where the input says none: a path, or an array.

    Args:
        audio: a path; samples (S,) or (channels, S); `{"array", "sampling_rate"}`; or torchcodec's `AudioDecoder`.
    """
    if isinstance(audio, AudioDecoder):
        samples = audio.get_all_samples()
        return samples.data.numpy(), int(samples.sample_rate)
    if isinstance(audio, Mapping):
        return np.asarray(audio["array"], np.float32), int(audio["sampling_rate"])
    return audio, None


def frames_of(video: Any, model: PEAV) -> Any:
    """Returns the frames of a video that a model sees, (F, 3, H, W) of uint8; what is no decoder is given back.

    Args:
        video: a path; frames; `{"array", ...}`; or torchcodec's `VideoDecoder`, of which only the frames that are seen are decoded, as
            `PEAV.embed` chooses them of a file.
        model: that sees them.

    Raises:
        ValueError: if a decoder's video is longer than what the model embeds at once.
    """
    if isinstance(video, Mapping):
        video = video["array"]
    if not isinstance(video, VideoDecoder):
        return video
    wanted, total = media_settings(model.media), len(video)
    begin, end = float(video.metadata.begin_stream_seconds or 0), float(video.metadata.end_stream_seconds or 0)
    window = resolve_window(model.media, "model", 0.0)
    if window is not None and end - begin > window + _TOLERANCE:
        raise ValueError(
            f"a decoder's video of {end - begin:.1f} s is longer than the {window:g} s that the model embeds at once: give the path, "
            "of which windows are embedded"
        )
    if wanted.num_frames is None and wanted.fps is None:
        return video.get_frames_in_range(0, total).data
    count = count_frames(end - begin, wanted.num_frames, wanted.fps if wanted.num_frames is None else None)
    if wanted.sampling == "index":
        return video.get_frames_at([step * (total - 1) // max(1, count - 1) for step in range(count)]).data
    return video.get_frames_played_at(frame_times(count, end - begin, begin)).data


def check_text_name(model: PEAV, to: str) -> None:
    """Checks that texts may describe something to a model.

    Raises:
        ValueError: if it has no head for it.
    """
    if to not in text_names(model):
        raise ValueError(
            f"the model has no head for texts about {to!r}; it has {', '.join(text_names(model)) or 'none'}"
        )


def embed_texts(model: PEAV, texts: Sequence[str], to: str) -> Tensor:
    """Embeds texts by the head of what they describe: (N, D).

    Raises:
        ValueError: if the model has no such head.
    """
    check_text_name(model, to)
    return model.embed(text=list(texts), to=to)[f"text_{to}"]


def embed_media(model: PEAV, inputs: Sequence[Mapping[str, Any]]) -> Tensor:
    """Embeds inputs of one kind, such as `{"audio": ...}` or `{"video": ..., "text": ...}`: (N, D).

    Raises:
        ValueError: if the model embeds no inputs of this kind.
    """
    kinds = frozenset(inputs[0])
    name = _NAMES.get(kinds)
    if name is None or name not in model.embedding_names:
        known = "; ".join(" and ".join(kind) for kind in media_names(model))
        raise ValueError(
            f"the model makes no embedding of {' and '.join(sorted(kinds))} together; it makes those of {known}"
        )
    # What goes through `embed` in one call has one sample rate, and of frames that were chosen here one number.
    alike: dict[tuple[int | None, int | None], list[int]] = {}
    heard: list[Any] = [None] * len(inputs)
    seen: list[Any] = [None] * len(inputs)
    for row, one in enumerate(inputs):
        rate = count = None
        if "audio" in kinds:
            heard[row], rate = waveform_of(one["audio"])
        if "video" in kinds:
            seen[row] = frames_of(one["video"], model)
            count = len(seen[row]) if isinstance(one["video"], VideoDecoder) else None
        alike.setdefault((rate, count), []).append(row)
    found: list[Tensor | None] = [None] * len(inputs)
    for (rate, count), rows in alike.items():
        given: dict[str, Any] = {}
        if "audio" in kinds:
            given["audio"] = [heard[row] for row in rows]
        if "video" in kinds:
            given["video"] = [seen[row] for row in rows]
        if "text" in kinds:
            given["text"] = [inputs[row]["text"] for row in rows]
        embedded = model.embed(**given, sample_rate=rate, num_frames=count)[name]
        for row, vector in zip(rows, embedded, strict=True):
            found[row] = vector
    return torch.stack([vector for vector in found if vector is not None])
