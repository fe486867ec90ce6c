"""What is installed is what is pinned, and the torch family fits together."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

PINS = dict(
    re.findall(r"^([\w.-]+)==(\S+)$", (Path(__file__).parents[1] / "constraints.txt").read_text(), re.MULTILINE)
)


@pytest.mark.parametrize(
    "name",
    ["torch", "torchvision", "torchaudio", "torchcodec", "lightning", "litdata", "lhotse", "transformers", "timm"],
)
def test_pinned_version_is_installed(name: str) -> None:
    assert version(name) == PINS[name]


def test_the_torch_family_works_together() -> None:
    import torch
    import torchaudio
    import torchvision
    from torchcodec.decoders import AudioDecoder

    assert torchaudio.functional.resample(torch.zeros(1, 100), 100, 50).shape == (1, 50)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert torchvision.ops.nms(boxes, torch.ones(1), 0.5).tolist() == [0]
    assert AudioDecoder.__name__ == "AudioDecoder"
