"""What each frame of each clip says about each text: strong, weak, absent or unknown, as a mask that is made tile by tile.

| state of a clip and a text | where from | terms |
|---|---|---|
| STRONG | the clip has timed events of the text | every frame: the highest confidence of the events that touch it, else 0 |
| PRESENT | it has untimed ones only, of a confidence above 0 | one of all frames, which counts as many as there are |
| ABSENT | it has untimed ones of confidence 0; or none, and would have if it were heard | every frame: 0 |
| UNKNOWN | it has none, and might be heard all the same; or a related one | none |

Whether a text without events is ABSENT or UNKNOWN, the clip's closed vocabulary says (`EventInput.vocabulary`). Related texts are ancestors
and descendants in a hierarchy (`EventInput.lineage`). A text without events of its own is UNKNOWN in a clip that holds a related one.
An ancestor of what is held is not taken for positive: hierarchies in use also group by place, mood or source, of which nobody would
say that they are heard. What a clip says of a text itself stands, but for one thing: where a descendant is heard, or may be
heard, its ancestor is not negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peav.host import to_device
from peav.objectives.event_frames import event_frames
from peav.objectives.frame_inputs import (
    Flags,
    Integers,
    Numbers,
    Spans,
    Texts,
    check_events,
    columns_of,
    fetch_to_host,
)
from peav.objectives.frame_sum import WeakTerms, blocks_of
from peav.objectives.lineage import ancestor_pairs, spans
from peav.objectives.tiles import Cells, RowWeights, Tile, TileMask
from peav.types import EventInput, Seconds


@dataclass(frozen=True)
class TermWeights:
    """Weights of the groups of terms.

    Attributes:
        positive: of frames with a label above 0.
        inactive: of all other frames of a clip's own texts.
        clips: of texts that other clips of this rank have.
        ranks: of texts that only clips of other ranks have.
        bank: of texts that no clip has, drawn from the phrase bank.
        present: of weak terms.
        open: factor of terms of texts that a clip with an open vocabulary does not have; 0 leaves them unknown.
    """

    positive: float = 1.0
    inactive: float = 1.0
    clips: float = 1.0
    ranks: float = 1.0
    bank: float = 1.0
    present: float = 1.0
    open: float = 0.0


#: States of a clip and a text of which the clip has events.
_STRONG, _PRESENT, _ABSENT = range(3)


class FrameMask(TileMask):
    """Frames of clips against texts.

    Rows are the frames (B * T) of this rank's clips, columns the texts of all ranks. A text that several rows hold counts once, where it
    comes first, so that N ranks equal one process. All is found on the host, which fetches in one copy what it needs.

    Args:
        valid: (B, T) bool, the frames that count.
        events: E events of the B clips.
        frame_seconds: the hop, one number or (B,).
        texts: of all ranks.
        weights: of the groups of terms.
        dtype: of weights and labels on the device.

    Attributes:
        label_rows: (C,) int64 on the host, at which row of the texts each of the C distinct ones comes first.
        event_labels: (E,) int64 on the host, which of them each event is of; -1 of none.
        weak: the terms of PRESENT texts, in blocks of clips.
        weak_frames: how many frames stand behind them.
    """

    def __init__(
        self,
        valid: Tensor,
        events: EventInput,
        frame_seconds: Tensor | Seconds,
        texts: Texts,
        weights: TermWeights | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._device, self._dtype, self.weights = valid.device, dtype, weights or TermWeights()
        valid, events, hop, texts = fetch_to_host(valid, events, frame_seconds, texts)
        self._num_clips, self._num_frames = valid.shape
        check_events(events, self._num_clips, texts.number)
        self._column_of, first = columns_of(texts)
        self.columns = None if len(first) == len(texts.group) else self._upload(torch.from_numpy(first))
        self._first, self._num_columns = first, len(first)
        self.label_rows = torch.from_numpy(first)
        self._read_texts(texts)
        self._read_events(events, hop, valid.numpy(), texts)
        frames = np.flatnonzero(valid.numpy() & self._anything(events)[:, None])
        self._frames, self._row_clip = frames, frames // max(self._num_frames, 1)
        # Without indices no frame is copied.
        self.rows = None if len(frames) == valid.numel() else self._upload(torch.from_numpy(frames))
        self._painted: tuple[slice, _Block] | None = None
        self._pool(valid.numpy())

    def tile(self, rows: slice, columns: slice) -> Tile | None:
        """Makes the tile."""
        if self._painted is None or self._painted[0] != rows:
            self._painted = (rows, self._paint(rows))
        block = self._painted[1]
        chosen = (block.column >= columns.start) & (block.column < columns.stop)
        row, column = block.row[chosen], block.column[chosen]
        label, single = block.label[chosen], block.cell_weight[chosen]
        instead = np.ones(len(row)) if block.weight is None else block.weight[block.run[row], column]
        weights = None
        if block.weight is not None and (block.weight[:, columns] != 1).any():
            part = block.weight[:, columns]
            count = int((block.lengths @ (part > 0)).sum())
            if not count and not (single > 0).any():
                return None
            weights = RowWeights(self._numbers(part), tuple(block.lengths.tolist()), count)
        if not len(row):
            return Tile(row_weights=weights)
        where = self._upload(torch.from_numpy(np.stack((row, column - columns.start))))
        if weights is None and (label == 1).all() and (single == 1).all():
            return Tile(own=(where[0], where[1]))
        return Tile(row_weights=weights, cells=Cells(*where, *self._numbers(np.stack((label, single, instead)))))

    def known(self) -> Tensor:
        """Returns (B, C) bool on the host: of which texts it is known in which frames of a clip they are heard, or that they are not."""
        known = self._base(np.arange(self._num_clips)) > 0
        known[self._unknown_clip, self._unknown_column] = False
        known[self._pair_clip, self._pair_column] = self._state != _PRESENT
        return torch.from_numpy(known)

    def rates(self) -> tuple[Tensor, Tensor]:
        """Counts, for each of the M columns, the frames of this rank that count and sums their labels; weak terms have neither.

        Returns:
            (M,) and (M,), 0 for columns that do not count.
        """
        found = np.zeros((2, len(self._column_of)))
        number, positive = np.zeros(self._num_columns), np.zeros(self._num_columns)
        for begin in range(0, len(self._frames), 1 << 14):
            block = self._paint(slice(begin, min(begin + (1 << 14), len(self._frames))))
            there, counted = block.cell_weight > 0, np.ones(len(block.row), dtype=np.bool_)
            number += block.lengths.sum() if block.weight is None else block.lengths @ (block.weight > 0)
            if block.weight is not None:
                counted = block.weight[block.run[block.row], block.column] > 0
            number += np.bincount(block.column, there.astype(np.float64) - counted, self._num_columns)
            positive += np.bincount(block.column, np.where(there, block.label, 0), self._num_columns)
        found[:, self._first] = number, positive
        both = self._numbers(found)
        return both[0], both[1]

    def _upload(self, values: Tensor) -> Tensor:
        return to_device(values, self._device)

    def _numbers(self, values: Numbers) -> Tensor:
        return self._upload(torch.from_numpy(values).to(self._dtype))

    def _read_texts(self, texts: Texts) -> None:
        """Finds the weight of each column, its vocabularies, and which columns are related."""
        place, there = self._column_of, self._column_of >= 0
        bank = np.zeros(len(place), dtype=np.bool_) if texts.bank is None else texts.bank.numpy()
        held, own = np.zeros(self._num_columns, dtype=np.bool_), np.zeros(self._num_columns, dtype=np.bool_)
        held[place[there & ~bank]] = True
        here = slice(texts.offset, texts.offset + texts.number)
        own[place[here][there[here] & ~bank[here]]] = True
        other = np.where(held, float(self.weights.ranks), float(self.weights.bank))
        self._weight = np.where(own, float(self.weights.clips), other)
        vocabularies = 0 if texts.members is None else texts.members.shape[1]
        self._members = np.zeros((self._num_columns, vocabularies), dtype=np.bool_)
        if texts.members is not None:
            row, vocabulary = np.nonzero(texts.members.numpy() & there[:, None])
            self._members[place[row], vocabulary] = True
        none = np.zeros(0, dtype=np.int64)
        self._related = (none, none) if texts.lineage is None else ancestor_pairs(texts.lineage.numpy(), place)

    def _read_events(self, events: EventInput, hop: Tensor, valid: Flags, texts: Texts) -> None:
        """Finds of which texts each clip has events, and what these are."""
        clip, phrase = events.clip.numpy(), events.phrase.numpy()
        column = self._column_of[texts.offset + phrase] if len(phrase) else phrase
        self.event_labels = torch.from_numpy(column)
        kept = (column >= 0) & (valid.sum(1) > 0)[clip] if len(phrase) else np.zeros(0, dtype=np.bool_)
        begin, end = (
            np.clip(value.numpy(), 0, self._num_frames).astype(np.int64)[kept] for value in event_frames(events, hop)
        )
        clip, column = clip[kept], column[kept]
        confidence = (
            np.ones(len(clip)) if events.confidence is None else events.confidence.numpy()[kept].astype(np.float64)
        )
        timed = np.ones(len(clip), dtype=np.bool_) if events.timed is None else events.timed.numpy()[kept]
        key, pair = np.unique(clip * self._num_columns + column, return_inverse=True)
        self._pair_clip, self._pair_column = key // max(self._num_columns, 1), key % max(self._num_columns, 1)
        strong = np.zeros(len(key), dtype=np.bool_)
        strong[pair[timed]] = True
        highest = np.zeros(len(key))
        np.maximum.at(highest, pair, np.where(timed == strong[pair], confidence, 0))
        self._state = np.where(strong, _STRONG, np.where(highest > 0, _PRESENT, _ABSENT))
        self._clip_label = highest
        order = np.flatnonzero(timed)
        order = order[np.argsort(pair[order], kind="stable")]
        self._spans = Spans(pair[order], begin[order], end[order], confidence[order])
        self._vocabulary = np.full(self._num_clips, -1) if events.vocabulary is None else events.vocabulary.numpy()
        if len(self._vocabulary) and (self._vocabulary.min() < -2 or self._vocabulary.max() >= self._members.shape[1]):
            raise ValueError(
                f"events.vocabulary is -2, -1 or one of the {self._members.shape[1]} columns of events.members, not "
                f"{self._vocabulary.min()} to {self._vocabulary.max()}"
            )
        self._relate(key)

    def _relate(self, key: Integers) -> None:
        """Finds what a clip does not know since it holds a related text."""
        ancestor, descendant = self._related
        none = np.zeros(0, dtype=np.int64)
        self._unknown_clip, self._unknown_column, self._erased = none, none, Spans.empty()
        held = np.flatnonzero((self._state != _ABSENT) & (self._clip_label > 0))
        if not len(ancestor) or not len(held):
            return
        unknown, erased = [], []
        for own, other, upwards in ((descendant, ancestor, True), (ancestor, descendant, False)):
            order = np.argsort(own, kind="stable")
            columns = self._pair_column[held]
            first, last = np.searchsorted(own[order], columns, "left"), np.searchsorted(own[order], columns, "right")
            pair = np.repeat(held, last - first)
            wanted = self._pair_clip[pair] * self._num_columns + other[order][spans(first, last)]
            at = np.searchsorted(key, wanted).clip(max=len(key) - 1)
            found = key[at] == wanted
            unknown.append(wanted[~found])
            if upwards:
                # (pair of the ancestor, pair of what is held below it)
                erased = [at[found], pair[found]]
        missing = np.unique(np.concatenate(unknown))
        self._unknown_clip, self._unknown_column = missing // self._num_columns, missing % self._num_columns
        self._erased = self._erasing(*erased)

    def _erasing(self, above: Integers, below: Integers) -> Spans:
        """Returns the frames in which texts (pairs `above`) are unknown since a descendant (pairs `below`) is or may be heard there."""
        timed = self._state[below] == _STRONG
        first = np.searchsorted(self._spans.pair, below[timed], "left")
        last = np.searchsorted(self._spans.pair, below[timed], "right")
        event = spans(first, last)
        heard = self._spans.confidence[event] > 0
        pair = np.concatenate((np.repeat(above[timed], last - first)[heard], above[~timed]))
        begin = np.concatenate((self._spans.begin[event][heard], np.zeros((~timed).sum(), dtype=np.int64)))
        end = np.concatenate((self._spans.end[event][heard], np.full((~timed).sum(), self._num_frames)))
        order = np.argsort(pair, kind="stable")
        return Spans(pair[order], begin[order], end[order], np.ones(len(pair)))

    def _anything(self, events: EventInput) -> Flags:
        """Returns (B,) which clips have frames about which anything is known."""
        known: Flags = (self._vocabulary == -1) | ((self._vocabulary == -2) & (self.weights.open > 0))
        closed: Flags = self._vocabulary >= 0
        if closed.any():
            known[closed] = (self._members.sum(0) > 0)[self._vocabulary[closed]]
        known[self._pair_clip[self._state != _PRESENT]] = True
        return known

    def _base(self, clips: Integers) -> Numbers:
        """Returns the weights (b, C) of texts without and with events of their own, as long as no frame is looked at."""
        vocabulary = self._vocabulary[clips]
        weight = np.repeat(self._weight[None], len(clips), 0)
        weight[vocabulary == -2] *= self.weights.open
        closed = vocabulary >= 0
        weight[closed] *= self._members.T[vocabulary[closed]]
        return weight

    def _paint(self, rows: slice) -> _Block:
        """Finds all that a block of rows says."""
        row_clip = self._row_clip[rows]
        low, high = int(row_clip[0]), int(row_clip[-1]) + 1
        clips, run = np.unique(row_clip, return_inverse=True)
        weight = self._base(clips)
        place = np.full(high - low, -1)
        place[clips - low] = np.arange(len(clips))

        def within(of: Integers) -> slice:
            return slice(*np.searchsorted(of, (low, high)))

        unknown = within(self._unknown_clip)
        _put(weight, place[self._unknown_clip[unknown] - low], self._unknown_column[unknown], 0.0)
        pairs = within(self._pair_clip)
        state = self._state[pairs]
        _put(
            weight,
            place[self._pair_clip[pairs] - low],
            self._pair_column[pairs],
            np.where(state == _PRESENT, 0.0, self.weights.inactive),
        )
        label = self._spans.paint(pairs, self._num_frames)
        erased = self._erased.paint(pairs, self._num_frames) > 0
        erased[state == _PRESENT] = False
        pair, frame = np.nonzero((label > 0) | erased)
        flat = self._pair_clip[pairs][pair] * self._num_frames + frame
        row = np.searchsorted(self._frames[rows], flat).clip(max=len(row_clip) - 1)
        there = self._frames[rows][row] == flat
        pair, frame, row = pair[there], frame[there], row[there]
        label = label[pair, frame]
        lengths = np.bincount(run, minlength=len(clips))
        whole: Numbers | None = weight
        if (weight == 1).all():
            whole = None
        elif (weight == weight[:1]).all():
            whole, run, lengths = weight[:1], np.zeros_like(run), np.array([len(run)])
        column = self._pair_column[pairs][pair]
        return _Block(whole, run, lengths, row, column, label, np.where(label > 0, self.weights.positive, 0.0))

    def _pool(self, valid: Flags) -> None:
        """Makes the terms of PRESENT texts."""
        frames = valid.sum(1)
        weak = np.flatnonzero(self._state == _PRESENT) if self.weights.present > 0 else np.zeros(0, dtype=np.int64)
        clip, column = self._pair_clip[weak], self._first[self._pair_column[weak]]
        self.weak_frames = int(frames[clip].sum())
        self.weak: list[WeakTerms] = []
        clips, place, counts = np.unique(clip, return_inverse=True, return_counts=True)
        beside = np.arange(len(clip)) - np.repeat(counts.cumsum() - counts, counts)
        shape = (len(clips), int(counts.max(initial=0)))
        columns, numbers = np.zeros(shape, dtype=np.int64), np.zeros((2, *shape))
        columns[place, beside] = column
        numbers[0, place, beside] = self._clip_label[weak]
        numbers[1, place, beside] = self.weights.present * frames[clip]
        for block in blocks_of(len(clips), self._num_frames):
            label, weight = self._numbers(numbers[:, block]).unbind()
            rows, texts_of = (
                self._upload(torch.from_numpy(clips[block])),
                self._upload(torch.from_numpy(columns[block])),
            )
            self.weak.append(WeakTerms(rows, texts_of, label, weight))


@dataclass(frozen=True)
class _Block:
    """What a block of rows says: weights of its clips, and single terms that differ.

    Attributes:
        weight: (g, C) of runs of rows, those of a clip or all rows; None for 1 everywhere.
        run: (r,) which of the runs a row is of.
        lengths: (g,) of the runs.
        row: (n,) of the block.
        column: (n,).
        label: (n,).
        cell_weight: (n,).
    """

    weight: Numbers | None
    run: Integers
    lengths: Integers
    row: Integers
    column: Integers
    label: Numbers
    cell_weight: Numbers


def _put(weight: Numbers, row: Integers, column: Integers, value: float | Numbers) -> None:
    """Sets weights, but for rows of -1."""
    there = row >= 0
    weight[row[there], column[there]] = value if isinstance(value, float) else value[there]
