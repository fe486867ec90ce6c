"""What the released models take and give: transformers' argument names, and scores of pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from peav.checkpoints import FRAME_PAIR, MediaSettings, Pair
from peav.embedding_model import EmbeddingModel
from peav.encoders.base import Encoder
from peav.types import CAPTION_TYPES, AudioInput, Batch, CachedFeatures, EventInput, TextInput, VideoInput

#: Beyond what any scaling of pixels gives: values up to 255 were not scaled at all.
_LARGEST_PIXEL = 10.0


class TensorInputs(NamedTuple):
    """Tensors under transformers' argument names; see :meth:`peav.model.PEAV.forward`."""

    input_values: Tensor | None
    padding_mask: Tensor | None
    pixel_values_videos: Tensor | None
    padding_mask_videos: Tensor | None
    input_ids: Tensor | None
    attention_mask: Tensor | None
    codec_features: Tensor | None
    frame_features: Tensor | None


def batch_from_tensors(
    inputs: TensorInputs, encoder: Encoder | None, media: MediaSettings, vocabulary: int | None = None
) -> tuple[Batch, Collection[int]]:
    """Makes a batch of tensors under transformers' names.

    Args:
        inputs: the tensors.
        encoder: whose frozen frontend of audio runs, by the released code's rule for padded waveforms; None where the model has none.
        media: of the model.
        vocabulary: how many tokens the model knows; None where nobody can say.

    Returns:
        the batch, and the different numbers of rows in it.

    Raises:
        ValueError: if nothing is given, something is given twice, the numbers of audios and videos differ, or a token is not of the
            vocabulary.
    """
    for one, other in (("input_values", "codec_features"), ("pixel_values_videos", "frame_features")):
        if getattr(inputs, one) is not None and getattr(inputs, other) is not None:
            raise ValueError(f"give {one} or {other}, not both: the second is what the frontend makes of the first")
    audio = _audio(inputs, encoder, media)
    video = _video(inputs)
    text = None if inputs.input_ids is None else _text(inputs.input_ids, inputs.attention_mask, vocabulary)
    rows = {len(value.present) for value in (audio, video, text) if value is not None}
    if not rows:
        raise ValueError(
            "nothing to embed: give input_values, pixel_values_videos or input_ids, or features in their place"
        )
    if audio is not None and video is not None and len(audio.present) != len(video.present):
        raise ValueError(
            f"{len(audio.present)} audios and {len(video.present)} videos: they belong together one by one"
        )
    number = len(audio.present) if audio is not None else len(video.present) if video is not None else 0
    captions, events = {}, None
    if text is not None:
        captions = dict.fromkeys(CAPTION_TYPES, text)
        none, index = (
            torch.zeros(0, device=text.mask.device),
            torch.zeros(0, dtype=torch.int64, device=text.mask.device),
        )
        events = EventInput(
            text, torch.zeros(number, dtype=torch.bool, device=text.mask.device), index, index, none, none
        )
    ids = tuple(str(row) for row in range(max(rows)))
    return Batch(ids, audio=audio, video=video, captions=captions, events=events), rows


def _audio(inputs: TensorInputs, encoder: Encoder | None, media: MediaSettings) -> AudioInput | CachedFeatures | None:
    values, features, mask = inputs.input_values, inputs.codec_features, inputs.padding_mask
    if features is not None:
        valid = _mask(mask, features.shape[:2], features.device, "padding_mask", "codec_features")
        seconds = encoder.frontends["audio"].seconds if encoder is not None else None
        hop = float("nan") if seconds is None else seconds
        return CachedFeatures(features, valid, valid.any(1), torch.arange(len(valid), device=valid.device), hop)
    if values is None:
        return None
    if values.ndim == 3:
        if values.shape[1] != 1:
            raise ValueError(
                f"input_values has {values.shape[1]} channels; the model hears one: embed(audio=...) mixes them down"
            )
        values = values.squeeze(1)
    if values.ndim != 2 or not values.numel():
        raise ValueError(
            f"input_values must be (B, 1, S) or (B, S), none of them 0, not of shape {tuple(values.shape)}"
        )
    valid = _mask(mask, values.shape, values.device, "padding_mask", "input_values")
    if not torch.isfinite(values[valid]).all():
        raise ValueError("input_values holds NaN or infinite samples where padding_mask is True")
    audio = AudioInput(values, valid, valid.any(1), torch.arange(len(values), device=values.device), media.sample_rate)
    return audio if encoder is None else encoder.frontend_features("audio", audio, padded=True)


def _video(inputs: TensorInputs) -> VideoInput | CachedFeatures | None:
    frames, features, mask = inputs.pixel_values_videos, inputs.frame_features, inputs.padding_mask_videos
    values = frames if frames is not None else features
    if values is None:
        return None
    if values.ndim != (5 if frames is not None else 3):
        raise ValueError(
            f"pixel_values_videos must be (B, F, 3, H, W) and frame_features (B, F, C), not of shape {tuple(values.shape)}"
        )
    valid = _mask(mask, values.shape[:2], values.device, "padding_mask_videos", "the frames")
    if frames is not None and frames.is_floating_point() and not bool((frames[valid].abs() <= _LARGEST_PIXEL).all()):
        raise ValueError(
            "pixel_values_videos must be uint8, or floating point scaled to [-1, 1]: x / 127.5 - 1, and finite"
        )
    group = torch.arange(len(values), device=values.device)
    seconds = torch.full((len(values),), torch.nan, device=values.device)  # of frames that come as tensors nobody knows
    kind = VideoInput if frames is not None else CachedFeatures
    return kind(values, valid, valid.any(1), group, seconds)


