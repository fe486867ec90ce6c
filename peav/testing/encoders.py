"""The contract of encoders."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from peav.encoders.base import Encoder
from peav.masking import lengths_to_mask
from peav.testing.declared import (
    check_configuration,
    check_dtypes,
    check_format,
    check_frontends,
    check_hiding,
    check_shared_heads,
    check_stacks,
    check_tokenizer,
)
from peav.testing.rows import require, take
from peav.testing.tiny import SAMPLE_RATE, tiny_batch
from peav.types import AudioInput, Batch, EventInput, Features, FieldInput, TextInput, VideoInput


def check_encoder(make: Callable[[], Encoder], batch: Batch | None = None, atol: float = 1e-5) -> None:
    """Runs the contract of encoders.

    The features have the declared names, dimensions and rows; garbage in padded slots, the order and the company of a clip change
    nothing; clips that lack the input come out as not present, without NaN; every trainable parameter gets a gradient. Then what the
    encoder declares beside (`peav.testing.declared`): its configuration, tokenizer, format of a clip, frozen frontends, what it hides,
    its layers, and that it computes in bf16 and float64.

    Args:
        make: builds the encoder, which should have no dropout.
        batch: clips to encode; at least four, a tiny one in the format that the encoder declares by default.
        atol: tolerance of "changes nothing", for features of unit size.

    Raises:
        AssertionError: naming the first clause that does not hold.
    """
    torch.manual_seed(0)
    encoder = make()
    require(bool(encoder.provides), "an encoder must say what it `provides`")
    if batch is None:
        batch = tiny_batch(
            image_size=encoder.clip_format.frame_size or 32, sample_rate=encoder.clip_format.sample_rate or SAMPLE_RATE
        )
    names = list(encoder.provides)
    inputs = _encoder_inputs(encoder, batch)
    of_phrases = {name for name in names if "events" in encoder.provides[name]}
    outputs = encoder(inputs, names)
    require(set(outputs) == set(names), f"asked for {names}, the encoder returned {sorted(outputs)}")
    for name, feature in outputs.items():
        rows = len(inputs["events"].phrases.group) if name in of_phrases else len(batch)
        require(
            feature.pooled.shape == (rows, encoder.dims[name]),
            f"pooled {name!r} is {tuple(feature.pooled.shape)}, declared ({rows}, {encoder.dims[name]})",
        )
        require(feature.present.dtype == torch.bool and len(feature.present) == rows, f"`present` of {name!r} is off")
        if feature.frames is not None:
            require(
                feature.mask is not None and feature.frame_seconds is not None, f"frames of {name!r} need mask and hop"
            )
            require(feature.frames.shape[:2] == feature.mask.shape, f"frames and mask of {name!r} differ")
            _check_seconds(name, feature, [inputs[source] for source in encoder.provides[name]])
    single = encoder(inputs, names[:1])
    require(set(single) == {names[0]}, "only the names asked for may be computed")

    _same(outputs, encoder(_garbage(inputs), names), atol, "garbage in padded slots changes")
    order = torch.tensor([2, 0, 3, 1])
    _same(
        {name: f if name in of_phrases else take(f, order) for name, f in outputs.items()},
        encoder({key: take(value, order) for key, value in inputs.items()}, names),
        atol,
        "the order of the clips changes",
    )
    _same(
        {name: f if name in of_phrases else take(f, order[:1]) for name, f in outputs.items()},
        encoder({key: take(value, order[:1]) for key, value in inputs.items()}, names),
        atol,
        "the company of a clip changes",
    )
    _check_groups(encoder, inputs, names)
    _check_absent_inputs(encoder, inputs, [name for name in names if name not in of_phrases], outputs, atol)
    loss = sum(
        (f.pooled.square().mean() + f.pooled[..., :1].sum() + (0 if f.frames is None else f.frames[..., :1].sum()))
        for f in encoder(inputs, names).values()
    )
    parameters = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    if parameters:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            require(
                gradient is not None and gradient.abs().sum() > 0, f"the trainable parameter {name!r} gets no gradient"
            )
    check_configuration(make)
    check_tokenizer(encoder)
    check_format(encoder, inputs, names)
    check_frontends(encoder, inputs, names, lambda left, right, what: _same(left, right, 10 * atol, what))
    check_hiding(encoder, inputs, names)
    check_shared_heads(encoder)
    check_stacks(encoder)
    check_dtypes(make, inputs, names)


def _check_seconds(name: str, feature: Features, sources: list[Any]) -> None:
    """Frames times the time between two of them is how long the medium lasts, to a frame."""
    if feature.mask is None or feature.frame_seconds is None or len(sources) != 1:
        return
    source = sources[0]
    if isinstance(source, AudioInput):
        lasts = source.mask.sum(1) / source.sample_rate
    elif isinstance(source, VideoInput):
        lasts = source.mask.sum(1) * source.frame_seconds
    else:
        return
    hop = torch.as_tensor(feature.frame_seconds, dtype=torch.float32).expand(len(lasts))
    frames = feature.mask.sum(1)
    require(
        ((frames * hop - lasts).abs() <= hop + 1e-3)[feature.present].all(),
        f"{name!r} has {frames.tolist()} valid frames of {hop.tolist()} s for clips of {lasts.tolist()} s: its mask or hop is off",
    )


def _check_groups(encoder: Encoder, inputs: Mapping[str, Any], names: list[str]) -> None:
    """Rows made of the same input have one identity, and others another: duplicates are told by it."""
    alike: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, EventInput):
            group = value.phrases.group.clone()
            group[1] = group[0]
            alike[key] = replace(value, phrases=replace(value.phrases, group=group))
        else:
            group = value.group.clone()
            group[1] = group[0]
            alike[key] = replace(value, group=group)
    for name, feature in encoder(alike, names).items():
        require(
            feature.group[0] == feature.group[1] and len(feature.group.unique()) == len(feature.group) - 1,
            f"`group` of {name!r} is not that of its inputs: of rows whose inputs are equal it must be equal, of others different",
        )


def _encoder_inputs(encoder: Encoder, batch: Batch) -> dict[str, Any]:
    sources = {source for reads in encoder.provides.values() for source in reads}
    inputs: dict[str, Any] = {}
    for index, source in enumerate(sorted(sources)):
        if source.startswith("features."):
            name = source.removeprefix("features.")
            inputs[source] = _tiny_features(len(batch), encoder.input_dims.get(name, 16), seed=index)
        else:
            inputs[source] = batch.read(source)
    return inputs


def _tiny_features(num_rows: int, dim: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    mask = lengths_to_mask(torch.arange(num_rows) % 3 + 4 + seed)
    frames = torch.randn(*mask.shape, dim, generator=generator) * mask.unsqueeze(-1)
    pooled = torch.randn(num_rows, dim, generator=generator)
    return Features(pooled, torch.ones(num_rows, dtype=torch.bool), torch.arange(num_rows), frames, mask, 0.04)


def _garbage(inputs: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, AudioInput):
            changed[key] = replace(value, samples=torch.where(value.mask, value.samples, torch.nan))
        elif isinstance(value, VideoInput):
            changed[key] = replace(value, frames=torch.where(value.mask[..., None, None, None], value.frames, 255))
        elif isinstance(value, FieldInput):
            mask = value.mask.view(*value.mask.shape, *[1] * (value.values.ndim - 2))
            garbage = torch.nan if value.values.is_floating_point() else 7
            changed[key] = replace(value, values=torch.where(mask, value.values, garbage))
        elif isinstance(value, TextInput):
            changed[key] = replace(value, input_ids=torch.where(value.mask, value.input_ids, 7))
        elif isinstance(value, EventInput):
            phrases = value.phrases
            ids = torch.where(phrases.mask, phrases.input_ids, 7)
            changed[key] = replace(value, phrases=replace(phrases, input_ids=ids))
        elif isinstance(value, Features) and value.frames is not None and value.mask is not None:
            changed[key] = replace(value, frames=torch.where(value.mask.unsqueeze(-1), value.frames, 1e3))
        else:
            changed[key] = copy.copy(value)
    return changed


def _same(left: Mapping[str, Features], right: Mapping[str, Features], atol: float, what: str) -> None:
    for name, expected in left.items():
        found = right[name]
        require(torch.allclose(found.pooled, expected.pooled, atol=atol, rtol=1e-4), f"{what} the pooled {name!r}")
        if expected.frames is not None and expected.mask is not None and found.frames is not None:
            require(
                found.mask is not None and torch.equal(found.mask.sum(1), expected.mask.sum(1)),
                f"{what} the mask of {name!r}",
            )
            # Padding may be longer in one batch than in the other; the valid frames count.
            width = min(found.frames.shape[1], expected.frames.shape[1])
            valid = expected.mask[:, :width].unsqueeze(-1)
            a, b = found.frames[:, :width] * valid, expected.frames[:, :width] * valid
            require(torch.allclose(a, b, atol=atol, rtol=1e-4), f"{what} the frames of {name!r}")


def _check_absent_inputs(
    encoder: Encoder, inputs: Mapping[str, Any], names: list[str], outputs: Mapping[str, Features], atol: float
) -> None:
    gone: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, EventInput):
            gone[key] = value
            continue
        present = value.present.clone()
        present[1] = False
        changes: dict[str, Any] = {"present": present}
        if getattr(value, "mask", None) is not None:
            mask = value.mask.clone()
            mask[1] = False
            changes["mask"] = mask
        gone[key] = replace(value, **changes)
    if not names:
        return
    found = encoder(gone, names)
    for name, feature in found.items():
        require(
            not feature.present[1] and feature.present[[0, 2, 3]].all(),
            f"`present` of {name!r} ignores a missing input",
        )
        require(torch.isfinite(feature.pooled).all(), f"a missing input makes {name!r} NaN")
        rows = torch.tensor([0, 2, 3])
        _same(
            {name: take(outputs[name], rows)},
            {name: take(feature, rows)},
            atol,
            "a missing clip changes",
        )
