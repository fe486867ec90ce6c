"""How well captions of others fit their clip, by a PE-AV model: a number for ranking, and a word for the writer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peav.engine.confidence import edges, word_of
from peav.engine.stage import Columns, register_stage
from peav.engine.stages.peav_model import MEDIA_COLUMN, PEAVStage


@register_stage
class ScoreCaptions(PEAVStage):
    """Compares captions with the sound or picture of their clip, and says low, medium or high by thirds of a calibration sample.

    The thirds are of each captioner and type apart, for raw scores of media and of captioners are not comparable. A similarity alone is a
    weak filter of what was not heard (F1 52 where chance is 40, arXiv 2401.09774): it ranks and bins, and drops nothing.

    It provides `candidates` anew: those of before with `score` and `confidence`. Put it behind the last captioner.

    Args:
        model: a folder in Meta's format, transformers' or peav's; a `.ckpt` of `peav fit`; or a repository of the hub.
        licence: of the model, for the provenance.
        trust: let the model name classes by their dotted path, which are then imported, and run.
        device: to compute on.
    """

    reads = ("candidates", "audio", "frames")
    provides = ("candidates",)
    calibrates = True

    def __init__(self, model: str, licence: str = "", trust: bool = False, device: str = "cpu") -> None:
        super().__init__(model, trust, device)
        self._edges: dict[str, list[float]] = {}

    @classmethod
    def key_arguments(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Leaves out where the model lies and computes."""
        return {}

    def calibrate(self, batch: Columns) -> Any:
        """Learns the thirds of each captioner and type."""
        held: dict[str, list[float]] = {}
        for items in self._scored(batch):
            for item in items:
                if item.get("score") is not None:
                    held.setdefault(_source(item), []).append(item["score"])
        return {source: edges(scores) for source, scores in held.items()}

    def load_calibration(self, learned: Any) -> None:
        """Takes them."""
        self._edges = learned

    def __call__(self, batch: Columns) -> Columns:
        """Scores a batch."""
        scored = self._scored(batch)
        for items in scored:
            for item in items:
                if item.get("score") is not None and _source(item) in self._edges:
                    item["confidence"] = word_of(item["score"], self._edges[_source(item)])
        return {"id": batch["id"], "candidates": scored}

    def _scored(self, batch: Columns) -> list[list[dict[str, Any]]]:
        made = [[dict(item) for item in items or ()] for items in batch["candidates"]]
        for medium, column in MEDIA_COLUMN.items():
            texts = [(row, item) for row, items in enumerate(made) for item in items if item["kind"] == medium]
            texts = [(row, item) for row, item in texts if batch[column][row] is not None]
            if not texts:
                continue
            embeds = self.embed_texts([item["text"] for _, item in texts], medium)
            logits = self.logits(medium, [batch[column][row] for row, _ in texts], embeds)
            for (_, item), score in zip(texts, logits.diagonal().tolist(), strict=True):
                item["score"] = round(score, 4)
        return made


def _source(item: Mapping[str, Any]) -> str:
    return f"{item.get('by', '')}/{item['kind']}"