def _text(input_ids: Tensor, mask: Tensor | None, vocabulary: int | None) -> TextInput:
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be (N, L), not of shape {tuple(input_ids.shape)}")
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise ValueError(f"input_ids are whole numbers, not {input_ids.dtype}")
    valid = _mask(mask, input_ids.shape, input_ids.device, "attention_mask", "input_ids")
    # A look at the values of a GPU would wait for it; there torch's own assertion catches them.
    if vocabulary is not None and input_ids.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(value) for value in input_ids.aminmax()) if input_ids.numel() else (0, 0)
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"input_ids hold {low if low < 0 else high}, but the model's vocabulary has {vocabulary} tokens, 0 to {vocabulary - 1}: "
                "they come from another tokenizer"
            )
    return TextInput(input_ids, valid, valid.any(1), torch.arange(len(input_ids), device=input_ids.device))


def _mask(mask: Tensor | None, shape: Collection[int], device: torch.device, name: str, of: str) -> Tensor:
    size = tuple(shape)
    if mask is None:
        return torch.ones(size, dtype=torch.bool, device=device)
    if tuple(mask.shape) != size:
        raise ValueError(f"{name} is of shape {tuple(mask.shape)}, but {of} of {size}")
    return mask.bool()


def score_pair(model: EmbeddingModel, a: Mapping[str, Tensor], b: Mapping[str, Tensor], pair: Pair | None) -> Tensor:
    """Computes the logits of two sets of embeddings; see :meth:`peav.model.PEAV.similarity`."""
    for side in (a, b):
        if not isinstance(side, Mapping):
            raise ValueError(
                f"similarity takes embeddings by name, such as {{'audio': tensor}}, not a {type(side).__name__}"
            )
        for name, tensor in side.items():
            if tensor.ndim not in (2, 3):
                raise ValueError(f"{name!r} is of shape {tuple(tensor.shape)}; embeddings are (N, D), one row each")
    if pair is None:
        found = [
            (left, right)
            for left in a
            for right in b
            if {_pair(left, right), _pair(right, left)} & set(model.pairs)
            and (_read(a, _pair(left, right)[0], right), _read(b, _pair(left, right)[1], left)) == (left, right)
        ]
        if len(found) != 1:
            known = ", ".join(" x ".join(known) for known in model.pairs) or "none"
            what = "no pair" if not found else f"{len(found)} pairs ({', '.join(' x '.join(p) for p in found)})"
            raise ValueError(
                f"between {', '.join(a)} and {', '.join(b)} there is {what} that the checkpoint has a scale for ({known}); "
                "say which with pair=(LEFT, RIGHT), or multiply the embeddings for raw dot products"
            )
        pair = found[0]
    left, right = a.get(_read(a, *pair)), b.get(_read(b, *pair[::-1]))
    turned = left is None or right is None
    if turned:
        left, right = a.get(_read(a, *pair[::-1])), b.get(_read(b, *pair))
    if left is None or right is None:
        raise ValueError(f"{' x '.join(pair)} is not between {', '.join(a)} and {', '.join(b)}")
    names = _pair(*pair)
    if names not in model.pairs and names[::-1] in model.pairs:
        names, turned = names[::-1], not turned
    left, right = left.float(), right.float()
    by_text = names in model.text_pairs
    scale, bias = model.score(names, (left if turned else right) if by_text else None)
    scale, bias = scale.to(left.device), bias.to(left.device)
    if by_text:
        # The texts are the last dimension but for those of the frames, or the first.
        shape = (-1, 1, 1) if right.ndim == 3 else (-1, 1) if left.ndim == 3 or turned else (-1,)
        scale, bias = scale.view(shape), bias.view(shape)
    if left.ndim == 3:
        dots = torch.einsum("atd,kd->akt", left, right)
    elif right.ndim == 3:
        dots = torch.einsum("kd,atd->kat", left, right)
    else:
        dots = left @ right.mT
    return dots * scale + bias


def _pair(left: str, right: str) -> Pair:
    return left.removesuffix("_frames"), right.removesuffix("_frames")


def _read(embeddings: Mapping[str, Tensor], name: str, other: str) -> str:
    """Says whether an embedding is compared with another by its vector or by its frames, where both are there.

    Event phrases are trained against frames, everything else against vectors. `NAME_frames` asks for frames, and so does giving them alone.

    >>> both = {"audio": torch.zeros(2, 8), "audio_frames": torch.zeros(2, 5, 8)}
    >>> _read(both, "audio", "text_audio"), _read(both, "audio", "text_event")
    ('audio', 'audio_frames')
    """
    frames = f"{name}_frames"
    if frames in embeddings and (name not in embeddings or other == FRAME_PAIR[1]):
        return frames
    return name
