"""Audio as in the released models: a frozen DAC-VAE, whose latent means at 25 Hz feed a transformer (arXiv 2512.19687)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peav.encoders.base import Encoder, Frontend, Stack
from peav.encoders.dac_blocks import BlockwiseDac
from peav.encoders.transformer import Transformer
from peav.host import to_device, to_host
from peav.masking import lengths_to_mask, mask_to_lengths
from peav.registry import register_encoder
from peav.types import AudioInput, CachedFeatures, ClipFormat, Features

#: What the frontend sees after the end of a clip that is shorter than the batch.
Boundary = Literal["alone", "batch"]

#: Seconds of audio that go through the DAC together on a GPU; a second at 48 kHz takes some 12 MB for each of its widest layers.
_SECONDS_AT_ONCE = 64


def reflect_to_hop(samples: Tensor, lengths: Tensor, hop: int) -> Tensor:
    """Pads each waveform to a multiple of `hop` by reflection at its own end, as the released processor does.

    A sound that is too short for its padding (of half a hop or less) is reflected back and forth, where the released processor
    raises; a single sample is repeated.

    Args:
        samples: (B, S), zero past each length.
        lengths: (B,) valid samples.
        hop: in samples.

    Returns:
        (B, ceil(S / hop) * hop); zero past each padded length.

    >>> reflect_to_hop(torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0]]), torch.tensor([3, 5]), 4).tolist()
    [[1.0, 2.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 3.0, 2.0]]
    """
    samples = F.pad(samples, (0, -samples.shape[1] % hop))
    if not samples.shape[1]:
        return samples
    # Only the last hop of a clip changes: one that begins at the last multiple of the hop before its end.
    begin = ((lengths - 1).clamp(min=0) // hop * hop)[:, None]
    position = begin + torch.arange(hop, device=samples.device)
    last = (lengths - 1).clamp(min=0)[:, None]
    period = (2 * last).clamp(min=1)
    turned = position % period
    source = torch.minimum(turned, period - turned).minimum(last)
    tail = samples.gather(1, torch.where(position <= last, position, source))
    return samples.scatter(1, position, torch.where(lengths[:, None] > 0, tail, 0))


class DacVaeFrontend(nn.Module):
    """The encoder of a DAC-VAE, frozen: waveforms to the means of its latents, one every hop (1,920 samples at 48 kHz: 25 Hz).

    Args:
        sample_rate: in Hz.
        hidden_size: channels after the first convolution, doubled by every downsampling.
        ratios: downsampling factors; their product is the hop.
        latent_dim: channels of the latents.
    """

    def __init__(self, sample_rate: int, hidden_size: int, ratios: tuple[int, ...], latent_dim: int) -> None:
        from transformers import DacConfig  # noqa: PLC0415  takes over a second, and is needed late
        from transformers.models.dac.modeling_dac import DacEncoder  # noqa: PLC0415  likewise

        super().__init__()
        config = DacConfig(
            encoder_hidden_size=hidden_size,
            downsampling_ratios=list(ratios),
            codebook_dim=latent_dim,
            sampling_rate=sample_rate,
        )
        self.sample_rate, self.hop, self.dim = sample_rate, int(config.hop_length), latent_dim
        self.encoder = DacEncoder(config)
        self.bottleneck = nn.Conv1d(config.hidden_size, latent_dim, kernel_size=1)
        self.requires_grad_(False)
        self.encoder.conv1.register_forward_hook(self._clear)
        for block in self.encoder.block:
            for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
                unit.register_forward_hook(self._clear)
            block.conv1.register_forward_hook(self._shorten)

    @torch.no_grad()
    def forward(self, samples: Tensor, mask: Tensor, boundary: Boundary = "alone") -> tuple[Tensor, Tensor]:
        """Encodes waveforms.

        Args:
            samples: (B, S).
            mask: (B, S) bool, True from the first sample of a clip to its last.
            boundary: what the last frames of a clip see after its end. `alone`: nothing, as if the clip were encoded on its own,
                so that the company of a clip changes nothing. `batch`: the zeros that pad it to the longest of the batch, as the
                released code has it; its last five or six frames then depend on its company.

        Returns:
            latents (B, T, latent_dim), T = ceil(S / hop), zero where padded, and their mask (B, T).

        Raises:
            ValueError: if a mask has gaps.
        """
        (known,) = to_host(mask)
        lengths = mask_to_lengths(known)
        if not torch.equal(known, lengths_to_mask(lengths, mask.shape[1])):
            raise ValueError("a waveform's mask must be True from its first sample to its last, without gaps")
        device = samples.device
        wave = reflect_to_hop(
            torch.where(mask, samples, 0).to(self.bottleneck.weight.dtype), to_device(lengths, device), self.hop
        )
        counts = -(-lengths // self.hop)
        total = wave.shape[1] // self.hop
        valid = to_device(lengths_to_mask(counts, total), device)
        latents = wave.new_zeros(*valid.shape, self.dim)
        seen = torch.full_like(counts, total) if boundary == "batch" else counts
        most = max(1, _SECONDS_AT_ONCE * self.sample_rate // self.hop)
        for rows in similar_lengths(seen.tolist(), most):
            some = seen[rows]
            longest = int(some.max())
            where = to_device(torch.tensor(rows), device)
            found = self._encode(wave[where, : longest * self.hop], some * self.hop)
            latents[where, :longest] = found[:, :longest]
        return torch.where(valid.unsqueeze(-1), latents, 0), valid

    def _encode(self, wave: Tensor, lengths: Tensor) -> Tensor:
        """Encodes waveforms (N, S) of which the first `lengths` (N,) samples, on the host, are the clip's, as if each were alone.

        On a CPU they go through the layers one by one, in blocks. Elsewhere they go together: every convolution pads with zeros. Where a
        clip ends before the others, what lies past its end is made zero after each layer, and the next convolution sees there what it
        would have padded with. (Snake keeps zeros zero; a bias and an odd stride do not.)
        """
        # Half precision would change what a model was trained on.
        with torch.autocast(wave.device.type, enabled=False):
            if wave.device.type == "cpu" and not _is_sharded(self.bottleneck.weight):
                blockwise = BlockwiseDac(self.encoder, self.bottleneck)
                found = [blockwise.encode(row[:length]) for row, length in zip(wave, lengths.tolist(), strict=True)]
                return nn.utils.rnn.pad_sequence(found, batch_first=True)
            self._past_end = _PastEnd(lengths, wave.device)
            return self.bottleneck(self.encoder(wave.unsqueeze(1))).mT

    def _clear(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook of layers that keep the lengths."""
        return self._past_end.clear(output)

    def _shorten(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook of convolutions that change them."""
        self._past_end.shorten(module)
        return self._past_end.clear(output)


def _is_sharded(weight: Tensor) -> bool:
    """Whether a weight is a part of one, which a module gathers when it is called."""
    return hasattr(weight, "placements")


class _PastEnd:
    """Where sequences of different lengths end, layer by layer."""

    def __init__(self, lengths: Tensor, device: torch.device) -> None:
        self._device = device
        self._equal = bool((lengths == lengths.max()).all())
        self._lengths = lengths

    def shorten(self, convolution: nn.Module) -> None:
        """Takes in that a convolution has changed the lengths."""
        settings: Any = convolution
        kernel, stride, padding = settings.kernel_size[0], settings.stride[0], settings.padding[0]
        self._lengths = (self._lengths + 2 * padding - kernel) // stride + 1

    def clear(self, x: Tensor) -> Tensor:
        """Makes x (N, C, T) zero past the ends, in place."""
        if self._equal:
            return x
        if x.device.type == "cpu":
            for row, length in zip(x, self._lengths.tolist(), strict=True):
                row[:, length:] = 0
            return x
        valid = to_device(lengths_to_mask(self._lengths, x.shape[-1]), self._device)
        return x.masked_fill_(~valid.unsqueeze(1), 0)


def similar_lengths(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Groups rows by length, longest first, so that few passes take them all and a tenth of what they compute is padding at most.

    Args:
        lengths: of the rows; rows of length 0 are in no group.
        most: sum of the padded lengths of a group, unless a single row is longer.

    Returns:
        rows of each group.

    >>> similar_lengths([10, 100, 9, 0, 95, 10], 250)
    [[1, 4], [0, 5, 2]]
    """
    groups: list[list[int]] = []
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        if groups:
            group = [*groups[-1], row]
            padded = lengths[group[0]] * len(group)
            if padded <= most and 0.9 * padded <= sum(lengths[i] for i in group):
                groups[-1] = group
                continue
        groups.append([row])
    return groups


@register_encoder
class DacAudioEncoder(Encoder):
    """Audio encoder of the released models: frozen DAC-VAE latents at 25 Hz, then a transformer. Also reads cached latents.

    Args:
        dim: width.
        num_layers: transformer blocks.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward networks; 8/3 of `dim` by default.
        sample_rate: in Hz, what the data module delivers.
        codec_hidden_size: channels of the DAC's first convolution.
        codec_ratios: downsampling factors of the DAC.
        codec_dim: channels of its latents.
        dropout: on the residual branches.
        activation_checkpointing: compute the blocks' activations again in the backward pass instead of keeping them.
    """

    provides: Mapping[str, tuple[str, ...]] = {"audio": ("audio",)}
    hides: ClassVar[tuple[str, ...]] = ("audio",)

    def __init__(
        self,
        dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        sample_rate: int = 48000,
        codec_hidden_size: int = 64,
        codec_ratios: tuple[int, ...] = (2, 8, 10, 12),
        codec_dim: int = 128,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.dims = {"audio": dim}
        self.clip_format = ClipFormat(sample_rate=sample_rate)
        self.frontend = DacVaeFrontend(sample_rate, codec_hidden_size, tuple(codec_ratios), codec_dim)
        self.data_proj = nn.Linear(codec_dim, dim)
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)
        self.transformer.activation_checkpointing = activation_checkpointing

    @property
    def frontends(self) -> Mapping[str, Frontend]:
        """The DAC, `dac`."""
        seconds = self.frontend.hop / self.frontend.sample_rate
        return {"audio": Frontend("dac", self.frontend, self.frontend.dim, seconds)}

    def stacks(self) -> Sequence[Stack]:
        """The transformer, and the blocks of the frozen DAC."""
        return [self.transformer.stack, Stack(list(self.frontend.encoder.block), frontend=True)]

    def frontend_features(self, name: str, media: AudioInput, padded: bool = False) -> CachedFeatures:
        """Runs the frozen frontend alone: what may be kept and read in place of the waveforms.

        Args:
            name: `audio`.
            media: waveforms at the frontend's sample rate.
            padded: whether the last frames of a clip see the zeros that pad it; see :meth:`DacVaeFrontend.forward`.

        Raises:
            ValueError: if the waveforms have another sample rate than the frontend.
        """
        if media.sample_rate != self.frontend.sample_rate:
            raise ValueError(
                f"DacAudioEncoder has sample_rate={self.frontend.sample_rate}, but the data come at {media.sample_rate} Hz: "
                "set data.sample_rate and the encoder's sample_rate to the same number"
            )
        values, mask = self.frontend(media.samples, media.mask, "batch" if padded else "alone")
        return CachedFeatures(values, mask, media.present, media.group, self.frontend.hop / self.frontend.sample_rate)

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Encodes `inputs["audio"]`, waveforms or cached latents.

        Raises:
            ValueError: if the waveforms have another sample rate than the frontend, or cached latents another width.
        """
        audio: AudioInput | CachedFeatures = inputs["audio"]
        cached = audio if isinstance(audio, CachedFeatures) else self.frontend_features("audio", audio)
        latents = cached.values
        if latents.shape[-1] != self.frontend.dim:
            raise ValueError(
                f"cached audio features have {latents.shape[-1]} channels, the DAC makes {self.frontend.dim}"
            )
        latents = torch.where(cached.mask.unsqueeze(-1), latents, 0).to(self.data_proj.weight.dtype)
        whole, hidden = None, None
        if "audio" in self.hidden_spans and self.training:
            whole = latents
            latents, hidden = self.hidden_spans["audio"].hide(latents, cached.mask, cached.group)
        pooled, frames = self.transformer(self.data_proj(latents), cached.mask)
        return {
            "audio": Features(
                pooled, cached.present, cached.group, frames, cached.mask, cached.frame_seconds, whole, hidden
            )
        }
