"""From windows to embeddings: the model in evaluation mode, and what it makes of an item's windows joined again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.embedding_model import EmbeddingModel
from peav.inputs.items import Loaded, MediaItem, Request, make_batch, text_batch
from peav.inputs.windows import average_windows, plan_windows, stitch_windows
from peav.tokenizing import Tokenizers
from peav.types import Seconds, TextInput, TokenizeTexts, Tokens, is_text

#: `auto` is bfloat16 autocast on CUDA devices that compute in it, and float32 elsewhere.
Precision = Literal["auto", "fp32", "bf16"]

#: The kinds of input.
KINDS = ("audio", "video", "text")

#: Tokens of text that go through the model at once, padding included.
_TOKENS_AT_ONCE = 16384


@dataclass(frozen=True)
class Output:
    """What the model makes of a window, or of an item.

    Attributes:
        pooled: embeddings (D,) by name.
        frames: embeddings (T, D), without padding, by name.
        frame_seconds: the time between two frames, by name.
        audio_seconds: how much sound there was.
    """

    pooled: dict[str, Tensor] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)
    frame_seconds: dict[str, Seconds] = field(default_factory=dict)
    audio_seconds: Seconds = 0.0


def kinds_of(fields: Iterable[str]) -> set[str]:
    """Returns the kinds of input that fill fields of a batch: captions of every type, and event phrases, are `text`.

    >>> sorted(kinds_of(["audio", "captions.title", "events"]))
    ['audio', 'text']
    """
    return {"text" if is_text(field) else field for field in fields}


def text_types(fields: Iterable[str]) -> list[str]:
    """Returns the types of the captions among fields of a batch.

    >>> text_types(["audio", "captions.title", "events"])
    ['title']
    """
    return sorted(field.removeprefix("captions.") for field in fields if field.startswith("captions."))


def computes_in_half(device: torch.device, precision: Precision) -> bool:
    """Returns whether a precision means bfloat16 autocast on a device.

    Raises:
        ValueError: if the precision is unknown, or the device cannot compute in it.
    """
    able = device.type != "cuda" or torch.cuda.is_bf16_supported()
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', not {precision!r}")
    if precision == "bf16" and not able:
        raise ValueError("precision='bf16': this GPU does not compute in bfloat16; 'fp32' works everywhere")
    return precision == "bf16" or (precision == "auto" and device.type == "cuda" and able)


@contextmanager
def evaluating(model: EmbeddingModel, precision: Precision) -> Iterator[torch.device]:
    """Puts a model into evaluation mode, without gradients and in a precision, and gives it back as it was.

    Raises:
        ValueError: if the precision is unknown, or the device cannot compute in it.
    """
    device = next(model.parameters()).device
    half = computes_in_half(device, precision)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            yield device
    finally:
        for module, training in modes:
            module.training = training


class MediaEmbedder:
    """Splits items into windows, runs windows through a model, and joins what comes out.

    Args:
        model: the model.
        names: the embeddings wanted; those of a medium and a text need the items' texts.
        media: what a clip looks like to the model.
        window_seconds: longer items are embedded in windows of this length; None for whole items.
        overlap_seconds: what neighbouring windows share.
        precision: `auto`, `fp32` or `bf16`.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        names: Collection[str],
        media: MediaSettings,
        window_seconds: Seconds | None,
        overlap_seconds: Seconds = 0.0,
        precision: Precision = "auto",
    ) -> None:
        self.model, self.media, self.precision = model, media, precision
        self.pooled_names = [name for name in model.pooled_names if name in names]
        self.frame_names = [name for name in model.frame_names if name in names]
        self.window_seconds, self.overlap_seconds = window_seconds, overlap_seconds
        self.reads = {name: model.fields_for([name]) for name in {*self.pooled_names, *self.frame_names}}
        self._grid: tuple[Seconds | None] | None = None

    def plan(self, row: int, item: MediaItem) -> list[Request]:
        """Returns the windows of an item.

        Raises:
            ValueError: if the settings of the windows are out of range, or frames cannot be joined over windows.
        """
        windows = plan_windows(item.seconds, self.window_seconds, self.overlap_seconds)
        if len(windows) > 1 and self.frame_names:
            windows = plan_windows(item.seconds, self.window_seconds, self.overlap_seconds, self.frame_grid())
        return [Request(row, item, window, self.media) for window in windows]

    def run(self, loaded: Sequence[Loaded], texts: TextInput | None = None) -> list[Output]:
        """Embeds windows.

        Args:
            loaded: B decoded windows.
            texts: B texts that belong to them.

        Returns:
            B outputs, on the CPU in float32; an embedding is missing where the window lacks what it is made of.
        """
        batch = make_batch(loaded, self.media, texts, text_types(frozenset().union(*self.reads.values())))
        names = [name for name, fields in self.reads.items() if fields <= batch.held]
        frames = [name for name in self.frame_names if name in names]
        rate = self.media.sample_rate
        outputs = [Output(audio_seconds=0.0 if one.samples is None else len(one.samples) / rate) for one in loaded]
        with evaluating(self.model, self.precision) as device:
            found = self.model.embed_batch(batch.to(device), names, frames)
        for name, embedding in found.items():
            present = embedding.present.tolist()
            if name in self.pooled_names:
                pooled = embedding.pooled.float().cpu()
                for row in np.flatnonzero(present):
                    outputs[row].pooled[name] = pooled[row]
            if name in frames and embedding.frames is not None and embedding.mask is not None:
                sequence, mask = embedding.frames.float().cpu(), embedding.mask.cpu()
                for row in np.flatnonzero(present):
                    outputs[row].frames[name] = sequence[row][mask[row]]
                    outputs[row].frame_seconds[name] = _seconds_of(embedding.frame_seconds, int(row))
        return outputs

    def join(self, requests: Sequence[Request], outputs: Sequence[Output]) -> Output:
        """Joins what the windows of one item gave, in the order of time."""
        joined = Output()
        for name in self.pooled_names:
            having = [row for row, output in enumerate(outputs) if name in output.pooled]
            if having:
                vectors = torch.stack([outputs[row].pooled[name] for row in having])
                weights = [self._weight(requests[row], outputs[row], name) for row in having]
                joined.pooled[name] = average_windows(vectors, weights, self.model.normalize)
        for name in self.frame_names:
            having = [row for row, output in enumerate(outputs) if name in output.frames]
            if having:
                steps = [outputs[row].frame_seconds[name] for row in having]
                starts = [requests[row].window.start for row in having]
                joined.frames[name] = stitch_windows([outputs[row].frames[name] for row in having], starts, steps)
                joined.frame_seconds[name] = steps[0]
        return joined

    def _weight(self, request: Request, output: Output, name: str) -> Seconds:
        covered = {"audio": output.audio_seconds, "video": request.covered("video")}
        return min(seconds for medium, seconds in covered.items() if medium in self.reads[name])

    def frame_grid(self) -> Seconds | None:
        """Returns the time between two frames of the model's sequences, on which windows must start: asked of the model itself.

        Raises:
            ValueError: if they follow no clock.
        """
        if self._grid is None:
            timed = [name for name in self.frame_names if "audio" in self.reads[name]]
            if len(timed) < len(self.frame_names):
                rest = ", ".join(name for name in self.frame_names if name not in timed)
                raise ValueError(
                    f"frames of {rest} follow the frames of the video, not a clock, so that windows cannot be joined: embed the media "
                    "whole with window_seconds=None"
                )
            silence = np.zeros(self.media.sample_rate, np.float32)
            black = np.zeros((1, 3, self.media.frame_size, self.media.frame_size), np.uint8)
            output = self.run([Loaded(silence, black, 1.0)])[0]
            self._grid = (max(output.frame_seconds.values()),)
        return self._grid[0]


