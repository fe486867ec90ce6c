"""What a query is made of: texts, files, clips and windows of the index, each compared with one embedding of the index."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from peav.checkpoints import MediaSettings, Pair
from peav.inputs import (
    Loaded,
    MediaEmbedder,
    Request,
    Window,
    embed_texts,
    item_of_file,
    media_kinds,
    plan_windows,
    probe_file,
)
from peav.model import PEAV
from peav.suggest import suggest

#: What is compared: the sound, the pictures, or both together.
Mode = Literal["heard", "seen", "both"]

TARGETS: dict[str, str] = {"heard": "audio", "seen": "video", "both": "audio_video"}

_SPAN = re.compile(r"#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")


@dataclass(frozen=True)
class Term:
    """A part of a query.

    Attributes:
        said: how the user named it.
        target: the embedding of the index that it is compared with.
        vector: (D,).
        weight: of its score; negative for what must not fit.
        pair: the names of query and target, where the model has learned a scale and bias for them.
        is_text: whether it is a text.
    """

    said: str
    target: str
    vector: np.ndarray
    weight: float
    pair: Pair | None = None
    is_text: bool = False


def check_mode(mode: str) -> None:
    """Checks a mode.

    Raises:
        ValueError: if it is none.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r}: {suggest(str(mode), get_args(Mode))}")


def text_vectors(model: PEAV, texts: Sequence[str], mode: str) -> tuple[np.ndarray, str]:
    """Embeds texts as what a mode asks for.

    Returns:
        (N, D), and the name of the embedding.

    Raises:
        ValueError: if the model reads no texts of this kind.
    """
    name = f"text_{TARGETS[mode]}"
    if name not in model.pooled_names:
        can = [mode for mode, target in TARGETS.items() if f"text_{target}" in model.pooled_names]
        raise ValueError(
            f"this model cannot compare texts with what is {mode}; it can with {', '.join(can) or 'nothing'}"
        )
    return embed_texts(model, texts, [name])[name].numpy(), name


@dataclass(frozen=True)
class Example:
    """Something by which is sought, embedded already.

    Attributes:
        said: how the user named it.
        vectors: (D,) by embedding.
    """

    said: str
    vectors: Mapping[str, np.ndarray]


def media_vectors(model: PEAV, settings: Mapping[str, Any], said: str) -> dict[str, np.ndarray]:
    """Embeds a file, or a clip of one, as the index embeds its windows; of a longer one, the mean of its windows.

    Args:
        model: the model.
        settings: of the index.
        said: a path, or a path with a span, `film.mp4#t=12,20`, in seconds.

    Returns:
        (D,) by embedding.

    Raises:
        ValueError: if the span is empty, or the model makes nothing of the file.
        FileNotFoundError: if there is no such file.
        MediaError: if it cannot be decoded.
    """
    requests = plan_media(model.media, media_kinds(model), settings, said)
    # Decoded when its turn comes, so that a long file does not fill the memory.
    return vectors_of_windows(model, settings, said, ((request, request.load()) for request in requests))


def plan_media(media: MediaSettings, kinds: Sequence[str], settings: Mapping[str, Any], said: str) -> list[Request]:
    """Returns the windows of a file, or of a clip of one, as the index has them; see :func:`media_vectors`.

    Args:
        media: what a clip looks like to the model.
        kinds: what is read, of `audio` and `video`.
        settings: of the index.
        said: a path, or a path with a span.

    Raises:
        ValueError: if the span is empty.
        FileNotFoundError: if there is no such file.
        MediaError: if it cannot be opened.
    """
    path, begin, end = said, None, None
    if not os.path.exists(said) and (span := _SPAN.search(said)):
        path = said[: span.start()]
        begin, end = float(span[1] or 0.0), None if span[2] is None else float(span[2])
    info = probe_file(path, animations=settings["animations"])
    item = item_of_file(path, info, kinds, settings["cover_art"])
    window, overlap = settings["window_seconds"], settings["overlap_seconds"]
    if begin is None:
        return [Request(0, item, one, media) for one in plan_windows(item.seconds, window, overlap)]
    total = item.seconds
    if total is None:
        raise ValueError(f"{said}: a picture has no span; leave #t= out")
    end = total if end is None else min(end, total)
    if not begin < end:
        raise ValueError(f"{said}: there is nothing from {begin:g} s to {end:g} s; the file lasts {total:g} s")
    starts = np.arange(begin, end - 1e-3, window).tolist()
    return [Request(0, item, Window(start, min(window, end - start)), media) for start in starts]


def vectors_of_windows(
    model: PEAV, settings: Mapping[str, Any], said: str, windows: Iterable[tuple[Request, Loaded]]
) -> dict[str, np.ndarray]:
    """Embeds decoded windows of one medium, one after another, and averages them.

    Returns:
        (D,) by embedding.

    Raises:
        ValueError: if the model makes nothing of it.
    """
    embedder = MediaEmbedder(model, settings["names"], model.media, None, 0.0, settings["precision"])
    embedder.frame_names = []
    requests, outputs = [], []
    for request, loaded in windows:
        requests.append(request)
        outputs += embedder.run([loaded])
    found = embedder.join(requests, outputs).pooled
    if not found:
        raise ValueError(f"{said}: the model makes nothing of it that the index has: {', '.join(settings['names'])}")
    return {name: vector.numpy() for name, vector in found.items()}


def choose_vector(
    model: PEAV | None, vectors: Mapping[str, np.ndarray], target: str, said: str
) -> tuple[np.ndarray, str]:
    """Returns which embedding of a medium is compared with one of the index: the same, or one that the model was trained to compare.

    Raises:
        ValueError: if there is none.
    """
    if target in vectors:
        return vectors[target], target
    pairs = () if model is None else model.pairs
    for name, vector in vectors.items():
        if (name, target) in pairs or (target, name) in pairs:
            return vector, name
    raise ValueError(
        f"{said} has {' and '.join(sorted(vectors))}, which cannot be compared with {target} of the index: choose another mode"
    )
