"""transformers' models of the kinds of CLAP (sound and text) and CLIP (pictures and text)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.data.loading.decoding import DecodeSettings
from peav.evaluation.adapters.base import EmbeddingAdapter
from peav.registry import register_adapter


@register_adapter
class CLAPAdapter(EmbeddingAdapter):
    """CLAP (Wu et al., ICASSP 2023) as transformers has it: the sound of a clip, and texts.

    The model's own feature extractor cuts or repeats each sound to the length it was trained on; the cut begins at the start.

    Args:
        path: folder or repository; its weights are read from safetensors.
    """

    model_types: ClassVar[tuple[str, ...]] = ("clap",)

    def __init__(self, path: str) -> None:
        super().__init__()
        from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel  # noqa: PLC0415  a second and a half at start

        self.model: Any = ClapModel.from_pretrained(path, use_safetensors=True)
        self.extractor: Any = AutoFeatureExtractor.from_pretrained(path)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.embedding_dim = self.model.config.projection_dim
        self.settings = DecodeSettings(self.extractor.sampling_rate, downmix="mean")

    def embed_audio(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Embeds waveforms."""
        rate, longest = self.extractor.sampling_rate, self.extractor.nb_max_samples
        sounds = [wave[:longest].numpy() for wave in waveforms]  # a random part would be another one each time
        features = self.extractor(sounds, sampling_rate=rate, return_tensors="pt").to(self.model.device)
        return _unit(self.model.get_audio_features(**features))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts."""
        return _unit(self.model.get_text_features(**_tokens(self.tokenizer, texts, self.model)))


@register_adapter
class CLIPAdapter(EmbeddingAdapter):
    """CLIP (Radford et al., ICML 2021) and SigLIP as transformers has them: a video is the mean of its frames' embeddings, and texts.

    Frames are squashed to a square of the model's size, where its own processor would crop them.

    Args:
        path: folder or repository; its weights are read from safetensors.
        num_frames: of a clip, evenly spaced.
    """

    model_types: ClassVar[tuple[str, ...]] = ("clip", "siglip", "siglip2")
    mean: Tensor
    deviation: Tensor

    def __init__(self, path: str, num_frames: int = 8) -> None:
        super().__init__()
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer  # noqa: PLC0415  a second and a half at start

        self.model: Any = AutoModel.from_pretrained(path, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(path)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        vision, text = self.model.config.vision_config, self.model.config.text_config
        self.embedding_dim = getattr(self.model.config, "projection_dim", None) or vision.hidden_size
        self.longest = text.max_position_embeddings
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(processor.image_std).view(3, 1, 1), persistent=False)
        self.settings = DecodeSettings(num_frames=num_frames, frame_size=(vision.image_size, vision.image_size))

    def embed_video(self, frames: Sequence[Tensor]) -> Tensor:
        """Embeds videos: the mean of the unit embeddings of the frames."""
        found = []
        for video in frames:
            pixels = (video.to(self.model.device).float() / 255 - self.mean) / self.deviation
            found.append(_unit(self.model.get_image_features(pixel_values=pixels)).mean(0))
        return F.normalize(torch.stack(found), dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts."""
        padding = "max_length" if self.model.config.model_type.startswith("siglip") else True
        return _unit(self.model.get_text_features(**_tokens(self.tokenizer, texts, self.model, self.longest, padding)))


def _tokens(tokenizer: Any, texts: Sequence[str], model: Any, longest: int | None = None, padding: Any = True) -> Any:
    made = tokenizer(list(texts), padding=padding, truncation=True, max_length=longest or 512, return_tensors="pt")
    wanted = {name: value for name, value in made.items() if name in ("input_ids", "attention_mask")}
    return {name: value.to(model.device) for name, value in wanted.items()}


def _unit(found: Any) -> Tensor:
    pooled = found if isinstance(found, Tensor) else found.pooler_output
    return F.normalize(pooled.float(), dim=-1)
