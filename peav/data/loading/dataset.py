"""Prepared clips, by position in their manifest: only the fields that something reads are decoded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from peav.data.loading.augment import AudioAugmentation, augment_frames, check_probability
from peav.data.loading.cache import DecodedCache
from peav.data.loading.decoding import ClipReader, DecodedClip, DecodeSettings, Replacement
from peav.data.loading.features import FeatureReader
from peav.data.loading.mixing import Mixer, Mixing, Mixture
from peav.data.loading.plan import substitutes
from peav.data.loading.sampler import TrainingBatch
from peav.data.loading.transcripts import Transcripts, heard_text, share_of_transcripts
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.index import HAS_AUDIO, HAS_VIDEO, IS_STILL
from peav.data.manifests.labels import Labels, load_labels
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.manifests.phrases import load_phrases
from peav.data.manifests.texts import Caption
from peav.data.media.decode import Downmix, Sampling, count_frames
from peav.data.media.probing import MediaError
from peav.data.stores.outside import check_stores
from peav.data.stores.reader import SampleError
from peav.data.stores.remote import StoreOptions
from peav.fields import build_fields, check_field, order_caption_types
from peav.types import CAPTION_TYPES, DEFAULT_FIELDS, TRANSCRIPT

_log = logging.getLogger(__name__)

#: How many clips are tried in place of one that cannot be read.
MAX_SUBSTITUTES = 100


def check_fields(fields: Collection[str]) -> frozenset[str]:
    """Returns batch fields as a set.

    Raises:
        ValueError: if one is unknown.
    """
    return frozenset(map(check_field, fields))


#: What is random about a clip in training: each has a generator of its own.
_CAPTIONS, _DROPOUT, _AUDIO, _VIDEO, _FRONTEND, _TRANSCRIPT, _MIXING = range(7)

#: Texts that say what is heard.
_OF_SOUND = ("audio", "audio_video", TRANSCRIPT)

#: Tells the seed of the phrase bank of a batch from others.
_BANK = 4


@dataclass(frozen=True)
class ClipSeeds:
    """Where what is random about a clip in training comes from.

    Attributes:
        clip: the run's seed, the epoch and the clip's identity.
        turn: what tells this time in the epoch from the others: nothing for the first, the occurrence for a later one; the occurrence
            and the identity of the clip that cannot be read for a substitute, which may have its own turn too.
    """

    clip: tuple[int, int, int]
    turn: tuple[int, ...] = ()

    def rng(self, purpose: int, *which: int) -> np.random.Generator:
        """Returns the generator of a purpose, or of one of several things with that purpose."""
        return np.random.default_rng([*self.clip, purpose, *which, *self.turn])

    def number(self, purpose: int) -> int:
        """Returns a seed of 62 bits for another generator."""
        return int(self.rng(purpose).integers(1 << 62))


class ClipDataset(Dataset[DecodedClip]):
    """The clips of a split.

    `dataset[position]` is a clip with its first captions; `dataset[epoch, position, occurrence]` is the clip in training: captions,
    dropped modalities and augmentation are chosen by (seed, epoch, clip id, occurrence), so they are the same for any number of
    workers, ranks and restarts. The occurrence is 0 the first time that the epoch has the clip, which `dataset[epoch, position]` is.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        split: `train`, `validation` or `test`.
        fields: names of the fields to decode, see `peav.fields`.
        sample_rate: of the audio, Hz.
        num_frames: frames a clip, or
        fps: frames a second.
        frame_size: (H, W) of the frames, or one number for both.
        downmix: `meta` or `mean`, see `load_audio`.
        sampling: `time` or `index`, see `load_frames`.
        seed: of what is chosen in training.
        shuffle_pairing: a control experiment: each clip keeps its audio, its events and fields of the user's own kinds, but gets the
            video of another clip and the captions of a third.
        cache_megabytes: memory for decoded audio and frames, shared by the workers; 0 for none.
        features: cached features to read in place of media: {"audio": name, "video": name}, see `peav.data.loading.features`.
        modality_dropout: probability with which a clip that has both audio and video loses one, by modality.
        origin_weights: how often a caption of each origin is chosen where a clip has both; every caption alike by default.
        transcripts: how transcripts stand in for audio captions (`peav.data.loading.transcripts`); out of training they do so only where
            a clip has no audio caption. `off` by default: a clip is what its manifest says.
        audio_augment: changes of the waveform, in order.
        video_augment: transforms of torchvision v2 for the frames, in order.
        store: of object stores.
        field_options: arguments of fields of the user's own kinds (`peav.fields.Field`), by name.
        phrase_bank: phrases that are drawn for each training batch from the events of the split, as further negatives.
        mixing: foreground events over training clips; none by default, and none where nothing reads audio and events.

    Raises:
        FileNotFoundError: if the split was not prepared.
        LabelsError: if the labels of the data cannot be read.
        ManifestError: if its manifest cannot be read.
        ValueError: if a setting is out of range.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        fields: Collection[str] = DEFAULT_FIELDS,
        sample_rate: int = 16000,
        num_frames: int | None = 8,
        fps: float | None = None,
        frame_size: int | tuple[int, int] = 64,
        downmix: Downmix = "meta",
        sampling: Sampling = "time",
        seed: int = 0,
        shuffle_pairing: bool = False,
        cache_megabytes: int = 0,
        features: Mapping[str, str] | None = None,
        modality_dropout: Mapping[str, float] | None = None,
        origin_weights: Mapping[str, float] | None = None,
        transcripts: Transcripts = "off",
        audio_augment: Sequence[AudioAugmentation] = (),
        video_augment: Sequence[nn.Module] = (),
        store: StoreOptions | None = None,
        field_options: Mapping[str, Mapping[str, Any]] | None = None,
        phrase_bank: int = 0,
        mixing: Mixing | None = None,
    ) -> None:
        if phrase_bank < 0:
            raise ValueError(f"phrase_bank must be at least 0, got {phrase_bank}")
        self.fields = check_fields(fields)
        read = {name.removeprefix("captions.") for name in self.fields if name.startswith("captions.")}
        self._kinds = [kind for kind in order_caption_types(read) if kind in read]
        self.own_fields = build_fields(self.fields, field_options)
        size = (frame_size, frame_size) if isinstance(frame_size, int) else frame_size
        if min(size) < 1 or sample_rate < 1:
            raise ValueError(f"frame_size and sample_rate must be at least 1, got {frame_size} and {sample_rate}")
        settings = DecodeSettings(sample_rate, num_frames if fps is None else None, fps, size, downmix, sampling)
        count_frames(1.0, settings.num_frames, fps)
        self.settings = settings
        self.seed = seed
        self.manifest: Manifest = open_manifest(data, split, store)
        check_stores(data, self.manifest.index.stores, store)
        reads_events = "events" in self.fields
        #: Vocabularies and ontology; none where nothing reads events.
        self.labels = load_labels(data, store) if reads_events else Labels()
        self.phrase_bank = phrase_bank
        self.phrases = load_phrases(self.manifest.path) if reads_events and phrase_bank else None
        if self.phrases is not None and not self.phrases:
            raise ValueError(
                f"phrase_bank={phrase_bank} draws from the events of the split {split!r}, but its clips have none: leave it at 0"
            )
        self.reader = ClipReader(str(data), settings, store)
        self.mixer = self._open_mixer(mixing, data, store)
        self.features = {kind: FeatureReader(self.reader, kind, name) for kind, name in (features or {}).items()}
        self.modality_dropout = _check_dropout(modality_dropout or {})
        self.origin_weights = origin_weights
        self.transcript_share = share_of_transcripts(transcripts)
        self.audio_augment, self.video_augment = tuple(audio_augment), tuple(video_augment)
        for kind, augment in (("audio", audio_augment), ("video", video_augment)):
            if kind in self.features and augment:
                raise ValueError(f"{kind}_augment changes {kind}, but cached features are read in its place")
        if self.mixer is not None and "audio" in self.features:
            raise ValueError("mixing changes audio, but cached features are read in its place")
        self.video_rows, self.caption_rows = pairing(len(self.manifest), seed, shuffle_pairing)
        #: (N,) which clips may stand in for each other; set by a loader that follows a plan.
        self.peers: NDArray[np.int64] | None = None
        self._audio_cache, self._video_cache = self._caches(cache_megabytes << 20)

    def _open_mixer(self, mixing: Mixing | None, data: str | Path, store: StoreOptions | None) -> Mixer | None:
        if mixing is None or not mixing.share:
            return None
        if not {"audio", "events"} <= self.fields:
            _log.info(
                "nothing is mixed: mixing makes events in audio, and what is read is %s", ", ".join(sorted(self.fields))
            )
            return None
        if mixing.foreground:
            self.labels = self.labels.merged(load_labels(mixing.foreground, store))
        return Mixer(mixing, str(data), self.settings, self.labels, store)

    def __len__(self) -> int:
        return len(self.manifest)

    def clip(self, position: int) -> Clip:
        """Returns what the manifest says about a clip."""
        return self.manifest[position]

    def __getitem__(self, index: int | tuple[int, int] | tuple[int, int, int]) -> DecodedClip:
        if not isinstance(index, tuple):
            return self._decode(self.manifest[index], index, None)
        epoch, position, *occurrence = index
        clip = self.manifest[position]
        return self._decode(clip, position, self._seeds(epoch, clip, *occurrence))

    def _seeds(self, epoch: int, clip: Clip, occurrence: int = 0, replaced: int | None = None) -> ClipSeeds:
        of_clip = self.seed, epoch, _identity(clip)
        if replaced is not None:
            return ClipSeeds(of_clip, (occurrence, _identity(self.manifest[replaced])))
        return ClipSeeds(of_clip, (occurrence,) if occurrence else ())

    def _decode(self, clip: Clip, position: int, seeds: ClipSeeds | None) -> DecodedClip:
        other_video, other_texts = int(self.video_rows[position]), int(self.caption_rows[position])
        video = clip if other_video == position else self.manifest[other_video]
        texts = clip if other_texts == position else self.manifest[other_texts]
        kept = self._kept(clip.has_audio, video.has_video, seeds)
        decoded = DecodedClip(
            id=clip.id,
            duration=clip.duration,
            sample_rate=self.settings.sample_rate,
            has_audio=clip.has_audio and kept["audio"],
            audio_group=clip.group("audio") if kept["audio"] else -1,
            has_video=video.has_video and kept["video"],
            video_group=video.group("video") if kept["video"] else -1,
            # The frames span the clip that they come from, which is another one under shuffle_pairing.
            frame_seconds=video.duration / self.settings.frames(video.duration, video.is_still),
            captions=self._captions(texts, seeds),
            events=clip.events or () if "events" in self.fields else (),
            annotated=clip.events is not None if "events" in self.fields else None,
            vocabulary=clip.vocabulary,
            seed=None if seeds is None else seeds.number(_FRONTEND),
        )
        if "audio" in self.fields:
            decoded = self._with_audio(decoded, clip, position, seeds)
        if "video" in self.fields:
            decoded = self._with_video(decoded, video, other_video, seeds)
        if self.own_fields:
            own = {name: self.reader.own(clip, field) for name, field in self.own_fields.items()}
            decoded = replace(decoded, own=own)
        return decoded

    def __getitems__(self, indices: Sequence[int] | Sequence[tuple[int, int, int]]) -> list[DecodedClip]:
        """Returns the clips of a batch.

        In training a clip that cannot be read is replaced by the next of its bucket and domain, or else of its bucket.

        Raises:
            MediaError: if a clip cannot be decoded, in evaluation or after `MAX_SUBSTITUTES` others could not either.
            ShardError: likewise if its bytes are damaged; and if manifest and shards do not belong together.
        """
        taken = {index[1] for index in indices if isinstance(index, tuple)}
        clips = [self._readable(index, taken) if isinstance(index, tuple) else self[index] for index in indices]
        if isinstance(indices, TrainingBatch) and self.phrases is not None and clips:
            drawn = self.phrases.draw(self.phrase_bank, self.seed, _BANK, indices[0][0], indices.step)
            clips[0] = replace(clips[0], bank=tuple(drawn))
        return clips

    def _readable(self, index: tuple[int, int, int], taken: set[int]) -> DecodedClip:
        epoch, position, occurrence = index
        try:
            return self[index]
        except (MediaError, SampleError) as error:
            if self.peers is None:
                raise
            failed = [(self.manifest[position].id, str(error))]
            first = error
        buckets = self.peers // len(self.manifest.index.domains)
        tried = {position}
        for other in chain(substitutes(self.peers, position), substitutes(buckets, position)):
            if len(tried) > MAX_SUBSTITUTES:
                break
            if other in taken or other in tried:
                continue
            tried.add(other)
            try:
                stand_in = self.manifest[other]
                clip = self._decode(stand_in, other, self._seeds(epoch, stand_in, occurrence, position))
            except (MediaError, SampleError) as error:
                failed.append((self.manifest[other].id, str(error)))
                continue
            taken.add(other)
            return replace(clip, replaces=tuple(Replacement(bad, clip.id, reason) for bad, reason in failed))
        raise first

    def _kept(self, has_audio: bool, has_video: bool, seeds: ClipSeeds | None) -> dict[str, bool]:
        kept = {"audio": True, "video": True}
        if seeds is not None and self.modality_dropout and has_audio and has_video:
            number = seeds.rng(_DROPOUT).random()
            audio = self.modality_dropout["audio"]
            kept = {"audio": number >= audio, "video": not audio <= number < audio + self.modality_dropout["video"]}
        return kept

    def _captions(self, clip: Clip, seeds: ClipSeeds | None) -> dict[str, str | None]:
        chosen: dict[str, str | None] = {}
        for kind, (which, origin) in zip(self._kinds, _caption_numbers(self._kinds, seeds), strict=True):
            if kind == TRANSCRIPT:
                chosen[kind] = clip.transcript
                continue
            captions = clip.captions.get(kind, ())
            if seeds is not None and self.origin_weights is not None:
                captions = _of_one_origin(captions, self.origin_weights, origin)
            chosen[kind] = captions[int(which * len(captions))].text if captions else None
        if "audio" in chosen and self.transcript_share is not None:
            # Of its own generator: what else is random about a clip is the same with and without transcripts.
            number = 1.0 if seeds is None else seeds.rng(_TRANSCRIPT).random()
            chosen["audio"] = heard_text(chosen["audio"], clip.transcript, self.transcript_share, number)
        return chosen

    def _with_audio(self, decoded: DecodedClip, clip: Clip, position: int, seeds: ClipSeeds | None) -> DecodedClip:
        if not decoded.has_audio:
            clip = replace(clip, has_audio=False)
        if "audio" in self.features:
            values, seconds = self.features["audio"].read(clip)
            return replace(decoded, audio_features=values, audio_seconds=seconds)
        if self._audio_cache is not None and clip.has_audio:
            samples = self._audio_cache.get(position, lambda: self.reader.samples(clip))
        else:
            samples = self.reader.samples(clip)
        if self.mixer is not None and seeds is not None and clip.has_audio:
            mixture = self.mixer.mix(samples, clip, seeds.rng(_MIXING))
            if mixture is not None:
                samples, decoded = mixture.samples, self._with_mixture(decoded, mixture, self.mixer.mixing)
        if seeds is not None and clip.has_audio:
            rng = seeds.rng(_AUDIO)
            for augmentation in self.audio_augment:
                samples = augmentation(samples, self.settings.sample_rate, rng)
        return replace(decoded, samples=samples)

    def _with_mixture(self, decoded: DecodedClip, mixture: Mixture, mixing: Mixing) -> DecodedClip:
        captions = decoded.captions
        if mixing.captions == "drop":
            captions = {kind: None if kind in _OF_SOUND else text for kind, text in captions.items()}
        return replace(
            decoded,
            captions=captions,
            events=mixture.known.events,
            vocabulary=mixture.known.vocabulary,
            annotated=True,
            audio_group=mixture.group,
        )

    def _with_video(self, decoded: DecodedClip, clip: Clip, position: int, seeds: ClipSeeds | None) -> DecodedClip:
        if not decoded.has_video:
            clip = replace(clip, has_video=False)
        if "video" in self.features:
            values, seconds = self.features["video"].read(clip)
            return replace(decoded, video_features=values, frame_seconds=seconds)
        if self._video_cache is not None and clip.has_video:
            frames = self._video_cache.get(position, lambda: self.reader.frames(clip))
        else:
            frames = self.reader.frames(clip)
        if seeds is not None and clip.has_video and self.video_augment:
            frames = augment_frames(frames, self.video_augment, seeds.number(_VIDEO))
        return replace(decoded, frames=frames)

    def _caches(self, max_bytes: int) -> tuple[DecodedCache | None, DecodedCache | None]:
        if not max_bytes:
            return None, None
        index, settings = self.manifest.index, self.settings
        durations = index.duration.tolist()

        def shapes(kind: str, has: NDArray[np.bool_]) -> list[tuple[int, ...] | None]:
            if kind not in self.fields or kind in self.features:
                return [None] * len(durations)
            if kind == "audio":
                return [(settings.num_samples(d),) if held else None for d, held in zip(durations, has, strict=True)]
            size = settings.frame_size
            still = index.has(IS_STILL).tolist()
            return [
                (settings.frames(d, one), 3, *size) if held else None
                for d, one, held in zip(durations, still, has, strict=True)
            ]

        # Frames first: a byte of them costs more to decode than a byte of audio.
        frames = DecodedCache(shapes("video", index.has(HAS_VIDEO)), torch.uint8, max_bytes)
        audio = DecodedCache(shapes("audio", index.has(HAS_AUDIO)), torch.float32, max_bytes - frames.num_bytes)
        return audio, frames


