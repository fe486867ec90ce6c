"""Padding, garbage in masked slots, company and order change nothing in a model of the released architecture (fp32, 1e-4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from peav.model import PEAV
from peav.released import TensorInputs, batch_from_tensors
from peav.types import Batch
from tests.checkpoints.test_formats import released_like
from tests.checkpoints.test_transformers import inputs


@pytest.fixture(scope="module")
def model() -> PEAV:
    return released_like(seed=4)


def as_trained(model: PEAV, given: dict[str, Any]) -> Batch:
    """The batch that training and `embed` make: each clip alone."""
    tensors = TensorInputs(**given, codec_features=None, frame_features=None)
    return batch_from_tensors(tensors, None, model.media)[0]


def embed(model: PEAV, given: dict[str, Any]) -> dict[str, Tensor]:
    with torch.no_grad():
        found = model.embed_batch(as_trained(model, given), model.pooled_names, ["audio", "video", "audio_video"])
    outputs = {name: e.pooled for name, e in found.items()}
    for name in ("audio", "video", "audio_video"):
        frames, mask = found[name].frames, found[name].mask
        assert frames is not None and mask is not None
        outputs[f"{name}_frames"] = torch.where(mask.unsqueeze(-1), frames, 0)
    return outputs


def rows(given: dict[str, Any], chosen: list[int], cut: bool = False) -> dict[str, Any]:
    """Some rows; with `cut`, without their padding."""
    some = {name: value[chosen] for name, value in given.items()}
    if cut:
        for name, mask in (("input_values", "padding_mask"), ("pixel_values_videos", "padding_mask_videos")):
            length = int(some[mask].sum(1).max())
            some[name] = some[name][:, :, :length] if name == "input_values" else some[name][:, :length]
            some[mask] = some[mask][:, :length]
        length = int(some["attention_mask"].sum(1).max())
        some["input_ids"], some["attention_mask"] = some["input_ids"][:, :length], some["attention_mask"][:, :length]
    return some


def near(found: Tensor, expected: Tensor) -> None:
    length = min(found.shape[1], expected.shape[1])
    torch.testing.assert_close(found[:, :length], expected[:, :length], atol=1e-4, rtol=1e-4)


def test_a_clip_is_the_same_alone_and_in_company(model: PEAV) -> None:
    given = inputs(model)
    together = embed(model, given)
    for row in range(3):
        alone = embed(model, rows(given, [row], cut=True))
        for name, expected in together.items():
            near(alone[name], expected[row : row + 1])


def test_order_changes_nothing(model: PEAV) -> None:
    given, order = inputs(model), [2, 0, 1]
    plain, moved = embed(model, given), embed(model, rows(given, order))
    for name, expected in plain.items():
        near(moved[name], expected[order])


def test_garbage_in_masked_slots_changes_nothing(model: PEAV) -> None:
    given = inputs(model)
    plain = embed(model, given)
    wave, seen, read = (given[name].bool() for name in ("padding_mask", "padding_mask_videos", "attention_mask"))
    garbage = given | {
        "input_values": torch.where(wave[:, None], given["input_values"], torch.nan),
        "pixel_values_videos": torch.where(seen[..., None, None, None], given["pixel_values_videos"], torch.nan),
        "input_ids": torch.where(read, given["input_ids"], 17),
    }
    for name, expected in plain.items():
        near(embed(model, garbage)[name], expected)


def test_more_padding_changes_nothing(model: PEAV) -> None:
    given = inputs(model)
    plain = embed(model, given)
    longer = dict(given)
    longer["input_values"] = torch.nn.functional.pad(given["input_values"], (0, 7000))
    longer["padding_mask"] = torch.nn.functional.pad(given["padding_mask"], (0, 7000))
    longer["pixel_values_videos"] = torch.cat((given["pixel_values_videos"], given["pixel_values_videos"][:, :2]), 1)
    longer["padding_mask_videos"] = torch.nn.functional.pad(given["padding_mask_videos"], (0, 2))
    longer["input_ids"] = torch.nn.functional.pad(given["input_ids"], (0, 4), value=9)
    longer["attention_mask"] = torch.nn.functional.pad(given["attention_mask"], (0, 4))
    for name, expected in plain.items():
        near(embed(model, longer)[name], expected)


def test_a_clip_that_lacks_a_medium_is_absent_and_changes_no_other(model: PEAV) -> None:
    given = inputs(model)
    plain = embed(model, given)
    silent = given | {"padding_mask": given["padding_mask"] & torch.tensor([True, False, True])[:, None]}
    with torch.no_grad():
        found = model.embed_batch(as_trained(model, silent), model.pooled_names)
    for name in ("audio", "audio_video", "audio_plus_text"):
        assert found[name].present.tolist() == [True, False, True]
        assert found[name].pooled.isfinite().all()
        near(found[name].pooled[[0, 2]], plain[name][[0, 2]])
    assert found["video"].present.all()
    near(found["video"].pooled, plain["video"])
