"""What tells the files of a model from those of another one."""

from __future__ import annotations

import hashlib
from pathlib import Path


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
