"""What an encoder declares beside its features, clause by clause; `check_encoder` runs them all."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from peav.encoders.base import Encoder
from peav.masking import SpanMasking
from peav.testing.rows import require, take
from peav.types import AudioInput, CachedFeatures, Features

#: Of lengths that differ, with a name, a number and letters beyond ASCII.
_TEXTS = ("a bell rings", "Zürich, 3 a.m.: a dog barks twice", "x")


def check_configuration(make: Callable[[], Encoder]) -> None:
    """An encoder is rebuilt from its configuration, plain data, to the same weights' names and the same features."""
    encoder = make()
    config = encoder.config
    require(json.loads(json.dumps(config)) == config, "`config` must be plain data that JSON holds as it is")
    again = type(encoder)(**config["init_args"])
    found, expected = again.state_dict(), encoder.state_dict()
    require(
        {key: tensor.shape for key, tensor in found.items()} == {key: tensor.shape for key, tensor in expected.items()},
        "an encoder that is built from its `config` has other tensors",
    )
    provided = type(encoder).provided(config["init_args"])
    require(
        dict(provided) == dict(encoder.provides),
        f"`provided` says {dict(provided)} of these arguments, but the encoder that was built with them provides {dict(encoder.provides)}",
    )
    require(
        set(encoder.dims) >= set(encoder.provides), f"`dims` lacks {sorted(set(encoder.provides) - set(encoder.dims))}"
    )


def check_tokenizer(encoder: Encoder) -> None:
    """A tokenizer is picklable, gives ids that the encoder knows, and treats each text by itself."""
    tokenize = encoder.tokenize
    if tokenize is None:
        return
    ids, mask = tokenize(list(_TEXTS))
    require(
        ids.dtype == torch.int64 and mask.dtype == torch.bool and ids.shape == mask.shape and ids.ndim == 2,
        f"`tokenize` must return ids (N, L) int64 and a mask (N, L) bool, not {tuple(ids.shape)} {ids.dtype} and {tuple(mask.shape)} "
        f"{mask.dtype}",
    )
    require(len(ids) == len(_TEXTS), f"`tokenize` made {len(ids)} rows of {len(_TEXTS)} texts")
    require(mask.any(1).all(), "`tokenize` left a text without any token")
    require(
        (mask.long().diff(dim=1) <= 0).all(), "the tokens of a text must stand at its start: padding comes after them"
    )
    require(encoder.vocab_size is not None, "an encoder with `tokenize` must say its `vocab_size`")
    require(
        bool((ids[mask] >= 0).all()) and int(ids[mask].max()) < int(encoder.vocab_size or 0),
        f"`tokenize` gave ids outside of 0..{int(encoder.vocab_size or 0) - 1}",
    )
    for row, text in enumerate(_TEXTS):
        alone, alone_mask = tokenize([text])
        require(torch.equal(alone[alone_mask], ids[row][mask[row]]), f"the company of a text changes its ids: {text!r}")
    other, other_mask = pickle.loads(pickle.dumps(tokenize))(list(_TEXTS))
    require(
        torch.equal(ids, other) and torch.equal(mask, other_mask),
        "`tokenize` must work again after pickling: workers of the data loader run it",
    )


def check_format(encoder: Encoder, inputs: Mapping[str, Any], names: Collection[str]) -> None:
    """Sound at another rate than the encoder declares is an error, not noise."""
    rate = encoder.clip_format.sample_rate
    audio = inputs.get("audio")
    if rate is None or not isinstance(audio, AudioInput):
        return
    try:
        encoder({**inputs, "audio": replace(audio, sample_rate=rate + 50)}, names)
    except ValueError:
        return
    raise AssertionError(f"the encoder declares sample_rate={rate} and takes sound at {rate + 50} Hz without a word")


def check_frontends(
    encoder: Encoder,
    inputs: Mapping[str, Any],
    names: Collection[str],
    same: Callable[[Mapping[str, Features], Mapping[str, Features], str], None],
) -> None:
    """What a frozen frontend made stands for the media, whoever was beside a clip; the frontend has no trained parameter."""
    for name, frontend in encoder.frontends.items():
        require(name in inputs, f"`frontends` names {name!r}, which the encoder does not read")
        require(
            any(module is frontend.module for module in encoder.modules()),
            f"the frontend of {name!r} is no part of the encoder",
        )
        require(
            not any(parameter.requires_grad for parameter in frontend.module.parameters()),
            f"the frontend of {name!r} has parameters that are trained: what it makes cannot be kept",
        )
        made = encoder.frontend_features(name, inputs[name])
        require(
            isinstance(made, CachedFeatures),
            f"`frontend_features` must return CachedFeatures, not {type(made).__name__}",
        )
        require(
            made.values.shape[-1] == frontend.dim and made.values.shape[:2] == made.mask.shape,
            f"features of {name!r} are {tuple(made.values.shape)}, their mask {tuple(made.mask.shape)}; declared: {frontend.dim}",
        )
        if frontend.seconds is not None:
            hops = torch.as_tensor(made.frame_seconds)
            require(
                torch.allclose(hops.double(), torch.tensor(frontend.seconds).double()),
                f"the hop of {name!r} is not as declared",
            )
        garbage = torch.where(made.mask.unsqueeze(-1), made.values, torch.nan)
        kept = encoder({**inputs, name: replace(made, values=garbage)}, names)
        same(encoder(inputs, names), kept, f"features of {name!r} in place of the media change")
        alone = encoder.frontend_features(name, take(inputs[name], torch.tensor([1])))
        require(
            torch.allclose(alone.values[0][alone.mask[0]], made.values[1][made.mask[1]], atol=1e-4, rtol=1e-4),
            f"the company of a clip changes what the frontend of {name!r} makes of it",
        )


