"""Encoders of the released architecture compile whole: no graph break, no control flow that depends on data."""

from __future__ import annotations

import pytest
import torch

from peav.encoders import FusionEncoder
from peav.masking import lengths_to_mask
from peav.types import Features


@pytest.mark.slow
def test_fusion_compiles_with_fullgraph_and_gives_the_same() -> None:
    encoder = FusionEncoder(audio_dim=32, video_dim=32, dim=32, num_layers=2, num_heads=2)
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")

    def inputs(audio: list[int], video: list[int], grad: bool = False) -> dict[str, Features]:
        found = {}
        for name, lengths in (("audio", audio), ("video", video)):
            mask = lengths_to_mask(torch.tensor(lengths), 12)
            frames = torch.randn(len(lengths), 12, 32, requires_grad=grad)
            rows = torch.arange(len(lengths))
            present = mask.any(1)
            found[f"features.{name}"] = Features(torch.randn(len(lengths), 32), present, rows, frames, mask, 0.04)
        return found

    # One graph serves any lengths: they are data, and nothing branches on them.
    for audio, video in (([12, 7, 3], [5, 12, 1]), ([4, 4, 12], [12, 2, 9]), ([12, 12, 12], [12, 12, 12])):
        given = inputs(audio, video, grad=True)
        expected, found = (
            encoder(given, ["audio_video"])["audio_video"],
            compiled(given, ["audio_video"])["audio_video"],
        )
        torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.frames, expected.frames, atol=1e-5, rtol=1e-4)
        gradients = []
        for output in (expected, found):
            output.pooled.square().sum().backward()
            gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
            encoder.zero_grad()
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
