"""A model of peav's as one of sentence-transformers (https://sbert.net): `encode` and `similarity` of sounds, videos and texts.

    from peav.integrations.sentence_transformers import as_sentence_transformer

    model = as_sentence_transformer("facebook/pe-av-small", to="audio")
    model.similarity(model.encode(["a dog barks"]), model.encode([{"audio": "dog.wav"}]))

It needs the extra `sentence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_modality
from sentence_transformers.base.modules import InputModule

from peav.integrations.media import check_text_name, embed_media, embed_texts, media_names
from peav.model import PEAV


class PeavInput(InputModule):
    """The only module of such a model: from texts and media to embeddings.

    Args:
        model: it.
        to: what texts describe, unless `encode(..., to=...)` says otherwise: `audio`, `video` or `audio_video`, each a head of its own.

    Raises:
        ValueError: if the model has no such head.
    """

    config_file_name = "sentence_peav_config.json"
    config_keys: list[str] = ["to"]  # noqa: RUF012  as the library has it
    forward_kwargs: set[str] = {"to"}  # noqa: RUF012

    def __init__(self, model: PEAV, to: str) -> None:
        super().__init__()
        check_text_name(model, to)
        self.model, self.to_kind = model, to

    @property
    def modalities(self) -> list[Any]:
        """What `encode` takes: texts, sounds, videos, and what the model embeds together."""
        return ["text", *(kinds[0] if len(kinds) == 1 else kinds for kinds in media_names(self.model))]

    def get_embedding_dimension(self) -> int:
        """Returns D."""
        return self.model.embedding_dim

    def get_config_dict(self) -> dict[str, Any]:
        """Returns what is saved beside the model."""
        return {"to": self.to_kind}

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Sorts inputs by what is in them; media are decoded when they are embedded.

        Args:
            inputs: texts; `{"audio": ...}`, `{"video": ...}` or both, with paths, arrays or torchcodec's decoders; or such media
                themselves, where sentence-transformers can tell what they are.
            prompt: put before texts.
            **kwargs: of `encode`.
        """
        known = self.modalities
        read = []
        for one in inputs:
            kind = infer_modality(one, supported_modalities=known)
            if isinstance(one, Mapping) and set(one) <= {"audio", "video", "text"}:
                read.append(dict(one))
            else:
                read.append({cast(str, kind): one})
        for one in read:
            if prompt and isinstance(one.get("text"), str):
                one["text"] = prompt + one["text"]
        return {"inputs": read}

    def forward(self, features: dict[str, Any], to: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Embeds: adds `sentence_embedding` (N, D).

        Args:
            features: of `preprocess`.
            to: what texts describe.
            **kwargs: nothing that counts.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for row, one in enumerate(features["inputs"]):
            groups.setdefault(tuple(sorted(one)), []).append(row)
        found = torch.zeros(len(features["inputs"]), self.model.embedding_dim)
        for kinds, rows in groups.items():
            own = [features["inputs"][row] for row in rows]
            if kinds == ("text",):
                found[rows] = embed_texts(self.model, [one["text"] for one in own], to or self.to_kind)
            else:
                found[rows] = embed_media(self.model, own)
        return {**features, "sentence_embedding": found.to(next(self.model.parameters()).device)}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Writes the model in peav's format, and which head reads texts."""
        self.model.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(  # type: ignore[override]  # the library's takes settings of its own too
        cls, model_name_or_path: str, subfolder: str = "", revision: str | None = None, **kwargs: Any
    ) -> Self:
        """Reads what `save` wrote, from a folder or a repository of the hub."""
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, revision=revision)
        if folder is None:
            raise FileNotFoundError(f"there is no model {model_name_or_path}")
        config = cls.load_config(model_name_or_path, subfolder=subfolder, revision=revision)
        return cls(PEAV.from_pretrained(folder), **config)


def as_sentence_transformer(
    model: PEAV | str | Path, to: str = "audio", device: str | None = None
) -> SentenceTransformer:
    """Makes a SentenceTransformer of a model; scores are dot products, as the model's own.

    Args:
        model: it, or what `PEAV.from_pretrained` reads.
        to: what texts describe, unless `encode(..., to=...)` says otherwise.
        device: where it computes.

    Raises:
        ValueError: if the model has no such head.
    """
    opened = model if isinstance(model, PEAV) else PEAV.from_pretrained(model)
    return SentenceTransformer(modules=[PeavInput(opened, to)], similarity_fn_name="dot", device=device)
