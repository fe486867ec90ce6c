"""PEAV: the model as people use it, from checkpoints, files and texts to embeddings, scores and events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from torch import Tensor

from peav import inputs
from peav.checkpoints import (
    Format,
    Pair,
    Trust,
    building,
    load_exactly,
    read_checkpoint,
    write_checkpoint,
)
from peav.embedding_model import EmbeddingModel
from peav.released import TensorInputs, batch_from_tensors, score_pair

log = logging.getLogger(__name__)


class PEAV(EmbeddingModel):
    """Audio, video and text in one space: reads checkpoints, embeds media and texts, scores pairs, finds events.

    `PEAV.from_pretrained` reads released models and those of `peav fit`; the constructor is that of
    :class:`peav.embedding_model.EmbeddingModel`.
    """

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, revision: str | None = None, trust: bool = False) -> Self:
        """Reads a model, in evaluation mode.

        Args:
            path_or_id: a folder in Meta's format, transformers' or peav's own; a `.ckpt` of `peav fit`; or a repository of the hub,
                such as `facebook/pe-av-small`.
            revision: of the repository. The released ones hold transformers' format on `main`, with the scales and biases of six
                pairs, and Meta's on `perception_models`, without.
            trust: let the file name classes by their dotted path, whose modules are then imported, and arguments that lead to other
                files. Nothing that a file holds runs otherwise (docs/security.md).

        Raises:
            CheckpointError: if it is none of these; missing, unexpected and misshapen tensors are listed.
            TrustError: if it names what only `trust` allows.
        """
        checkpoint = read_checkpoint(path_or_id, revision, Trust.of(trust))
        with building(checkpoint.numbers, checkpoint.source):
            model = cls.from_spec(checkpoint.spec, checkpoint.trust)
        expected = model.state_dict()
        state, unused = checkpoint.convert(expected)
        load_exactly(model, state, checkpoint.source)
        model.unused = dict(unused)
        if missing := model.missing_pairs:
            log.info(
                "%s holds no scale and bias for %s: similarity() needs them, and training initialises them anew",
                checkpoint.source,
                ", ".join(" x ".join(pair) for pair in missing),
            )
        return model.eval()

    def save_pretrained(self, path: str | Path, format: Format = "peav") -> Path:
        """Writes the model as safetensors and JSON.

        Args:
            path: folder to write.
            format: `peav`; `meta`, which Meta's code reads; or `transformers`, which transformers' classes read.

        Raises:
            CheckpointError: if the format cannot hold the model; the message says what would be lost.
        """
        known = [e.tokenizer_json for e in self.each_encoder().values() if e.tokenizer_json is not None]
        return write_checkpoint(path, self.spec, self.state_dict(), self.unused, next(iter(known), None), format)

    #: From paths, arrays, pictures and strings to embeddings; and, by frame-level models, to events. See `peav.inputs`.
    embed, detect, detect_stream = inputs.embed, inputs.detect, inputs.detect_stream

    def similarity(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor], pair: Pair | None = None) -> Tensor:
        """Computes the logits of a's rows against b's, `scale * <a_i, b_j> + bias`, as trained; `.sigmoid()` makes them probabilities.

        Args:
            a: embeddings by name, as `embed` and calling the model return them.
            b: likewise.
            pair: which to compare, where several are possible. Beside `NAME_frames`, `NAME` is frames against event phrases alone.

        Returns:
            (N, M) for embeddings (N, D) and (M, D); (N, M, T) where one side is frames (., T, D).

        Raises:
            ValueError: if no pair that the model knows, or more than one, is between `a` and `b`.
            KeyError: if the checkpoint holds no scale and bias for the pair asked for.
        """
        return score_pair(self, a, b, pair)

    def forward(
        self,
        input_values: Tensor | None = None,
        padding_mask: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        padding_mask_videos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        codec_features: Tensor | None = None,
        frame_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Computes embeddings under transformers' argument names: every one that the inputs allow, and no other.

        Waveforms that are shorter than the batch see the zeros that pad them, as in the released code; `embed` and training encode
        each clip as if it were alone.

        Args:
            input_values: (B, 1, S) or (B, S) waveforms at the model's sample rate.
            padding_mask: (B, S) bool, True = valid; with `codec_features`, (B, T).
            pixel_values_videos: (B, F, 3, H, W) frames scaled to [-1, 1], or uint8.
            padding_mask_videos: (B, F) bool.
            input_ids: (N, L) token ids.
            attention_mask: (N, L).
            codec_features: (B, T, C) what the DAC-VAE made of the waveforms, in their place.
            frame_features: (B, F, C) what the frame encoder made of the frames, in their place.

        Returns:
            embeddings (B, D) or (N, D) by name; `audio_frames` (B, T, D) of a frame-level model. Queries of a medium and a text are
            made where their numbers are equal. A row that is masked throughout gives a vector that means nothing.

        Raises:
            ValueError: if nothing is given, something is given twice, is NaN or out of scale, or the numbers of audios and videos
                differ, or a token is not of the vocabulary.
        """
        audio = next((encoder for encoder in self.each_encoder().values() if "audio" in encoder.frontends), None)
        inputs = TensorInputs(
            input_values,
            padding_mask,
            pixel_values_videos,
            padding_mask_videos,
            input_ids,
            attention_mask,
            codec_features,
            frame_features,
        )
        known = [e.vocab_size for e in self.each_encoder().values() if e.vocab_size is not None]
        batch, rows = batch_from_tensors(inputs, audio, self.media, min(known, default=None))
        return self.allowed(batch, rows)
