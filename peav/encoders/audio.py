"""Audio: log-mel frontend at 25 Hz and a transformer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram

from peav.encoders.base import Encoder, Stack
from peav.encoders.transformer import Transformer
from peav.keyed_random import uniform_rows
from peav.registry import register_encoder
from peav.types import AudioInput, ClipFormat, Features

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


@dataclass(frozen=True)
class SpecAugment:
    """Hides bands and spans of time from log-mel energies (Park et al., arXiv 1904.08779).

    A band or a span has a width drawn evenly between 0 and its largest, and a place drawn evenly from where it fits.

    Attributes:
        band_masks: bands to hide, each of up to `max_bands` mels.
        max_bands: mels.
        time_masks: spans to hide, each of up to `max_time_share` of the clip.
        max_time_share: from 0 to 1.
    """

    band_masks: int
    max_bands: int
    time_masks: int
    max_time_share: float

    def __post_init__(self) -> None:
        if min(self.band_masks, self.time_masks) < 0 or self.max_bands < 1 or not 0 < self.max_time_share <= 1:
            raise ValueError(
                f"SpecAugment hides at least 0 bands and spans, of at least 1 mel and a share of time in (0, 1], got {self}"
            )

    def __call__(self, levels: Tensor, mask: Tensor, seeds: Tensor) -> Tensor:
        """Returns the energies with hidden parts at the mean of the clip.

        Args:
            levels: (B, N, num_mels).
            mask: (B, n) bool, n <= N: which of the N are of the clip; the rest is padding.
            seeds: (B,) int64: what is hidden in a clip follows from its seed alone.
        """
        num_frames, num_mels = levels.shape[1:]
        valid = F.pad(mask, (0, num_frames - mask.shape[1]))
        lengths = valid.sum(1)
        mean = torch.where(valid[..., None], levels, 0).sum((1, 2)) / (lengths * num_mels).clamp(min=1)
        draws = uniform_rows(seeds, 2 * (self.band_masks + self.time_masks)).unflatten(1, (-1, 2))
        bands, spans = draws.split((self.band_masks, self.time_masks), 1)
        longest = (self.max_time_share * lengths).long().clamp(min=1)
        mels = torch.full_like(lengths, num_mels)
        hidden = _covered(bands, mels.clamp(max=self.max_bands), mels, num_mels)[:, None, :]
        hidden = hidden | _covered(spans, longest, lengths, num_frames)[:, :, None]
        return torch.where(hidden & valid[..., None], mean[:, None, None].to(levels.dtype), levels)


def _covered(draws: Tensor, widest: Tensor, sizes: Tensor, length: int) -> Tensor:
    """Marks what intervals cover, each of a width below `widest` and within `sizes`.

    Args:
        draws: (B, K, 2) in [0, 1): for each interval, its width and its place.
        widest: (B,), positions.
        sizes: (B,), positions.
        length: of the result.

    Returns:
        (B, length) bool.
    """
    widths = draws[..., 0] * widest[:, None]
    begins = (draws[..., 1] * (sizes[:, None] - widths)).long()
    position = torch.arange(length, device=draws.device)
    after = begins + widths.long()
    return ((position >= begins[..., None]) & (position < after[..., None])).any(1)


@register_encoder
class MelAudioEncoder(Encoder):
    """Audio encoder on a log-mel frontend: 25 frames a second, trained from scratch.

    Args:
        dim: width.
        num_layers: transformer blocks.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward networks; 8/3 of `dim` by default.
        num_mels: mel bands of the frontend.
        sample_rate: in Hz, what the data module delivers; a multiple of 50.
        dropout: on the residual branches.
        band_masks: bands of mels that SpecAugment hides in training.
        max_bands: width of such a band, mels, at most.
        time_masks: spans of time that SpecAugment hides in training.
        max_time_share: length of such a span as a share of the clip, at most.
    """

    provides: Mapping[str, tuple[str, ...]] = {"audio": ("audio",)}
    hides: ClassVar[tuple[str, ...]] = ("audio",)

    def __init__(
        self,
        dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        num_mels: int = 64,
        sample_rate: int = 16000,
        dropout: float = 0.0,
        band_masks: int = 0,
        max_bands: int = 12,
        time_masks: int = 0,
        max_time_share: float = 0.1,
    ) -> None:
        super().__init__()
        self.dims = {"audio": dim}
        self.clip_format = ClipFormat(sample_rate=sample_rate)
        augment = SpecAugment(band_masks, max_bands, time_masks, max_time_share)
        self.augment = augment if band_masks or time_masks else None
        self.frontend = MelFrontend(sample_rate, num_mels)
        self.proj = nn.Linear(self.frontend.dim, dim)
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)

    def stacks(self) -> Sequence[Stack]:
        """The transformer."""
        return [self.transformer.stack]

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
        clean, mask = self.frontend(audio.samples, audio.mask)
        tokens, inputs_, hidden = clean, None, None
        if self.augment is not None and self.training and audio.seed is not None:
            levels = clean.unflatten(2, (self.frontend.STACK, -1)).flatten(1, 2)
            valid = audio.mask[:, :: self.frontend.hop]
            tokens = self.augment(levels, valid, audio.seed).view_as(clean)
        tokens = tokens.to(self.proj.weight.dtype)
        if "audio" in self.hidden_spans and self.training:
            # What is to be guessed is what was there: SpecAugment's bands and spans are hidden from the encoder alone.
            inputs_ = clean
            tokens, hidden = self.hidden_spans["audio"].hide(tokens, mask, audio.group)
        pooled, frames = self.transformer(self.proj(tokens), mask)
        return {"audio": Features(pooled, audio.present, audio.group, frames, mask, 1 / FRAME_RATE, inputs_, hidden)}
