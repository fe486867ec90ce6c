"""The DAC in blocks computes what transformers' module computes of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peav.encoders import dac_blocks
from peav.encoders.dac import DacVaeFrontend


def make(ratios: tuple[int, ...], hidden: int = 4) -> DacVaeFrontend:
    torch.manual_seed(1)
    frontend = DacVaeFrontend(16000, hidden, ratios, 5).double()
    for name, parameter in frontend.named_parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5) if "alpha" in name else torch.nn.init.normal_(parameter, std=0.2)
    return frontend


@pytest.mark.parametrize("numbers", [1, 300, 5000, 1 << 20])
@pytest.mark.parametrize("ratios", [(2, 8, 10, 12), (3, 5), (2, 4, 7)])
def test_blocks_of_any_size_give_the_whole(
    ratios: tuple[int, ...], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strides that are odd among them, and waveforms shorter than what a frame sees."""
    frontend = make(ratios)
    hop = frontend.hop
    monkeypatch.setattr(dac_blocks, "_NUMBERS", numbers)
    monkeypatch.setattr(dac_blocks, "_LATE_NUMBERS", 2 * numbers)
    for hops in (1, 2, 3, 9) if numbers > 1 else (1,):
        wave = torch.randn(hops * hop, dtype=torch.float64)
        with torch.no_grad():
            expected = reference(frontend, wave)
            found = dac_blocks.BlockwiseDac(frontend.encoder, frontend.bottleneck).encode(wave)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def reference(frontend: DacVaeFrontend, wave: torch.Tensor) -> torch.Tensor:
    """transformers' module, without the hooks of ours."""
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacEncoder

    config = DacConfig(
        encoder_hidden_size=frontend.encoder.conv1.out_channels,
        downsampling_ratios=[block.conv1.stride[0] for block in frontend.encoder.block],
        codebook_dim=5,
    )
    theirs = DacEncoder(config).double()
    theirs.load_state_dict(frontend.encoder.state_dict())
    return frontend.bottleneck(theirs(wave[None, None])).mT[0]


def test_each_clip_of_a_batch_is_as_if_alone() -> None:
    frontend = make((2, 4, 7))
    lengths = [3 * frontend.hop + 5, 7 * frontend.hop, 1, 0]
    samples = torch.randn(4, max(lengths), dtype=torch.float64)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    found, valid = frontend(samples, mask)
    for row, length in enumerate(lengths):
        if length:
            alone, _ = frontend(samples[row : row + 1, :length], mask[row : row + 1, :length])
            torch.testing.assert_close(found[row][valid[row]], alone[0], rtol=0, atol=1e-12)
    assert not found[3].any() and valid.sum(1).tolist() == [4, 7, 1, 0]


def test_memory_does_not_grow_with_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor that is convolved is longer than a block and what a kernel sees."""
    frontend = make((2, 4, 7))
    monkeypatch.setattr(dac_blocks, "_NUMBERS", 4 * 512)
    monkeypatch.setattr(dac_blocks, "_LATE_NUMBERS", 4 * 512)
    seen = []
    real = torch.nn.functional.conv2d

    def conv2d(image: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(image.numel())
        return real(image, *arguments)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    blockwise = dac_blocks.BlockwiseDac(frontend.encoder, frontend.bottleneck)
    with torch.no_grad():
        blockwise.encode(torch.randn(40 * frontend.hop, dtype=torch.float64))
        short = max(seen)
        blockwise.encode(torch.randn(400 * frontend.hop, dtype=torch.float64))
    assert max(seen) == short
