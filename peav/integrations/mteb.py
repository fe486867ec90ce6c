"""A model of peav's as one of mteb's (https://github.com/embeddings-benchmark/mteb): texts by the head of what they are compared with.

    import mteb
    from peav.integrations.mteb import PeavMTEB

    mteb.evaluate(PeavMTEB("facebook/pe-av-large"), mteb.get_tasks(["ClothoT2ARetrieval"]))

It needs the extra `mteb`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Video
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

from peav.devices import resolve_device
from peav.integrations.media import embed_media, embed_texts
from peav.model import PEAV

#: What a text is about, by the media on the other side; texts alone, and texts about pictures and sound, are about both.
_HEADS = {frozenset({"audio"}): "audio", frozenset({"video"}): "video"}


class PeavMTEB(AbsEncoder):
    """An encoder of mteb's.

    Where mteb compares texts with sounds, the head `text_audio` reads them; with videos, `text_video`; with videos that sound, or with
    texts, `text_audio_video`. A task whose inputs no head is for is refused. Media are decoded by peav's rules (sample rate, frames).

    Args:
        model_name: what `PEAV.from_pretrained` reads.
        revision: of a repository of the hub.
        device: where it computes; a GPU where there is one.
        trust: see `PEAV.from_pretrained`.
        **kwargs: of mteb, nothing that counts.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> None:
        self.model = PEAV.from_pretrained(model_name, revision, trust).to(resolve_device(device or "auto"))
        self.mteb_model_meta = model_meta(model_name, self.model, revision)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embeds the inputs of a task: (N, D) float32.

        Args:
            inputs: a DataLoader of rows with `text`, `audio` and `video`.
            task_metadata: of the task, which says what is on the other side.
            hf_split: of the data.
            hf_subset: of the data.
            prompt_type: which side this is; None where both are alike.
            **kwargs: of mteb's `encode_kwargs`.

        Raises:
            ValueError: if the model has no embedding of such inputs.
        """
        data = inputs.dataset
        kinds = [kind for kind in ("text", "audio", "video") if kind in data.features]
        if isinstance(data.features.get("video"), Video):
            data = data.cast_column("video", Video(decode=False))  # peav decodes files by rules of its own
        size = inputs.batch_size or 1
        to = text_head(task_metadata, prompt_type)
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for start in range(0, len(data), size):
                rows = [data[place] for place in range(start, min(start + size, len(data)))]
                if kinds == ["text"]:
                    found.append(embed_texts(self.model, [row["text"] for row in rows], to))
                    continue
                own = [{kind: row[kind] for kind in kinds} for row in rows]
                for number, one in enumerate(own):
                    if isinstance(one.get("video"), dict):
                        one["video"] = _file(one["video"], Path(folder) / str(number))
                found.append(embed_media(self.model, own))
        return torch.cat(found).numpy()


def _file(video: dict[str, Any], place: Path) -> str:
    """Returns the path of a video that `datasets` holds as a path, or as the bytes of its file."""
    if video.get("bytes") is None:
        return str(video["path"])
    place.write_bytes(video["bytes"])
    return str(place)


def text_head(task_metadata: Any, prompt_type: PromptType | None) -> str:
    """Returns what the texts of one side of a task are about: `audio`, `video` or `audio_video`.

    Args:
        task_metadata: of the task.
        prompt_type: which side they are; None where both are alike.
    """
    if prompt_type is None:
        other = set(task_metadata.modalities)
    else:
        side = PromptType.document if prompt_type == PromptType.query else PromptType.query
        other = set(task_metadata.get_modalities(side))
    return _HEADS.get(frozenset(other - {"text"}), "audio_video")


def model_meta(name: str, model: PEAV, revision: str | None = None) -> ModelMeta:
    """Returns what mteb writes of a model into its results."""
    path = Path(name)
    # mteb's names are OWNER/NAME.
    called = f"local/{path.resolve().name}" if path.exists() or name.count("/") != 1 else name
    return ModelMeta(
        loader=PeavMTEB,  # type: ignore[arg-type]  # whose `mteb_model_meta` may be None, as AbsEncoder's
        name=called,
        revision=revision,
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=model.embedding_dim,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE if model.normalize else ScoringFunction.DOT_PRODUCT,
        use_instructions=False,
        training_datasets=None,
        modalities=[kind for kind in ("text", "audio", "video") if any(kind in one for one in model.embedding_names)],
    )
