"""Models of sentence-transformers: texts, with pictures, sounds, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from peav.data.loading.decoding import DecodeSettings
from peav.evaluation.adapters.base import EmbeddingAdapter
from peav.registry import register_adapter


@register_adapter
class SentenceTransformersAdapter(EmbeddingAdapter):
    """A model of sentence-transformers (https://sbert.net); which media it embeds is what its `modalities` name.

    A video is the mean of its frames, which the model sees as pictures. Sounds longer than the model's feature extractor takes are cut
    at its length from the start: it would choose another part each time. It needs the extra `sentence`.

    Args:
        path: folder or repository.
        num_frames: of a clip, evenly spaced.
        frame_size: height and width of the frames that its own processor gets, pixels.

    Raises:
        ValueError: if sentence-transformers is not installed, or the model takes sounds and does not say at which sample rate.
    """

    def __init__(self, path: str, num_frames: int = 8, frame_size: int = 224) -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  an optional extra
        except ImportError as error:
            raise ValueError("this model needs sentence-transformers: pip install 'peav[sentence]'") from error
        self.model: Any = SentenceTransformer(path, device="cpu", trust_remote_code=False)
        modalities = set(self.model.modalities)
        made = {"audio": "audio" in modalities, "video": "image" in modalities, "text": "text" in modalities}
        self._embeds = tuple(kind for kind, there in made.items() if there)
        self.embedding_dim = self.model.get_embedding_dimension() or len(self._encode(["a"])[0])
        self.settings = DecodeSettings(num_frames=num_frames, frame_size=(frame_size, frame_size))
        self._longest: int | None = None
        if "audio" in self._embeds:
            extractor = getattr(self.model[0].processor, "feature_extractor", None)
            if (rate := getattr(extractor, "sampling_rate", None)) is None:
                raise ValueError(f"{path} takes sounds, and its processor does not say at which sample rate")
            self._longest = getattr(extractor, "nb_max_samples", None)
            self.settings = DecodeSettings(
                rate, num_frames=num_frames, frame_size=self.settings.frame_size, downmix="mean"
            )

    @property
    def embeds(self) -> tuple[str, ...]:
        """What the model embeds, of `audio`, `video` and `text`."""
        return self._embeds

    def embed_audio(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Embeds waveforms."""
        rate = self.settings.sample_rate
        return self._encode(
            [{"array": wave[: self._longest].cpu().numpy(), "sampling_rate": rate} for wave in waveforms]
        )

    def embed_video(self, frames: Sequence[Tensor]) -> Tensor:
        """Embeds videos: the mean of the unit embeddings of the frames."""
        pictures = [Image.fromarray(frame.permute(1, 2, 0).cpu().numpy()) for video in frames for frame in video]
        found = self._encode(pictures).split([len(video) for video in frames])
        return F.normalize(torch.stack([part.mean(0) for part in found]), dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts."""
        return self._encode(list(texts))

    def _encode(self, given: Sequence[Any]) -> Tensor:
        found = self.model.encode(given, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
        return torch.as_tensor(found).float().cpu()
