"""`peav convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def convert(
    source: str,
    out: Path,
    *,
    to: Literal["peav", "meta", "transformers"] = "peav",
    revision: str | None = None,
    trust: bool = False,
) -> None:
    """Write a model in another format.

    Args:
        source: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        out: folder to write.
        to: `peav`; `meta`, which Meta's code reads; or `transformers`.
        revision: of the repository; `perception_models` of the released ones is Meta's format.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.model import PEAV

    model = PEAV.from_pretrained(source, revision, trust)
    model.save_pretrained(out, to)
    print(f"wrote {out}: {', '.join(model.embedding_names)}; {sum(p.numel() for p in model.parameters()):,} parameters")
    if model.missing_pairs:
        print(f"no scale and bias are known for {', '.join(' x '.join(pair) for pair in model.missing_pairs)}")