def embed_texts(
    model: EmbeddingModel, texts: Sequence[str], names: Sequence[str], precision: Precision = "auto"
) -> dict[str, Tensor]:
    """Embeds texts by the heads named; returns (N, D) float32 on the CPU, by name."""
    tokens = tokenize(model, texts)
    # The longest that any of the model's tokenizers makes of a text.
    every: list[TextInput | Tokens] = [tokens, *tokens.others.values()]
    lengths = torch.stack([some.mask.sum(1) for some in every]).amax(0).tolist()
    outputs = {name: torch.zeros(len(texts), model.embedding_dim) for name in names}
    order = sorted(range(len(texts)), key=lambda row: lengths[row])
    types = text_types(model.fields_for(names))
    while order:
        count = 1
        while count < len(order) and (count + 1) * lengths[order[count]] <= _TOKENS_AT_ONCE:
            count += 1
        rows, order = order[:count], order[count:]
        with evaluating(model, precision) as device:
            found = model.embed_batch(text_batch(select_texts(tokens, rows), types).to(device), names)
        for name in names:
            outputs[name][rows] = found[name].pooled.float().cpu()
    return outputs


def tokenize(model: EmbeddingModel, texts: Sequence[str]) -> TextInput:
    """Tokenizes N texts by the model's own tokenizer.

    Raises:
        ValueError: if the model has none.
    """
    known = model.tokenizers()
    if not known:
        raise ValueError(
            "this model has no tokenizer, so that it cannot read text: its folder holds no tokenizer.json. Put one there, or give "
            "token ids to model(input_ids=...)"
        )
    # Every text is read by every head: one set of ids for each tokenizer that the model has.
    merged: dict[str, TokenizeTexts] = {}
    for encoders in known.fields.values():
        merged |= encoders
    return Tokenizers({"captions": merged}).tokenize("captions", texts)


def select_texts(texts: TextInput, rows: Sequence[int]) -> TextInput:
    """Returns some rows of texts, cut to the longest of them."""
    index = torch.tensor(list(rows), dtype=torch.int64)

    def cut(tokens: TextInput | Tokens) -> Tokens:
        mask = tokens.mask[index]
        length = max(1, int(mask.sum(1).max()))
        return Tokens(tokens.input_ids[index, :length], mask[:, :length])

    own = cut(texts)
    strings = tuple(texts.texts[row] for row in rows)
    others = {name: cut(tokens) for name, tokens in texts.others.items()}
    return TextInput(own.input_ids, own.mask, texts.present[index], texts.group[index], strings, others)


def _seconds_of(seconds: Tensor | Seconds | None, row: int) -> Seconds:
    if isinstance(seconds, Tensor):
        return float(seconds.reshape(-1)[row if seconds.numel() > 1 else 0])
    return float("nan") if seconds is None else float(seconds)
