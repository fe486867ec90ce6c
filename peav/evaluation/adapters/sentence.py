"""Models of sentence-transformers, texts alone or texts and pictures."""

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
    """A model of sentence-transformers (https://sbert.net) that encodes texts and pictures: a video is the mean of its frames.

    It needs the extra `sentence`.

    Args:
        path: folder or repository.
        num_frames: of a clip, evenly spaced.
        frame_size: height and width of the frames that its own processor gets, pixels.
    """

    embeds = ("video", "text")

    def __init__(self, path: str, num_frames: int = 8, frame_size: int = 224) -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  an optional extra
        except ImportError as error:
            raise ValueError("this model needs sentence-transformers: pip install 'peav[sentence]'") from error
        self.model: Any = SentenceTransformer(path, device="cpu", trust_remote_code=False)
        self.embedding_dim = len(self.embed_text(["a"])[0])
        self.settings = DecodeSettings(num_frames=num_frames, frame_size=(frame_size, frame_size))

    def embed_video(self, frames: Sequence[Tensor]) -> Tensor:
        """Embeds videos: the mean of the unit embeddings of the frames."""
        pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for video in frames for frame in video]
        found = self._encode(pictures).split([len(video) for video in frames])
        return F.normalize(torch.stack([part.mean(0) for part in found]), dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts."""
        return self._encode(list(texts))

    def _encode(self, given: Sequence[Any]) -> Tensor:
        found = self.model.encode(given, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
        return torch.as_tensor(found).float().cpu()
