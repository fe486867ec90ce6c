"""`PEAVTagger`: any PE-AV checkpoint as a tagger. It scores phrases for sound and for picture, and says when where the model can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.engine.confidence import edges, word_of
from peav.engine.stage import Columns, register_stage
from peav.engine.stages.peav_model import MEDIA_COLUMN, Medium, PEAVStage
from peav.types import Seconds


@register_stage
class PEAVTagger(PEAVStage):
    """Scores a vocabulary of phrases for the sound and the picture of clips with a PE-AV model.

    A phrase's scores are standardised by their mean and deviation over a calibration sample, for raw scores of phrases are not
    comparable. A clip has the phrases whose standardised score is at least `min_score`, the best `top` of them, and always the best one.
    The confidence word of a phrase is that of its standardised score among the best scores of the sample, cut into thirds.

    It provides `tags`: `{"phrase", "medium", "score", "confidence", "by", "spans"}`, `spans` (seconds) only of sounds found by a
    frame-level model; `support`, the phrases of which there is any sign (`min_support`), for the gate `Support`; and `events` where
    `write_events` is set.

    Args:
        model: a folder in Meta's format, transformers' or peav's; a `.ckpt` of `peav fit`; or a repository of the hub.
        sounds: phrases for what is heard: a list, or a file of them, one a line.
        sights: phrases for what is seen, likewise.
        top: phrases of a medium at most.
        min_score: standardised score of every phrase but the best.
        min_support: standardised score from which on there is a sign of a phrase.
        events: whether a frame-level model says when; the phrases that it found are tags, too.
        write_events: whether those spans are written into the manifest, where it has no events (vocabulary `open`).
        name: `by` of the tags.
        licence: of the model, for the provenance.
        trust: let the model name classes by their dotted path, which are then imported, and run.
        device: to compute on.
    """

    reads = ("audio", "frames")
    version = 2
    provides = ("tags", "support")
    calibrates = True
    unkeyed = ("model", "sounds", "sights", "device", "trust", "licence")  # the identity has their content

    def __init__(
        self,
        model: str,
        sounds: Sequence[str] | str = (),
        sights: Sequence[str] | str = (),
        top: int = 3,
        min_score: float = 1.5,
        min_support: float = 0.5,
        events: bool = False,
        write_events: bool = False,
        name: str = "PEAVTagger",
        licence: str = "",
        trust: bool = False,
        device: str = "cpu",
    ) -> None:
        self.phrases: dict[Medium, list[str]] = {"audio": read_phrases(sounds), "video": read_phrases(sights)}
        if not any(self.phrases.values()):
            raise ValueError("PEAVTagger has nothing to look for: give sounds, sights, or both")
        self.vocabulary = {medium: phrases for medium, phrases in self.phrases.items() if phrases}
        self.top, self.min_score, self.min_support, self.name = top, min_score, min_support, name
        self.events, self.write_events = events, write_events
        super().__init__(model, trust, device)
        self._learned: dict[str, Any] = {}
        self._texts = {medium: self.embed_texts(phrases, medium) for medium, phrases in self.phrases.items() if phrases}

    @classmethod
    def columns(cls, init_args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns what it reads: the media that it has phrases for."""
        reads = [column for column, name in (("audio", "sounds"), ("frames", "sights")) if init_args[name]]
        return (*reads, "duration"), (*cls.provides, "events") if init_args["write_events"] else cls.provides

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a digest of the files of the model, and the phrases."""
        return {
            **super().identity(init_args),
            "sounds": read_phrases(init_args["sounds"]),
            "sights": read_phrases(init_args["sights"]),
        }

    def calibrate(self, batch: Columns) -> Any:
        """Learns mean and deviation of each phrase, and where the best scores are low and high."""
        learned = {}
        for medium, phrases in self.phrases.items():
            if not phrases:
                continue
            scores = self._scores(medium, batch)
            rows = [row for row in scores if row is not None]
            if not rows:
                continue
            held = np.stack(rows)
            mean, deviation = held.mean(axis=0), np.maximum(held.std(axis=0), 1e-6)
            best = ((held - mean) / deviation).max(axis=1)
            learned[medium] = {
                "mean": mean.tolist(),
                "deviation": deviation.tolist(),
                "edges": edges(best.tolist()),
                "clips": len(rows),
            }
        return learned

    def load_calibration(self, learned: Any) -> None:
        """Takes them."""
        self._learned = learned

    def __call__(self, batch: Columns) -> Columns:
        """Tags a batch."""
        tags: list[list[dict[str, Any]]] = [[] for _ in batch["id"]]
        support: list[list[list[str]]] = [[] for _ in batch["id"]]
        for medium, phrases in self.phrases.items():
            if not phrases or medium not in self._learned:
                continue
            known = self._learned[medium]
            mean, deviation = np.array(known["mean"]), np.array(known["deviation"])
            for place, row in enumerate(self._scores(medium, batch)):
                if row is None:
                    continue
                standard = (row - mean) / deviation
                signs = [phrases[index] for index in np.flatnonzero(standard >= self.min_support)]
                order = np.argsort(-standard, kind="stable")[: self.top]
                for rank, index in enumerate(order):
                    score = float(standard[index])
                    if rank and score < self.min_score:
                        break
                    tags[place].append(
                        {
                            "phrase": phrases[int(index)],
                            "medium": medium,
                            "score": round(score, 3),
                            "confidence": word_of(score, known["edges"]),
                            "by": self.name,
                        }
                    )
                named = [tag["phrase"] for tag in tags[place] if tag["medium"] == medium]
                support[place] += [[medium, phrase] for phrase in dict.fromkeys([*named, *signs])]
        made: Columns = {"id": batch["id"], "tags": tags, "support": support}
        if self.events:
            self._add_spans(batch, tags)
        if self.write_events:
            made["events"] = [
                [
                    {"phrase": tag["phrase"], "onset": start, "offset": end}
                    for tag in own
                    for start, end in tag.get("spans", ())
                ]
                for own in tags
            ]
        return made

    def _scores(self, medium: Medium, batch: Columns) -> list[NDArray[np.float64] | None]:
        """Returns the scores (P,) of the phrases for each clip, None of one without the medium."""
        values = batch[MEDIA_COLUMN[medium]]
        there = [place for place, value in enumerate(values) if value is not None]
        scores: list[NDArray[np.float64] | None] = [None] * len(values)
        if there:
            logits = self.logits(medium, [values[place] for place in there], self._texts[medium])
            for place, row in zip(there, logits.numpy(), strict=True):
                scores[place] = row
        return scores

    def _add_spans(self, batch: Columns, tags: Sequence[list[dict[str, Any]]]) -> None:
        import torch  # noqa: PLC0415

        there = [place for place, value in enumerate(batch["audio"]) if value is not None]
        if not there:
            return
        phrases = self.phrases["audio"]
        found = self.model.detect(
            [torch.from_numpy(batch["audio"][place]) for place in there], phrases, sample_rate=self.sample_rate
        )
        for place, spans in zip(there, found, strict=True):
            by_phrase = {
                phrase: [_span(span, batch["duration"][place]) for span in own]
                for phrase, own in zip(phrases, spans, strict=True)
                if own
            }
            for tag in tags[place]:
                if tag["medium"] == "audio" and tag["phrase"] in by_phrase:
                    tag["spans"] = by_phrase[tag["phrase"]]


def _span(span: Any, duration: Seconds) -> list[float]:
    return [round(max(span.onset, 0.0), 3), round(min(span.offset, duration), 3)]


def read_phrases(given: Sequence[str] | str) -> list[str]:
    """Returns phrases that are given as a list or as a file of them, one a line; blank lines and those that begin with # do not count.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if a phrase is there twice.
    """
    lines = Path(given).read_text(encoding="utf-8").splitlines() if isinstance(given, str) and given else list(given)
    phrases = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    for phrase, count in Counter(phrases).items():
        if count > 1:
            raise ValueError(f"the phrase {phrase!r} is there twice")
    return phrases
