"""An index that is searched: `Index.open(path).search("a dog barks")`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from peav.checkpoints import FRAME_PAIR
from peav.data.media.errors import MediaError
from peav.devices import resolve_device
from peav.digest import model_digest
from peav.inputs import Request, Window, item_of_file, probe_file
from peav.model import PEAV
from peav.search.catalog import FileEntry
from peav.search.filters import Filters
from peav.search.found import Card, Found, Moment
from peav.search.moments import merge_overlaps, near_duplicate
from peav.search.ranking import Ranked, rank
from peav.search.reference import read_reference
from peav.search.store import Store
from peav.search.terms import TARGETS, Example, Mode, Term, check_mode, choose_vector, media_vectors, text_vectors
from peav.spans import Span
from peav.types import Seconds

#: A negative term subtracts this much of its score.
NEGATIVE_WEIGHT = 0.5
#: Two windows are nearly the same from this share of their products with themselves on.
DUPLICATE_BOUND = 0.98
#: A query fits nothing if the logit of its best window is below this (docs/search.md has what was measured).
FITS_LOGIT = -0.5
#: A file's further moments rise at least this share as far above the middle of the windows drawn as its best does.
_MOMENT_SHARE = 0.5

_log = logging.getLogger(__name__)


class Index:
    """An index that is searched; `open` makes one. Every search sees the last committed state.

    Args:
        store: the index.
        model: that it was made with; a name or path; or None for the one that it names. It is loaded when it is first needed.
        device: `cpu`, `cuda`, ... or `auto`.
        trust: let the model name classes by their dotted path, which are then imported, and run.

    Raises:
        ValueError: if the model given is not that of the index.
    """

    def __init__(
        self, store: Store, model: PEAV | str | Path | None = None, device: str = "auto", trust: bool = False
    ) -> None:
        self.store = store
        self._device, self._trust = device, trust
        self._name = store.settings["model"] if model is None or isinstance(model, PEAV) else str(model)
        self._model: PEAV | None = None
        if isinstance(model, PEAV):
            self._model = self._checked(model)
        self._load()

    @classmethod
    def open(
        cls, path: str | Path, model: PEAV | str | Path | None = None, device: str = "auto", trust: bool = False
    ) -> Self:
        """Opens an index.

        Raises:
            FileNotFoundError: if there is none.
            StoreError: if it is damaged.
            ValueError: if another version of peav made it, or the model given is not its own.
        """
        return cls(Store(path), model, device, trust)

    def close(self) -> None:
        """Lets go of the files."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model(self) -> PEAV:
        """The model of the index.

        Raises:
            CheckpointError: if it is not there any more.
            ValueError: if it is another one by now.
        """
        if self._model is None:
            model = PEAV.from_pretrained(self._name, trust=self._trust)
            self._model = self._checked(model.to(resolve_device(self._device)))
        return self._model

    def _checked(self, model: PEAV) -> PEAV:
        settings = self.store.settings
        if (digest := model_digest(model)) != settings["digest"]:
            raise ValueError(
                f"{self.store.folder} was made with {settings['model']} (digest {settings['digest']}), and this is another model (digest "
                f"{digest}): give that one, or make the index anew with `peav index update OTHER FOLDER --model ...`"
            )
        return model

    def _load(self) -> None:
        """Takes in the committed state."""
        store = self.store
        self._segments = list(store.segments.values())
        self._files = {file.id: file for file in store.catalog.files()}
        self._alive = self._masks(list(self._files))
        self._reference: dict[str, np.ndarray] | None = None

    def _masks(self, files: Sequence[int]) -> list[np.ndarray]:
        """Returns which windows of each segment belong to files."""
        last = max((int(segment.windows["file"].max()) for segment in self._segments if len(segment)), default=0)
        table = np.zeros(max(last, max(files, default=0)) + 1, bool)
        table[list(files)] = True
        return [table[segment.windows["file"]] for segment in self._segments]

    def search(
        self,
        text: str | Sequence[str] | None = None,
        *,
        like: str | Path | Example | Sequence[str | Path | Example] | None = None,
        entry: int | Sequence[int] | None = None,
        negative: str | Sequence[str] | None = None,
        mode: Mode | None = None,
        weights: Sequence[float] | None = None,
        filters: Filters | None = None,
        top: int = 10,
        moments: int = 5,
        fold: bool = True,
        when: bool = True,
    ) -> Found:
        """Finds the files that fit, exactly: no window is passed over.

        Args:
            text: what is sought, in words; several are all sought.
            like: files of sound, pictures or video, clips of them such as `film.mp4#t=12,20`, or what :meth:`example` made of them.
            entry: numbers of windows of the index: more like these.
            negative: words for what must not fit; each subtracts half its score.
            mode: what is compared: what is `heard`, `seen`, or `both` together. By default of texts what is heard, where the index holds
                sound; of files and windows what they hold, if the index has that.
            weights: of text, like and entry, in this order; 1 each by default.
            filters: which files may be found.
            top: files at most.
            moments: of each file at most.
            fold: whether files that are nearly the same as one that is shown are left out, and named there.
            when: whether frames are asked when what is heard begins and ends, if the model has them.

        Raises:
            ValueError: if nothing is asked for, or something out of range; or the index or the model cannot say.
            FileNotFoundError: if a file is not there.
            MediaError: if one cannot be decoded.
            KeyError: if there is no window of this number.
        """
        if self.store.refresh():
            self._load()
        for name, value in (("top", top), ("moments", moments)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        chosen, terms = self._terms(_listed(text), _listed(like), _listed(entry), _listed(negative), mode, weights)
        masks = self._allowed(filters, {term.target for term in terms})
        searched = int(sum(mask.sum() for mask in masks))
        queries, shift = self._combine(terms)
        cards = self._cards(queries, shift, masks, terms, top, moments, fold)
        if when and chosen == "heard":
            cards = self._timed(cards, [term.said for term in terms if term.is_text and term.weight > 0])
        known = [card.match for card in cards if card.match is not None]
        fits = None
        if not cards:
            fits = False
        elif known:
            fits = bool(known[0] >= 1 / (1 + np.exp(-FITS_LOGIT)))
        return Found(cards, fits, chosen, searched, len(terms) > 1)

    # What is asked.

    def example(self, said: str | Path | Example) -> Example:
        """Embeds a file, or a clip of one, to search by it more than once.

        Raises:
            ValueError: if its span is empty, or the model makes nothing of it.
            FileNotFoundError: if there is no such file.
            MediaError: if it cannot be decoded.
        """
        if isinstance(said, Example):
            return said
        return Example(str(said), media_vectors(self.model, self.store.settings, str(said)))

    def _terms(
        self,
        texts: Sequence[str],
        like: Sequence[Any],
        entries: Sequence[int],
        negative: Sequence[str],
        mode: Mode | None,
        weights: Sequence[float] | None,
    ) -> tuple[Mode, list[Term]]:
        if mode is not None:
            check_mode(mode)
        for words in (*texts, *negative):
            if not isinstance(words, str) or not words.strip():
                raise ValueError(f"a query of words must hold some, not {words!r}")
        count = len(texts) + len(like) + len(entries)
        if not count:
            raise ValueError("nothing is sought: give words, a file, or the number of a window")
        if weights is None:
            weights = [1.0] * count
        if len(weights) != count or not np.isfinite(weights).all() or not any(weight > 0 for weight in weights):
            raise ValueError(
                f"weights must be {count} numbers, one for each thing sought and one above 0, not {list(weights)}"
            )
        media = [(one.said, one.vectors) for one in (self.example(said) for said in like)]
        media += [(f"window {number}", self._vectors_of(number)) for number in entries]
        chosen = mode or self._default_mode(bool(texts), [vectors for _, vectors in media])
        target = TARGETS[chosen]
        if not any(target in segment.vectors for segment in self._segments):
            held = [name for name, one in TARGETS.items() if any(one in segment.vectors for segment in self._segments)]
            raise ValueError(
                f"the index holds nothing that is {chosen}; it can be searched for what is {' or '.join(held)}"
            )
        terms = []
        if texts or negative:
            vectors, name = text_vectors(self.model, [*texts, *negative], chosen)
            signed = [*weights[: len(texts)], *(-NEGATIVE_WEIGHT for _ in negative)]
            for said, vector, weight in zip([*texts, *negative], vectors, signed, strict=True):
                terms.append(Term(said, target, vector, weight, (target, name), True))
        model = self._model if not any(target not in vectors for _, vectors in media) else self.model
        for (said, held_of_it), weight in zip(media, weights[len(texts) :], strict=True):
            vector, _ = choose_vector(model, held_of_it, target, said)
            terms.append(Term(said, target, vector, weight))
        return chosen, terms

    def _default_mode(self, with_text: bool, media: Sequence[Mapping[str, np.ndarray]]) -> Mode:
        held = {name for segment in self._segments for name in segment.vectors}
        order: tuple[Mode, ...] = ("heard", "seen", "both") if with_text else ("both", "heard", "seen")
        for mode in order:
            if TARGETS[mode] in held and all(TARGETS[mode] in vectors for vectors in media):
                return mode
        return next((mode for mode in order if TARGETS[mode] in held), "heard")

    def _vectors_of(self, number: int) -> dict[str, np.ndarray]:
        for segment, alive in zip(self._segments, self._alive, strict=True):
            rows = np.flatnonzero((segment.windows["id"] == number) & alive)
            if len(rows):
                having = {name for name, some in segment.rows.items() if rows[0] in some}
                return {name: segment.take(name, rows)[0] for name in segment.rows if name in having}
        raise KeyError(f"the index has no window {number}")

    def _allowed(self, filters: Filters | None, targets: set[str]) -> list[np.ndarray]:
        masks = self._alive
        if filters:
            where, arguments = filters.to_sql()
            masks = self._masks(
                [number for number in self.store.catalog.file_ids(where, arguments) if number in self._files]
            )
        found = []
        for segment, mask in zip(self._segments, masks, strict=True):
            having = mask
            for name in targets:
                having = having & segment.has(name)
            found.append(having)
        return found

    @property
    def reference(self) -> dict[str, np.ndarray]:
        """Windows drawn from the index: by embedding (N, D)."""
        if self._reference is None:
            self._reference = {name: values.astype(np.float32) for name, values in read_reference(self.store).items()}
        return self._reference

    def _spread(self, target: str, vector: np.ndarray) -> tuple[float, float]:
        """Returns mean and standard deviation of a query's products with the windows drawn."""
        if target not in self.reference or not len(self.reference[target]):
            return 0.0, 1.0
        products = self.reference[target] @ vector.astype(np.float32)
        return float(products.mean()), float(products.std()) or 1.0

    def _combine(self, terms: Sequence[Term]) -> tuple[dict[str, np.ndarray], float]:
        """Returns one query an embedding, and what is added to its products.

        One term alone is asked as it is. Several are put on one scale: each counts in standard deviations above its mean over the windows
        drawn, so that a negative term subtracts a score, and not a vector whose norm happens to be another.
        """
        if len(terms) == 1:
            return {terms[0].target: terms[0].vector * np.float32(terms[0].weight)}, 0.0
        queries: dict[str, np.ndarray] = {}
        shift = 0.0
        for term in terms:
            mean, deviation = self._spread(term.target, term.vector)
            part = (term.weight / deviation) * term.vector.astype(np.float64)
            queries[term.target] = queries.get(term.target, 0.0) + part
            shift -= term.weight * mean / deviation
        return {name: query.astype(np.float32) for name, query in queries.items()}, shift

    # What comes of it.

    def _cards(
        self,
        queries: Mapping[str, np.ndarray],
        shift: float,
        masks: Sequence[np.ndarray],
        terms: Sequence[Term],
        top: int,
        moments: int,
        fold: bool,
    ) -> list[Card]:
        total = int(sum(mask.sum() for mask in masks))
        if not total:
            return []
        asked = 8 * top + 16
        while True:
            ranked = rank(self._segments, masks, queries, asked)
            best, duplicates = self._files_of(ranked, top, fold)
            if len(best) >= top or asked >= total:
                break
            asked *= 4
        best = best[:top]
        shown = {int(ranked.windows["file"][row]) for row in best}
        own = self._masks(sorted(shown))
        every = (
            rank(self._segments, [mask & mine for mask, mine in zip(masks, own, strict=True)], queries, max(1, total))
            if shown
            else ranked
        )
        middle = self._middle(queries)
        cards = []
        for row in best:
            number = int(ranked.windows["file"][row])
            cards.append(
                Card(
                    self._files[number],
                    float(ranked.scores[row]) + shift,
                    self._match(terms, ranked, row),
                    self._moments(every, number, middle, shift, moments),
                    duplicates.get(number, []),
                )
            )
        return cards

    def _files_of(self, ranked: Ranked, top: int, fold: bool) -> tuple[list[int], dict[int, list[str]]]:
        """Returns the best window of each file, as far as they are shown, and what was folded into them."""
        best: list[int] = []
        vectors: list[dict[str, np.ndarray]] = []
        duplicates: dict[int, list[str]] = {}
        seen: set[int] = set()
        for row, number in enumerate(ranked.windows["file"].tolist()):
            if number in seen:
                continue
            seen.add(number)
            if fold:
                vector = self._all_vectors(ranked, row)
                same = near_duplicate(vector, vectors, DUPLICATE_BOUND)
                if same is not None:
                    original = int(ranked.windows["file"][best[same]])
                    duplicates.setdefault(original, []).append(self._files[number].path)
                    continue
                vectors.append(vector)
            best.append(row)
            if len(best) >= top:
                break
        return best, duplicates

    def _vector_at(self, ranked: Ranked, row: int, name: str) -> np.ndarray:
        segment, window = ranked.places[row]
        return self._segments[segment].take(name, np.array([window]))[0]

    def _all_vectors(self, ranked: Ranked, row: int) -> dict[str, np.ndarray]:
        """Returns what a window has: files are the same if both what is heard and what is seen is."""
        segment, window = self._segments[ranked.places[row, 0]], ranked.places[row, 1]
        having = [name for name, rows in segment.rows.items() if window in rows]
        return {name: segment.take(name, np.array([window]))[0] for name in having}

    def _middle(self, queries: Mapping[str, np.ndarray]) -> float:
        """Returns the middle of the scores of the windows drawn."""
        drawn = [np.median(self.reference[name] @ query) for name, query in queries.items() if name in self.reference]
        return float(sum(drawn))

    def _moments(self, ranked: Ranked, number: int, middle: float, shift: float, count: int) -> list[Moment]:
        rows = np.flatnonzero(ranked.windows["file"] == number)
        scores, windows = ranked.scores[rows], ranked.windows[rows]
        worth = scores >= middle + _MOMENT_SHARE * (scores[0] - middle)
        worth[0] = True
        windows, scores = windows[worth], scores[worth]
        merged = merge_overlaps(windows["start"].tolist(), windows["seconds"].tolist())
        return [
            Moment(int(windows["id"][row]), start, seconds, float(scores[row]) + shift)
            for row, start, seconds in merged[:count]
        ]

    def _match(self, terms: Sequence[Term], ranked: Ranked, row: int) -> float | None:
        """Returns the smallest probability of the texts sought, as the model was trained."""
        found = []
        for term in terms:
            if term.pair is None or term.weight <= 0:
                continue
            window = {term.target: torch.from_numpy(self._vector_at(ranked, row, term.target))[None]}
            query = {term.pair[1]: torch.from_numpy(np.asarray(term.vector))[None]}
            try:
                with torch.inference_mode():
                    found.append(float(self.model.similarity(window, query, pair=term.pair).sigmoid()))
            except KeyError:  # the checkpoint has no scale and bias for it
                continue
        return min(found, default=None)

    def _timed(self, cards: list[Card], texts: Sequence[str]) -> list[Card]:
        """Asks the frames of what is shown when it is heard."""
        if not texts or not cards or not self.has_frames:
            return cards
        timed = []
        for card in cards:
            try:
                moments = [self._heard(card.file, moment, texts) for moment in card.moments]
            except (MediaError, OSError, ValueError) as error:
                _log.warning("%s cannot be listened to, so that it is not known when: %s", card.file.path, error)
                moments = card.moments
            # Frames rank within a file, never files among each other: their scale is not that of the windows.
            moments = sorted(moments, key=lambda moment: -(moment.frame_score or 0.0))
            timed.append(replace(card, moments=moments))
        return timed

    @property
    def has_frames(self) -> bool:
        """Whether the model says of phrases when they are heard."""
        medium, phrase = FRAME_PAIR
        model = self.model
        return medium in model.frame_names and phrase in model.pooled_names and FRAME_PAIR in model.pairs

    def heard(self, file: FileEntry, start: Seconds, seconds: Seconds, texts: Sequence[str]) -> Span | None:
        """Returns when any of some texts is heard in a span of a file, by the frames of the model: the surest of all spans.

        Args:
            file: of the index.
            start: of the span, seconds.
            seconds: how long it is.
            texts: what is sought.

        Returns:
            with times of the file; None where it is not heard, or the model has no frames.

        Raises:
            MediaError: if the file cannot be decoded.
        """
        if not texts or not self.has_frames:
            return None
        item = item_of_file(file.path, probe_file(file.path), ["audio"])
        model = self.model
        samples = Request(0, item, Window(start, seconds), model.media).load().samples
        if samples is None:
            return None
        found = model.detect([samples], list(texts), sample_rate=model.media.sample_rate)[0]
        spans = [span for some in found for span in some]
        if not spans:
            return None
        best = max(spans, key=lambda span: span.score)
        return replace(best, onset=start + best.onset, offset=start + best.offset)

    def _heard(self, file: FileEntry, moment: Moment, texts: Sequence[str]) -> Moment:
        span = self.heard(file, moment.start, moment.seconds, texts)
        if span is None:
            return moment
        return replace(moment, begin=span.onset, end=span.offset, frame_score=span.score)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | Path | int | Example) else list(value)
