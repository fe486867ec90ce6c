"""What tells the files of a model from those of another one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def digest_model(model: str) -> str:
    """Returns a digest of the files of a model; of a repository of the hub its name.

    Args:
        model: a file, a folder or a repository.
    """
    path = Path(model)
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    if not files:
        return model
    digest = hashlib.sha256()
    for one in files:
        digest.update(str(one.relative_to(path.parent)).encode() if path.is_dir() else b"")
        with one.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


class ModelFiles:
    """What plugins share whose argument `model` names files, and `licence` says under which licence they are."""

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a digest of the files of the model."""
        return {"model": digest_model(init_args["model"])}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the model and its licence."""
        return {str(init_args["model"]): init_args["licence"]}
