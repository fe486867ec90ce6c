"""Audio: log-mel frontend at 25 Hz and a transformer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram

from peav.encoders.base import Encoder
from peav.encoders.transformer import Transformer
from peav.masking import SpanMasking
from peav.registry import register_encoder
from peav.types import AudioInput, Features

FRAME_RATE = 25  # Hz, of PE-AV's audio tokens


class MelFrontend(nn.Module):
    """Log-mel energies every 20 ms, two stacked into a token of 40 ms: 25 tokens a second.

    Args:
        sample_rate: in Hz; a multiple of 50.
        num_mels: mel bands.

    Raises:
        ValueError: if the sample rate is not a multiple of 50 Hz.
    """

    STACK = 2

    def __init__(self, sample_rate: int, num_mels: int) -> None:
        super().__init__()
        if sample_rate % (FRAME_RATE * self.STACK):
            raise ValueError(f"sample_rate must be a multiple of {FRAME_RATE * self.STACK} Hz, not {sample_rate}")
        self.sample_rate = sample_rate
        self.hop = sample_rate // (FRAME_RATE * self.STACK)
        window = 2 * self.hop
        # The window is centred by explicit zero padding: torchaudio's reflection would look at what is padded.
        self.padding = (window - self.hop) // 2
        self.window = window
        self.spectrogram = Spectrogram(window, hop_length=self.hop, power=None, center=False)
        self.mel = MelScale(num_mels, sample_rate, n_stft=window // 2 + 1, norm="slaney")
        self.dim = self.STACK * num_mels

    def forward(self, samples: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Maps waveforms (B, S) and their mask to tokens (B, T, 2 * num_mels) and their mask, T = ceil(S / (2 * hop))."""
        token = self.STACK * self.hop
        length = -(-samples.shape[1] // token) * token
        # On a CPU a few clips at a time: their windows and spectra stay in its cache.
        rows = max(1, 2**17 // length) if samples.device.type == "cpu" else len(samples)
        parts = zip(samples.split(rows), mask.split(rows), strict=True)
        energies = torch.cat([self.energies(*part, length) for part in parts])
        # log of 1e-6 (silence) .. 1 (loud) becomes about -1 .. 1
        levels = torch.log(energies + 1e-6) / 7 + 1
        tokens = levels.reshape(len(samples), length // token, self.dim)
        # A token is valid if its first sample is; counting every sample takes as long as the spectra.
        return tokens, mask[:, ::token]

    def energies(self, samples: Tensor, mask: Tensor, length: int) -> Tensor:
        """Maps waveforms (B, S) and their mask, padded to `length`, to mel energies (B, length / hop, num_mels)."""
        excess = self.window - self.hop - self.padding
        samples = torch.where(mask, samples, 0).float()
        samples = F.pad(samples, (self.padding, length - samples.shape[1] + excess))
        with torch.autocast(samples.device.type, enabled=False):
            # The frontend computes in fp32 at least, also where the model's buffers are bf16.
            dtype = torch.promote_types(self.mel.fb.dtype, torch.float32)
            window, bands = self.spectrogram.window.to(dtype), self.mel.fb.to(dtype)
            spectrum = torch.fft.rfft(samples.unfold(-1, self.window, self.hop) * window)
            # Squares of both parts cost a fraction of the complex magnitude.
            squares = torch.view_as_real(spectrum).square_()
            return (squares[..., 0] + squares[..., 1]) @ bands


@register_encoder
class MelAudioEncoder(Encoder):
    """Audio encoder on a log-mel frontend: 25 frames a second, trained from scratch.

    Attributes:
        masking: spans of the tokens to hide in training, set by the module where an objective wants it.

    Args:
        dim: width.
        num_layers: transformer blocks.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward networks; 8/3 of `dim` by default.
        num_mels: mel bands of the frontend.
        sample_rate: in Hz, what the data module delivers; a multiple of 50.
        dropout: on the residual branches.
    """

    provides: ClassVar[Mapping[str, tuple[str, ...]]] = {"audio": ("audio",)}

    def __init__(
        self,
        dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        num_mels: int = 64,
        sample_rate: int = 16000,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = {"audio": dim}
        self.frontend = MelFrontend(sample_rate, num_mels)
        self.proj = nn.Linear(self.frontend.dim, dim)
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)
        self.masking: SpanMasking | None = None

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Encodes `inputs["audio"]`.

        Raises:
            ValueError: if the waveforms have another sample rate than the frontend.
        """
        audio: AudioInput = inputs["audio"]
        if audio.sample_rate != self.frontend.sample_rate:
            raise ValueError(
                f"MelAudioEncoder has sample_rate={self.frontend.sample_rate}, but the data come at {audio.sample_rate} Hz: "
                "set data.sample_rate and the encoder's sample_rate to the same number"
            )
        tokens, mask = self.frontend(audio.samples, audio.mask)
        tokens = tokens.to(self.proj.weight.dtype)
        inputs_, hidden = None, None
        if self.masking is not None and self.training:
            inputs_ = tokens
            tokens, hidden = self.masking.hide(tokens, mask)
        pooled, frames = self.transformer(self.proj(tokens), mask)
        return {"audio": Features(pooled, audio.present, audio.group, frames, mask, 1 / FRAME_RATE, inputs_, hidden)}
