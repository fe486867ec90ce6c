"""How well captions of others fit their clip, by a PE-AV model: a number for ranking, and a word for the writer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peav.engine.confidence import edges, word_of
from peav.engine.digests import digest_model
from peav.engine.stage import Columns, FrameNeeds, Stage, register_stage


@register_stage
class ScoreCaptions(Stage):
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
        from peav.model import PEAV  # noqa: PLC0415  keeps `import peav.engine.stages` light

        self.model = PEAV.from_pretrained(model, trust=trust).to(device)
        media = self.model.media
        self.sample_rate = media.sample_rate
        size = media.frame_size
        self.frame_needs = FrameNeeds(
            (size, size) if isinstance(size, int) else tuple(size), media.num_frames, media.fps
        )
        self._edges: dict[str, list[float]] = {}

    @classmethod
    def key_arguments(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Leaves out where the model lies and computes."""
        return {}

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a digest of the files of the model."""
        return {"model": digest_model(init_args["model"])}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the model and its licence."""
        return {str(init_args["model"]): init_args["licence"]}

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
        import torch  # noqa: PLC0415

        made = [[dict(item) for item in items or ()] for items in batch["candidates"]]
        for medium, column in (("audio", "audio"), ("video", "frames")):
            texts = [(row, item) for row, items in enumerate(made) for item in items if item["kind"] == medium]
            texts = [(row, item) for row, item in texts if batch[column][row] is not None]
            if not texts:
                continue
            given = [torch.from_numpy(batch[column][row]) for row, _ in texts]
            of_media = (
                self.model.embed(audio=given, sample_rate=self.sample_rate)
                if medium == "audio"
                else self.model.embed(video=given)
            )
            of_texts = self.model.embed(text=[item["text"] for _, item in texts], to=medium)
            with torch.inference_mode():
                logits = self.model.similarity(
                    {medium: of_media[medium]}, {f"text_{medium}": of_texts[f"text_{medium}"]}
                )
            for (_, item), score in zip(texts, logits.diagonal().cpu().double().tolist(), strict=True):
                item["score"] = round(score, 4)
        return made


def _source(item: Mapping[str, Any]) -> str:
    return f"{item.get('by', '')}/{item['kind']}"
