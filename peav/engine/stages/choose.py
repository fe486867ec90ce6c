"""A writer for pipelines without one: of the captions that captioners gave, the one that scored best."""

from __future__ import annotations

from typing import Any

from peav.engine.stage import Columns, Stage, register_stage

_RANK = {"high": 3, "medium": 2, "low": 1, None: 2}


@register_stage
class ChooseCaption(Stage):
    """Takes, of each type, the caption with the highest confidence word, then the highest score, then the first.

    Args:
        keep: captions of a type to keep.
        drop_low: whether captions of low confidence are left out where the clip has a better one of their type.
    """

    reads = ("candidates",)
    provides = ("texts",)

    def __init__(self, keep: int = 1, drop_low: bool = True) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.keep, self.drop_low = keep, drop_low

    def __call__(self, batch: Columns) -> Columns:
        """Chooses for a batch."""
        return {"id": batch["id"], "texts": [self._choose(items or []) for items in batch["candidates"]]}

    def _choose(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        texts: dict[str, Any] = {}
        for kind in dict.fromkeys(item["kind"] for item in items):
            own = [item for item in items if item["kind"] == kind]
            own.sort(key=lambda item: (_RANK.get(item.get("confidence"), 2), item.get("score") or 0.0), reverse=True)
            if self.drop_low and own[0].get("confidence") != "low":
                own = [item for item in own if item.get("confidence") != "low"]
            kept = list(dict.fromkeys(item["text"] for item in own))[: self.keep]
            texts[kind] = kept[0] if len(kept) == 1 else kept
        return texts