def check_hiding(encoder: Encoder, inputs: Mapping[str, Any], names: Collection[str]) -> None:
    """Spans are hidden in training where they are asked for, and said; nowhere else."""
    for name in encoder.hides:
        require(name in names, f"`hides` names {name!r}, which the encoder does not provide")
        encoder.train()
        encoder.hide(name, SpanMasking(rate=0.3, span=2))
        feature = encoder(inputs, names)[name]
        encoder.eval()
        seen = encoder(inputs, names)[name]
        encoder.hide(name, None)
        encoder.train()
        whole = encoder(inputs, names)[name]
        require(
            feature.inputs is not None and feature.hidden is not None and feature.mask is not None,
            f"{name!r} is to be hidden, but `Features.inputs` and `Features.hidden` do not say what and where",
        )
        if feature.inputs is None or feature.hidden is None or feature.mask is None:
            return
        require(
            feature.hidden.shape == feature.mask.shape == feature.inputs.shape[:2]
            and not bool((feature.hidden & ~feature.mask).any()),
            f"hidden frames of {name!r} must be frames of the clip",
        )
        require(feature.hidden.any(), f"nothing of {name!r} is hidden in training")
        require(
            feature.inputs.is_floating_point() and float(feature.inputs[feature.mask].float().std()) > 0,
            f"`Features.inputs` of {name!r} must be what the frontend made, before anything was hidden: it is constant",
        )
        require(
            not torch.allclose(feature.pooled, whole.pooled),
            f"`Features.hidden` says that frames of {name!r} are hidden, but what the encoder makes of them is the same",
        )
        require(
            seen.hidden is None and whole.hidden is None,
            f"{name!r} is hidden outside of training, or after `hide(name, None)`",
        )
    try:
        encoder.hide("no such feature", SpanMasking())
    except ValueError:
        return
    raise AssertionError("`hide` must raise ValueError for a feature that is not among `hides`")


def check_shared_heads(encoder: Encoder) -> None:
    """What goes through the head of another feature is of its dimension, and that one has a head of its own."""
    shared = {name: other for name, other in encoder.shared_heads.items() if name in encoder.provides}
    for name, other in shared.items():
        require(
            other in encoder.provides and other not in shared and encoder.dims[other] == encoder.dims[name],
            f"{name!r} goes through the head of {other!r}, which must be provided, have a head of its own and be of one dimension with it",
        )


def check_stacks(encoder: Encoder) -> None:
    """Stacks are made of the encoder's own layers, each named once, and none that is tuned belongs to a frozen frontend."""
    own = {id(module) for module in encoder.modules()}
    frozen = {id(p) for frontend in encoder.frontends.values() for p in frontend.module.parameters()}
    seen: set[int] = set()
    for stack in encoder.stacks():
        for module in (*stack.layers, *stack.after):
            require(id(module) in own, f"`stacks` names a {type(module).__name__} that is no part of the encoder")
            require(id(module) not in seen, f"`stacks` names a {type(module).__name__} twice")
            seen.add(id(module))
            if not stack.frontend:
                require(
                    not any(id(parameter) in frozen for parameter in module.parameters()),
                    f"`stacks` offers layers of a frozen frontend ({type(module).__name__}) to be tuned: say frontend=True",
                )


def check_dtypes(make: Callable[[], Encoder], inputs: Mapping[str, Any], names: Collection[str]) -> None:
    """Features are finite under bf16 autocast, and in models that are bf16 or float64 throughout, with media in that type."""
    encoder = make()
    with torch.autocast("cpu", torch.bfloat16):
        _finite(encoder(inputs, names), "under bf16 autocast")
    for dtype in (torch.bfloat16, torch.float64):
        _finite(make().to(dtype)({key: _cast(value, dtype) for key, value in inputs.items()}, names), f"in {dtype}")


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Media and features in a floating point type, as Lightning's `bf16-true` and `64-true` deliver them."""
    if isinstance(value, AudioInput):
        return replace(value, samples=value.samples.to(dtype))
    if isinstance(value, CachedFeatures):
        return replace(value, values=value.values.to(dtype))
    if isinstance(value, Features):
        frames = None if value.frames is None else value.frames.to(dtype)
        return replace(value, pooled=value.pooled.to(dtype), frames=frames)
    return value


def _finite(features: Mapping[str, Features], where: str) -> None:
    for name, feature in features.items():
        tensors: list[Tensor] = [feature.pooled]
        if feature.frames is not None and feature.mask is not None:
            tensors.append(feature.frames[feature.mask])
        for tensor in tensors:
            require(tensor.is_floating_point() and torch.isfinite(tensor).all(), f"{name!r} is not finite {where}")