def _identity(clip: Clip) -> int:
    return bytes_group(clip.id.encode())


def pairing(
    rows: int, seed: int, shuffle: bool
) -> tuple[Sequence[int] | NDArray[np.int64], Sequence[int] | NDArray[np.int64]]:
    """Returns, for each row, the rows that its video and its captions come from: its own, or two others, different from each other.

    >>> [list(rows) for rows in pairing(3, 0, shuffle=False)]
    [[0, 1, 2], [0, 1, 2]]
    >>> videos, captions = pairing(5, 0, shuffle=True)
    >>> all(len({row, videos[row], captions[row]}) == 3 for row in range(5)), sorted(videos) == sorted(captions) == list(range(5))
    (True, True)
    """
    if not shuffle:
        return range(rows), range(rows)
    if rows < 3:
        raise ValueError(f"shuffle_pairing takes audio, video and captions from three clips, but there are {rows}")
    order = np.random.default_rng([seed, 3]).permutation(rows)
    videos, captions = np.empty(rows, np.int64), np.empty(rows, np.int64)
    # A turn of a random circle has no fixed point.
    videos[order], captions[order] = np.roll(order, 1), np.roll(order, 2)
    return videos, captions


def _caption_numbers(kinds: Sequence[str], seeds: ClipSeeds | None) -> list[NDArray[np.float64]]:
    """Returns two random numbers for each caption type, which do not depend on the other types that are read."""
    if seeds is None:
        return [np.zeros(2) for _ in kinds]
    # The types of PE-AV come from one generator, each other one from its own.
    known = seeds.rng(_CAPTIONS).random((len(CAPTION_TYPES), 2))
    return [
        known[CAPTION_TYPES.index(kind)]
        if kind in CAPTION_TYPES
        else seeds.rng(_CAPTIONS, bytes_group(kind.encode())).random(2)
        for kind in kinds
    ]


def _of_one_origin(captions: tuple[Caption, ...], weights: Mapping[str, float], number: float) -> tuple[Caption, ...]:
    by_origin: dict[str, list[Caption]] = {}
    for caption in captions:
        if weights.get(caption.origin, 0.0) > 0:
            by_origin.setdefault(caption.origin, []).append(caption)
    total = sum(weights[origin] for origin in by_origin)
    for origin in sorted(by_origin):
        number -= weights[origin] / total
        if number < 0:
            return tuple(by_origin[origin])
    return tuple(by_origin[max(by_origin)]) if by_origin else ()


def _check_dropout(dropout: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(dropout) - {"audio", "video"})
    if unknown:
        raise ValueError(f"modality_dropout knows audio and video, got {unknown[0]!r}")
    checked = {
        kind: check_probability(f"modality_dropout.{kind}", dropout.get(kind, 0.0)) for kind in ("audio", "video")
    }
    check_probability("the sum of modality_dropout", sum(checked.values()))
    return checked if sum(checked.values()) else {}
