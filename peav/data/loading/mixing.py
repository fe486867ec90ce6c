"""Mixing on the fly: foreground events over the sound of training clips, whose labels are known in time.

All that is random follows from the generator of the clip, so that a mixture is the same for any number of workers and after any restart.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peav.data.loading.augment import check_probability
from peav.data.loading.cache import DecodedCache
from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.data.loading.level import active_spans
from peav.data.loading.mixed_labels import Known, mixed_labels
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.index import ANNOTATED, HAS_AUDIO
from peav.data.manifests.labels import Labels
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.manifests.records import OPEN, SPLITS, Event
from peav.data.media.probing import MediaError
from peav.data.stores.outside import check_stores
from peav.data.stores.reader import SampleError
from peav.data.stores.remote import StoreOptions
from peav.types import Seconds

_log = logging.getLogger(__name__)

#: An event that is less sure than this is no foreground.
_SURE = 0.5

#: An event that is shorter is no foreground, and nothing is cut shorter, in seconds.
_MIN_SECONDS = 0.05

#: Length of the fades at both ends of a foreground, in seconds: it is cut out of a recording.
_FADE_SECONDS = 0.005

#: Of so many recordings a worker remembers what their labels say and where they are loud: some kilobytes each.
_REMEMBERED = 4096

#: Squares of so many samples are added up in float32, and their sums in float64.
_POWER_BLOCK = 4096

#: How many foregrounds, and places for one, are tried before a clip gets one fewer.
_TRIES = 10


@dataclass(frozen=True)
class Mixing:
    """How foreground events are mixed over training clips.

    A clip of `foreground` gives one of its events that have times. A short one without such gives all of its sound.

    Attributes:
        foreground: folder that `peav prepare` wrote, or its address in an object store; the training data themselves where it is "".
        split: of it.
        share: probability with which a training clip becomes a mixture.
        min_events: foregrounds of a mixture, at least.
        max_events: foregrounds of a mixture, at most.
        min_snr_db: the softest foreground: its power over that of the clip, dB.
        max_snr_db: the loudest.
        max_polyphony: events with times that may sound at once, those of the clip included.
        max_seconds: a recording whose labels have no times is a foreground if it is no longer; an event is cut to it.
        gate_db: how far below its loudest 10 ms a foreground still counts as heard: its onset and offset are found so.
        isolated: whether a foreground holds nothing but its labels. Else what its clip leaves open is unknown in the mixture.
        captions: whether a mixture goes without the captions of what is heard (`audio`, `audio_video`) and the transcript, which no
            longer describe it (`drop`), or with them (`keep`).
        cache_megabytes: memory for decoded foregrounds, shared by the workers of a rank; 0 for none.

    Raises:
        ValueError: if a number is out of range.
    """

    foreground: str = ""
    split: str = "train"
    share: float = 0.5
    min_events: int = 1
    max_events: int = 3
    min_snr_db: float = 0.0
    max_snr_db: float = 20.0
    max_polyphony: int = 2
    max_seconds: float = 10.0
    gate_db: float = 40.0
    isolated: bool = True
    captions: Literal["drop", "keep"] = "drop"
    cache_megabytes: int = 256

    def __post_init__(self) -> None:
        check_probability("mixing.share", self.share)
        if self.split not in SPLITS:
            raise ValueError(f"mixing.split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if not 1 <= self.min_events <= self.max_events:
            raise ValueError(
                f"mixing.min_events and max_events must be 1 or more, and in order, got {self.min_events} and {self.max_events}"
            )
        if not -100 <= self.min_snr_db <= self.max_snr_db <= 100:
            raise ValueError(
                f"mixing.min_snr_db and max_snr_db must lie in order between -100 and 100 dB, got {self.min_snr_db} and {self.max_snr_db}"
            )
        if self.max_polyphony < 1 or self.cache_megabytes < 0:
            raise ValueError(
                f"mixing.max_polyphony must be at least 1 and cache_megabytes at least 0, got {self.max_polyphony} and "
                f"{self.cache_megabytes}"
            )
        if not _MIN_SECONDS <= self.max_seconds <= 3600 or not 0 < self.gate_db <= 200:
            raise ValueError(
                f"mixing.max_seconds must lie between {_MIN_SECONDS} and 3600 s, and gate_db above 0 up to 200 dB, got {self.max_seconds} "
                f"and {self.gate_db}"
            )
        if self.captions not in ("drop", "keep"):
            raise ValueError(f"mixing.captions must be 'drop' or 'keep', got {self.captions!r}")


@dataclass(frozen=True)
class Foreground:
    """A sound to be added.

    Attributes:
        samples: (S,) float32, from its first to its last sample that is heard.
        power: their mean square.
        known: its labels; times count from its start.
        name: of its clip and span, for the identity of a mixture.
    """

    samples: NDArray[np.float32]
    power: float
    known: Known
    name: str


@dataclass(frozen=True)
class Mixture:
    """A training clip with foregrounds.

    Attributes:
        samples: (S,) float32.
        known: what is known of it.
        group: identity of its sound.
    """

    samples: Tensor
    known: Known
    group: int


class Mixer:
    """Mixes foregrounds over clips. Opened before the workers are forked, so that they share its memory of foregrounds.

    Args:
        mixing: how.
        data: of training, where `mixing` names no folder.
        settings: of decoding.
        labels: vocabularies and ontology of both.
        store: of object stores.

    Raises:
        FileNotFoundError: if the split was not prepared.
        ValueError: if no clip of it is annotated and has sound.
    """

    def __init__(
        self,
        mixing: Mixing,
        data: str,
        settings: DecodeSettings,
        labels: Labels,
        store: StoreOptions | None = None,
    ) -> None:
        self.mixing, self.settings, self.labels = mixing, settings, labels
        self.data = mixing.foreground or data
        self.manifest: Manifest = open_manifest(self.data, mixing.split, store)
        index = self.manifest.index
        check_stores(self.data, index.stores, store)
        self.reader = ClipReader(self.data, settings, store)
        usable = index.has(HAS_AUDIO) & index.has(ANNOTATED)
        #: Positions of the clips that may give a foreground.
        self.candidates = np.flatnonzero(usable)
        if not len(self.candidates):
            raise ValueError(
                f"mixing takes foregrounds from clips that have sound and events, but the split {mixing.split!r} of {self.data} has none"
            )
        self._recordings: dict[int, _Recording] = {}
        short = usable & (index.duration <= mixing.max_seconds)
        durations = zip(index.duration.tolist(), short.tolist(), strict=True)
        shapes = [(settings.num_samples(seconds),) if held else None for seconds, held in durations]
        self._cache = (
            DecodedCache(shapes, torch.float32, mixing.cache_megabytes << 20) if mixing.cache_megabytes else None
        )

    def mix(self, samples: Tensor, clip: Clip, rng: np.random.Generator) -> Mixture | None:
        """Returns a clip with foregrounds, or None where chance leaves it as it is or none finds a place.

        Args:
            samples: (S,) float32, its sound.
            clip: what its manifest says of it.
            rng: the only source of randomness.

        Raises:
            MediaError: if ten foregrounds in a row cannot be read.
        """
        if rng.random() >= self.mixing.share:
            return None
        mixed = samples.numpy().copy()
        reference = mean_power(mixed)
        background = Known(clip.events, clip.vocabulary) if clip.events is not None else Known((), OPEN)
        busy = [event.span for event in background.events if event.span is not None and event.confidence >= _SURE]
        parts, names = [background], [str(clip.group("audio"))]
        for _ in range(int(rng.integers(self.mixing.min_events, self.mixing.max_events + 1))):
            snr_db = float(rng.uniform(self.mixing.min_snr_db, self.mixing.max_snr_db))
            foreground = self.foreground(rng, clip)
            if foreground is None:
                continue
            sound = foreground.samples[: len(samples)]
            begin = self._place(len(sound), len(samples), busy, rng)
            if begin is None:
                continue
            onset = begin / self.settings.sample_rate
            power = foreground.power if len(sound) == len(foreground.samples) else mean_power(sound)
            mixed[begin : begin + len(sound)] += np.float32(gain(power, reference, snr_db)) * sound
            known = _shifted(foreground.known, onset, len(sound) / self.settings.sample_rate)
            busy += [event.span for event in known.events if event.span is not None]
            parts.append(known)
            names.append(f"{foreground.name}/{begin}/{snr_db:.6f}")
        if len(parts) == 1:
            return None
        if (peak := max(float(mixed.max()), -float(mixed.min()))) > 1:
            mixed /= np.float32(peak)  # as loud as can be, and no ratio changes
        return Mixture(
            torch.from_numpy(mixed), mixed_labels(parts, self.labels), bytes_group("\0".join(names).encode())
        )

    def foreground(self, rng: np.random.Generator, background: Clip | None = None) -> Foreground | None:
        """Returns a foreground, or None if none was found in ten clips; never one out of the background itself.

        Raises:
            MediaError: if ten foregrounds in a row cannot be read.
        """
        failed: list[MediaError | SampleError] = []
        for position in rng.choice(self.candidates, _TRIES).tolist():
            recording = self._recording(position)
            same = background is not None and recording.clip.audio_group == background.audio_group
            number = rng.random()
            if same:
                continue
            try:
                made = self._cut(recording, position, number)
            except (MediaError, SampleError) as error:
                _log.warning("a foreground cannot be read, another takes its place: %s", error)
                failed.append(error)
                continue
            if made is not None:
                return made
        if len(failed) == _TRIES:
            raise MediaError(f"foregrounds of {self.data}", f"{_TRIES} in a row cannot be read; the last: {failed[-1]}")
        return None

    def _recording(self, position: int) -> _Recording:
        """Returns what the manifest says of a clip, and where its foregrounds were found, if they were before."""
        found = self._recordings.get(position)
        if found is None:
            if len(self._recordings) >= _REMEMBERED:
                self._recordings.clear()
            found = self._recordings[position] = _Recording(self.manifest[position], self.mixing.max_seconds)
        return found

    def _cut(self, recording: _Recording, position: int, number: float) -> Foreground | None:
        """Returns one of the foregrounds of a clip, by a number from 0 to 1; None if it has none."""
        if not recording.pieces:
            return None
        piece = int(number * len(recording.pieces))
        begin, end = recording.pieces[piece]
        sound = self._samples(recording.clip, position, begin, end)
        if piece not in recording.cuts:
            recording.cuts[piece] = self._listen(recording, piece, sound)
        cut = recording.cuts[piece]
        if cut is None:
            return None
        heard = _faded(sound[cut.first : cut.last], self.settings.sample_rate)
        if cut.power is None:
            cut.power = mean_power(heard)
        return Foreground(heard, cut.power, cut.known, cut.name)

    def _listen(self, recording: _Recording, piece: int, sound: NDArray[np.float32]) -> _Cut | None:
        """Finds where a piece of a recording is heard, and what is known of that; None of silence."""
        rate, clip = self.settings.sample_rate, recording.clip
        begin, end = recording.pieces[piece]
        active = active_spans(sound, rate, self.mixing.gate_db)
        if not active or active[-1][1] - active[0][0] < _MIN_SECONDS * rate:
            return None
        first, last = active[0][0], active[-1][1]
        events = clip.events or ()
        weak = [event for event in events if event.is_weak]
        if recording.timed:
            held = _within(events, begin + first / rate, (last - first) / rate)
        else:
            runs = [((one - first) / rate, (other - first) / rate) for one, other in active]
            sure = [event for event in weak if event.confidence >= _SURE]
            held = tuple(replace(event, onset=one, offset=other) for event in sure for one, other in runs)
        vocabulary = clip.vocabulary
        if self.mixing.isolated:
            vocabulary = ""
        else:
            held += tuple(event for event in events if event.is_absent)
            # Of what is somewhere in the clip nobody knows whether it is in this part of it.
            vocabulary = OPEN if recording.timed and weak else vocabulary
        return _Cut(first, last, Known(held, vocabulary), f"{clip.group('audio')}/{begin:.6f}/{end:.6f}")

    def _samples(self, clip: Clip, position: int, begin: Seconds, end: Seconds) -> NDArray[np.float32]:
        rate = self.settings.sample_rate
        if self._cache is not None and clip.duration <= self.mixing.max_seconds:
            whole = self._cache.get(position, lambda: self.reader.samples(clip)).numpy()
            return whole[round(begin * rate) : round(end * rate)]
        part = replace(clip, start=clip.start + begin, duration=end - begin)
        return self.reader.samples(part).numpy()

    def _place(
        self, length: int, total: int, busy: Sequence[tuple[Seconds, Seconds]], rng: np.random.Generator
    ) -> int | None:
        """Returns the sample at which a foreground begins, so that no more events sound at once than may."""
        rate = self.settings.sample_rate
        for begin in rng.integers(0, total - length, _TRIES, endpoint=True).tolist():
            span = begin / rate, (begin + length) / rate
            if polyphony(busy, span) < self.mixing.max_polyphony:
                return int(begin)
        return None


class _Recording:
    """A clip that may give foregrounds.

    Attributes:
        clip: what the manifest says of it.
        timed: whether it gives events with times; else all of its sound is one foreground, if its labels say what it is.
        pieces: begin and end of each foreground, seconds.
        cuts: what was found of each when it was heard; None where that was silence.
    """

    def __init__(self, clip: Clip, max_seconds: Seconds) -> None:
        self.clip = clip
        self.cuts: dict[int, _Cut | None] = {}
        events = clip.events or ()
        spans = [
            event.span
            for event in events
            if event.span is not None and event.confidence >= _SURE and event.span[1] - event.span[0] >= _MIN_SECONDS
        ]
        self.timed = bool(spans)
        self.pieces = [(begin, min(end, begin + max_seconds)) for begin, end in spans]
        named = any(event.is_weak and event.confidence >= _SURE for event in events)
        untimed = not any(event.span is not None for event in events)
        if not spans and named and untimed and clip.duration <= max_seconds:
            self.pieces = [(0.0, clip.duration)]


@dataclass
class _Cut:
    """Where a foreground is heard in its piece of a recording.

    Attributes:
        first: its first sample.
        last: the sample after its last.
        known: its labels; times count from `first`.
        name: of its clip and piece.
        power: mean square of its samples; None until they were faded.
    """

    first: int
    last: int
    known: Known
    name: str
    power: float | None = None


def mean_power(samples: NDArray[np.float32]) -> float:
    """Returns the mean square of samples (S,); no copy of them is made, and the sum is the same on any number of threads.

    >>> mean_power(np.array([3.0, 4.0], np.float32))
    12.5
    """
    whole = len(samples) // _POWER_BLOCK * _POWER_BLOCK
    blocks, rest = samples[:whole].reshape(-1, _POWER_BLOCK), samples[whole:]
    total = np.einsum("ij,ij->i", blocks, blocks).sum(dtype=np.float64) + np.einsum("i,i->", rest, rest)
    return float(total) / max(len(samples), 1)


def gain(power: float, reference: float, snr_db: float) -> float:
    """Returns the factor that brings a sound to a ratio of powers, in dB over a reference; 1 where either is silence.

    >>> gain(4.0, 1.0, 0.0), gain(1.0, 1.0, 20.0), gain(1.0, 0.0, 20.0)
    (0.5, 10.0, 1.0)
    """
    return math.sqrt(reference * 10 ** (snr_db / 10) / power) if reference > 0 and power > 0 else 1.0


def polyphony(spans: Sequence[tuple[Seconds, Seconds]], within: tuple[Seconds, Seconds]) -> int:
    """Returns how many of some spans sound at once at most, within another one.

    >>> polyphony([(0, 2), (1, 3), (2, 4)], (0, 4)), polyphony([(0, 2), (1, 3)], (2.5, 4))
    (2, 1)
    """
    begin, end = within
    inside = [(max(one, begin), min(other, end)) for one, other in spans if one < end and other > begin]
    return max((sum(one <= at < other for one, other in inside) for at, _ in inside), default=0)


def _within(events: Sequence[Event], begin: Seconds, seconds: Seconds) -> tuple[Event, ...]:
    """Returns the events with times that reach into a part of their clip, with the times of the part."""
    kept = []
    for event in events:
        if event.span is not None:
            onset, offset = max(event.span[0] - begin, 0.0), min(event.span[1] - begin, seconds)
            if onset < offset:
                kept.append(replace(event, onset=onset, offset=offset))
    return tuple(kept)


def _shifted(known: Known, onset: Seconds, seconds: Seconds) -> Known:
    """Returns labels for a sound that begins at `onset` and was cut to `seconds`."""
    timed = tuple(
        replace(event, onset=(event.onset or 0.0) + onset, offset=(event.offset or 0.0) + onset)
        for event in _within(known.events, 0.0, seconds)
    )
    return replace(known, events=timed + tuple(event for event in known.events if event.span is None))


def _faded(sound: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Returns a sound with short fades at both ends."""
    length = min(round(_FADE_SECONDS * sample_rate), len(sound) // 4)
    faded = sound.astype(np.float32, copy=True)
    if length:
        ramp = np.linspace(0.0, 1.0, length, endpoint=False, dtype=np.float32)
        faded[:length] *= ramp
        faded[-length:] *= ramp[::-1]
    return faded
