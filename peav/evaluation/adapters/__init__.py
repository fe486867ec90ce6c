"""Models of other families, as evaluation sees them: an adapter embeds audio, video or texts, and is a plugin (`@register_adapter`)."""

from peav.evaluation.adapters.base import AdaptedModel, EmbeddingAdapter, find_adapter
from peav.evaluation.adapters.sentence import SentenceTransformersAdapter
from peav.evaluation.adapters.transformers_models import CLAPAdapter, CLIPAdapter

__all__ = [
    "AdaptedModel",
    "CLAPAdapter",
    "CLIPAdapter",
    "EmbeddingAdapter",
    "SentenceTransformersAdapter",
    "find_adapter",
]
