"""Every registered encoder keeps the public contract."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch

from peav import registry
from peav.embedding_model import EmbeddingModel
from peav.encoders import MelAudioEncoder, TextEncoder
from peav.testing import check_encoder
from peav.types import Features
from tests.helpers import SMALL_ENCODERS, small_tokenizer


@pytest.mark.parametrize("name", list(registry.encoders))
def test_contract(name: str) -> None:
    check_encoder(SMALL_ENCODERS[name])


def test_transcripts_keep_it_too() -> None:
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    check_encoder(lambda: TextEncoder(small_tokenizer(), options=options, captions=["audio", "transcript"]))


def test_a_head_that_is_not_there_cannot_be_shared() -> None:
    class Homeless(MelAudioEncoder):
        shared_heads = MappingProxyType({"audio": "sound"})

    with pytest.raises(AssertionError, match="'audio' goes through the head of 'sound'"):
        check_encoder(lambda: Homeless(dim=16, num_layers=1, num_heads=2, num_mels=16))
    with pytest.raises(
        ValueError, match="lets 'audio', of dimension 16, go through the head of 'sound', which it does not"
    ):
        EmbeddingModel({"mine": Homeless(dim=16, num_layers=1, num_heads=2, num_mels=16)})


class Sabotaged(MelAudioEncoder):
    """Ours, with one promise broken, given by its name."""

    def __init__(self, broken: str = "") -> None:
        super().__init__(dim=16, num_layers=1, num_heads=2, num_mels=16)
        self.broken = broken

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        feature = super().forward(inputs, names)["audio"]
        changes: dict[str, Any] = {
            "group": {"group": torch.arange(len(feature.group))},
            "present": {"present": torch.ones_like(feature.present)},
            "mask": {"mask": None if feature.mask is None else torch.ones_like(feature.mask)},
            "hop": {"frame_seconds": 17.0},
            "zero inputs": {"inputs": None if feature.inputs is None else torch.zeros_like(feature.inputs)},
        }
        if self.broken == "only said" and feature.hidden is not None:
            spans, self.hidden_spans = self.hidden_spans, {}
            seen = super().forward(inputs, names)["audio"]
            self.hidden_spans = spans
            return {"audio": replace(seen, inputs=feature.inputs, hidden=feature.hidden)}
        return {"audio": replace(feature, **changes.get(self.broken, {}))}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("group", "`group` of 'audio' is not that of its inputs"),
        ("present", "`present` of 'audio' ignores a missing input"),
        ("mask", "its mask or hop is off"),
        ("hop", "its mask or hop is off"),
        ("zero inputs", "it is constant"),
        ("only said", "what the encoder makes of them is the same"),
    ],
)
def test_a_broken_promise_is_found(broken: str, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_encoder(lambda: Sabotaged(broken))


def test_what_is_not_broken_passes() -> None:
    check_encoder(Sabotaged)
