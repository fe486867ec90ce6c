"""BEST-RQ: labels from a random projection quantiser, guessed where the encoder did not look (arXiv 2202.01855; PE-AV, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peav import distributed
from peav.masking import SpanMasking
from peav.objectives.base import Objective, Weight
from peav.registry import register_objective
from peav.types import Embedding, ObjectiveOutput


@register_objective
class BestRQ(Objective):
    """Predicts, for hidden frames of the audio encoder, the codes that a frozen random quantiser gives their unhidden inputs.

    The frontend's features, normalised frame by frame, are projected at random and get the number of the nearest of random unit
    vectors. A linear layer on the encoder's frames predicts it; the loss is the cross entropy over hidden frames. In training the
    encoder then sees noise in spans of its input, and so do the other objectives: there is one pass. In validation nothing is
    hidden, and there is no loss; nor while a schedule holds its weight at 0. PE-AV pretrains with such a term; its settings are not
    published, these are ours.

    Args:
        input_dim: width C of the frontend's features: 2 * num_mels of MelAudioEncoder, the codec's latents of DacAudioEncoder (128).
        dim: width of the encoder.
        num_codes: vectors of the codebook.
        code_dim: their dimension.
        mask_rate: share of the frames at which a hidden span begins.
        mask_span: frames of a span; spans may overlap.
        mask_noise: standard deviation of what the encoder sees instead.
        seed: of the projection and the codebook, which are kept with the checkpoint.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
    """

    projection: Tensor
    codebook: Tensor

    def __init__(
        self,
        input_dim: int = 128,
        dim: int = 768,
        num_codes: int = 1024,
        code_dim: int = 16,
        mask_rate: float = 0.02,
        mask_span: int = 10,
        mask_noise: float = 0.1,
        seed: int = 0,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(weight)
        self.requires = self.frames = ("features.audio",)
        self.masking = {"audio": SpanMasking(mask_rate, mask_span, mask_noise)}
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer(
            "projection", nn.init.xavier_normal_(torch.empty(input_dim, code_dim), generator=generator)
        )
        codes = torch.randn(num_codes, code_dim, generator=generator)
        self.register_buffer("codebook", F.normalize(codes, dim=1))
        self.predictor = nn.Linear(dim, num_codes)

    @torch.no_grad()
    def labels(self, inputs: Tensor) -> Tensor:
        """Quantises features (..., C) to codes (...)."""
        vectors = F.layer_norm(inputs.to(self.projection.dtype), inputs.shape[-1:]) @ self.projection
        # Of unit vectors the nearest is that of the largest product.
        return (F.normalize(vectors, dim=-1) @ self.codebook.T).argmax(-1)

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the cross entropy of this rank's hidden frames.

        Raises:
            ValueError: if widths do not fit.
        """
        audio = embeddings["features.audio"]
        if audio.frames is None or audio.mask is None:
            raise ValueError("BestRQ needs the frames of the audio encoder, which makes none")
        if audio.inputs is None or audio.hidden is None:
            # Nothing is hidden in validation.
            nothing = torch.zeros((), device=audio.pooled.device)
            return ObjectiveOutput(nothing.to(audio.frames.dtype), nothing.long())
        for name, found, expected in (
            ("input_dim", audio.inputs.shape[-1], len(self.projection)),
            ("dim", audio.frames.shape[-1], self.predictor.in_features),
        ):
            if found != expected:
                raise ValueError(
                    f"BestRQ has {name}={expected}, but the audio encoder's is {found}: set {name}={found}"
                )
        where = audio.hidden & audio.mask & audio.present.unsqueeze(1)
        # Found once: every use of a mask as an index would wait for its number of frames.
        index = where.flatten().nonzero().squeeze(1)
        logits = self.predictor(audio.frames.flatten(0, 1)[index])
        labels = self.labels(audio.inputs.flatten(0, 1)[index])
        count = distributed.sum_over_ranks(where.sum())
        total = F.cross_entropy(logits, labels, reduction="sum")
        log = {
            "accuracy": (logits.detach().argmax(1) == labels).sum() / where.sum(),
            "codes": torch.zeros_like(self.codebook[:, 0])
            .index_fill(0, labels, 1)
            .sum(),  # of num_codes, in this batch
        }
        return ObjectiveOutput(distributed.world_size() * total / count.clamp(min=1), count, log)
