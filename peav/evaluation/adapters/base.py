"""What an adapter is, and the model that evaluation makes of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from peav.data.loading.decoding import DecodedClip, DecodeSettings
from peav.data.manifests.identities import ABSENT
from peav.digest import weights_digest
from peav.evaluation.models import ClipOutput, EvaluatedModel
from peav.inputs.running import Precision, computes_in_half
from peav.registry import Plugin, adapters

#: What an adapter may embed.
KINDS = ("audio", "video", "text")

#: What texts describe, by the head that a table calls theirs: an adapter has one head for all of them.
_TEXTS = {"text_audio": ("captions.audio", "audio"), "text_video": ("captions.video", "video")}


class EmbeddingAdapter(Plugin):
    """A model of another family: it embeds audio, video or texts into one space.

    A subclass takes the path or repository of the model first, and any further arguments by name; it is registered with
    `@register_adapter` and chosen by `--adapter NAME`, or by the `model_type` of the model's config.json. It has one or more of

    - `embed_audio(waveforms)`: B waveforms (S,) in [-1, 1] at `settings.sample_rate` to (B, D),
    - `embed_video(frames)`: B videos (F, 3, H, W) of uint8 to (B, D),
    - `embed_text(texts)`: N texts to (N, D),

    and what it has says what it embeds.

    Attributes:
        model_types: those of config.json that it is for.
        settings: how clips are decoded for it.
        embedding_dim: D.
        normalize: whether its embeddings have unit length.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    settings: DecodeSettings = DecodeSettings()
    embedding_dim: int
    normalize: bool = True

    @classmethod
    def reaches_outside(cls, init_args: Mapping[str, Any]) -> tuple[str, ...]:
        """Names the arguments that lead to files: an adapter is chosen by the user, and leads where the user says."""
        return ()

    @property
    def embeds(self) -> tuple[str, ...]:
        """What it embeds, of `audio`, `video` and `text`: that for which it has a method."""
        return tuple(kind for kind in KINDS if callable(getattr(type(self), f"embed_{kind}", None)))

    def embed(self, kind: str, given: Sequence[Any]) -> Tensor:
        """Embeds B inputs of a kind that is in `embeds`: (B, D)."""
        found: Tensor = getattr(self, f"embed_{kind}")(given)
        return found


class AdaptedModel(EvaluatedModel):
    """An adapter's model as evaluation sees it: `audio`, `video`, and its texts under the names of PE-AV's heads.

    Args:
        adapter: it.
        name: what reports call it.
        device: where it computes.
        precision: `auto`, `fp32` or `bf16`.

    Raises:
        ValueError: if it embeds nothing.
    """

    def __init__(
        self, adapter: EmbeddingAdapter, name: str, device: str = "cpu", precision: Precision = "auto"
    ) -> None:
        if not adapter.embeds:
            raise ValueError(
                f"{type(adapter).__name__} embeds nothing: give it {', '.join(f'embed_{kind}' for kind in KINDS[:-1])} or embed_{KINDS[-1]}"
            )
        self.adapter, self.name, self.kind = adapter.to(device).eval(), name, type(adapter).__name__
        self.device = torch.device(device)
        self.precision: Precision = "bf16" if computes_in_half(self.device, precision) else "fp32"
        self.dim, self.normalize, self.settings = adapter.embedding_dim, adapter.normalize, adapter.settings
        self.media_names = tuple(kind for kind in ("audio", "video") if kind in adapter.embeds)
        self.fields = frozenset(self.media_names)
        texts = {name: source for name, (source, kind) in _TEXTS.items() if kind in self.media_names}
        texts |= {"text_audio_video": "captions.audio_video"}
        self.text_fields = texts if "text" in adapter.embeds else {}
        self.digest = weights_digest(adapter, {"class": f"{type(adapter).__module__}.{type(adapter).__qualname__}"})

    def embed_clips(self, clips: Sequence[DecodedClip]) -> list[ClipOutput]:
        """Embeds the sound and the picture of clips."""
        outputs = [ClipOutput() for _ in clips]
        for name in self.media_names:
            if name == "audio":
                media = [clip.samples if clip.has_audio else None for clip in clips]
                groups = [clip.audio_group for clip in clips]
            else:
                media = [clip.frames if clip.has_video else None for clip in clips]
                groups = [clip.video_group for clip in clips]
            rows = [row for row, one in enumerate(media) if one is not None]
            if not rows:
                continue
            found = self._run(name, [media[row] for row in rows])
            for row, vector in zip(rows, found, strict=True):
                outputs[row].pooled[name] = vector
                outputs[row].groups[name] = groups[row] if groups[row] != ABSENT else row
        return outputs

    def embed_texts(self, name: str, texts: Sequence[str]) -> Tensor:
        """Embeds texts; every name is the one head of the model."""
        if name not in self.text_fields:
            raise KeyError(f"{self.kind} has no texts {name!r}; it has {', '.join(self.text_fields) or 'none'}")
        return self._run("text", list(texts))

    def _run(self, kind: str, given: Sequence[Any]) -> Tensor:
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.adapter.embed(kind, given).float().cpu()
        if found.shape != (len(given), self.dim):
            raise ValueError(
                f"{self.kind}.embed_{kind} made {tuple(found.shape)} of {len(given)} inputs, not {(len(given), self.dim)}"
            )
        return found.clone()


def find_adapter(path: str) -> str | None:
    """Returns the name of the adapter for a folder's model, by what its files say; None where there is none."""
    folder = Path(path)
    config: Any = None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if isinstance(config, dict) and config.get("format") == "peav":
        return None  # also where sentence-transformers has saved it
    if (folder / "modules.json").is_file():
        return "SentenceTransformersAdapter"
    return next((name for name in adapters if kind and kind in adapters.get(name).model_types), None)
