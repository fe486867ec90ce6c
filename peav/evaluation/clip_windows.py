"""Long clips in windows: pooled embeddings are averaged over some, and frames come from others, those in which `PEAV.detect` listens."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.data import Dataset

from peav.data.loading.decoding import ClipReader, DecodedClip
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.data.media.probing import MediaError
from peav.data.stores.reader import SampleError
from peav.evaluation.models import ClipOutput, EvaluatedModel
from peav.fields import build_fields
from peav.inputs.windows import Window, average_windows, plan_windows, stitch_windows
from peav.types import TRANSCRIPT, Seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedWindows:
    """A clip, decoded as it is embedded.

    Attributes:
        pooled: the windows over which embeddings are averaged; the clip itself where it is no longer than one.
        listened: the windows in which its frames are heard, with their starts in seconds; none where those of `pooled` give them.
    """

    pooled: list[DecodedClip]
    listened: list[tuple[Seconds, DecodedClip]]


class WindowedClips(Dataset[DecodedWindows | str]):
    """Decodes clips by their number, in windows; in place of one that cannot be decoded, why.

    Args:
        model: that embeds them.
        clip: from a number to the clip; picklable.
        longest: duration of the longest of them, seconds.
        data: the folder they lie in.
        window_seconds: longer clips are averaged over windows; None for whole clips.
        overlap_seconds: what neighbouring windows of these share.
    """

    def __init__(
        self,
        model: EvaluatedModel,
        clip: Callable[[int], Clip],
        longest: Seconds,
        data: str,
        window_seconds: Seconds | None,
        overlap_seconds: Seconds,
    ) -> None:
        self.clip, self.windows, self.frame_windows = clip, (window_seconds, overlap_seconds), model.frame_windows
        self.reader = ClipReader(data, model.settings)
        self.fields = model.fields
        self.own_fields = build_fields(model.fields, model.field_options)
        # Asked of the model here: in a worker it would compute.
        self.hop = model.frame_hop() if len(plan_windows(longest, *model.frame_windows)) > 1 else None

    def __getitem__(self, place: int) -> DecodedWindows | str:
        clip = self.clip(place)
        pooled = plan_windows(clip.duration, *self.windows)
        listened = plan_windows(clip.duration, *self.frame_windows)
        if len(listened) > 1:
            listened = plan_windows(clip.duration, *self.frame_windows, grid_seconds=self.hop)
        apart = self.frame_windows[0] is not None and clip.has_audio and (len(pooled) > 1 or len(listened) > 1)
        try:
            return DecodedWindows(
                [self._decode(_part(clip, window)) for window in pooled],
                [(window.start, self._sound(_part(clip, window))) for window in listened if apart],
            )
        except (MediaError, SampleError) as error:
            return str(error)

    def _decode(self, clip: Clip) -> DecodedClip:
        settings = self.reader.settings
        kinds = [name.removeprefix("captions.") for name in self.fields if name.startswith("captions.")]
        return replace(
            self._sound(clip) if "audio" in self.fields else DecodedClip(clip.id, clip.duration, settings.sample_rate),
            has_audio=clip.has_audio,
            audio_group=clip.group("audio"),
            frames=self.reader.frames(clip) if "video" in self.fields else None,
            has_video=clip.has_video,
            video_group=clip.group("video"),
            frame_seconds=clip.duration / settings.frames(clip.duration, clip.is_still),
            captions={kind: first_text(clip, kind) for kind in kinds},
            own={name: self.reader.own(clip, own) for name, own in self.own_fields.items()},
        )

    def _sound(self, clip: Clip) -> DecodedClip:
        rate = self.reader.settings.sample_rate
        return DecodedClip(clip.id, clip.duration, rate, self.reader.samples(clip), None, True, clip.group("audio"))


def embed_windows(model: EvaluatedModel, decoded: Sequence[DecodedWindows | str], batch_size: int) -> list[ClipOutput]:
    """Embeds decoded clips, their windows together.

    Args:
        model: that embeds them.
        decoded: the clips, or why one could not be decoded.
        batch_size: windows that go through the model at once.
    """
    clips = [clip for clip in decoded if not isinstance(clip, str)]
    pooled = [window for clip in clips for window in clip.pooled]
    listened = [window for clip in clips for _, window in clip.listened]
    averaged, heard = [], []
    for start in range(0, len(pooled), batch_size):
        averaged += model.embed_clips(pooled[start : start + batch_size])
    for start in range(0, len(listened), batch_size):
        heard += model.embed_frames(listened[start : start + batch_size])
    joined: list[ClipOutput] = []
    each, each_heard = iter(averaged), iter(heard)
    for clip in decoded:
        if isinstance(clip, str):
            log.warning("left out: %s", clip)
            joined.append(ClipOutput(problem=clip))
            continue
        outputs = [next(each) for _ in clip.pooled]
        if len(outputs) > 1 and not clip.listened and any(output.frames for output in outputs):
            raise ValueError(
                "frames that follow those of the video are embedded whole: leave window_seconds out, or cut the clips (peav prepare "
                "--chunk_seconds)"
            )
        own = _averaged(outputs, [window.duration for window in clip.pooled], model.normalize)
        if clip.listened:
            starts = [start for start, _ in clip.listened]
            own = _stitched(own, [next(each_heard) for _ in clip.listened], starts)
        joined.append(own)
    return joined


def first_text(clip: Clip, kind: str) -> str | None:
    """Returns the first caption of a type, or the transcript; None where a clip has none."""
    if kind == TRANSCRIPT:
        return clip.transcript
    captions = clip.captions.get(kind, ())
    return captions[0].text if captions else None


def _part(clip: Clip, window: Window) -> Clip:
    return clip if window.whole else replace(clip, start=clip.start + window.start, duration=window.seconds)


def _averaged(outputs: Sequence[ClipOutput], seconds: Sequence[Seconds], normalize: bool) -> ClipOutput:
    """Joins the windows of a clip: the mean, weighted by their durations. Frames of several windows are dropped: others give them."""
    if len(outputs) == 1:
        return outputs[0]
    joined = ClipOutput()
    for name in dict.fromkeys(name for output in outputs for name in output.pooled):
        having = [index for index, output in enumerate(outputs) if name in output.pooled]
        vectors = torch.stack([outputs[index].pooled[name] for index in having])
        joined.pooled[name] = average_windows(vectors, [seconds[index] for index in having], normalize)
        joined.groups[name] = bytes_group(json.dumps([outputs[index].groups[name] for index in having]).encode())
    return joined


def _stitched(clip: ClipOutput, heard: Sequence[ClipOutput], starts: Sequence[Seconds]) -> ClipOutput:
    """Returns a clip with the frames of its windows, each from the one in which it lies deepest."""
    frames, hops = {}, {}
    for name in dict.fromkeys(name for window in heard for name in window.frames):
        steps = [window.frame_seconds[name] for window in heard]
        frames[name], hops[name] = stitch_windows([window.frames[name] for window in heard], starts, steps), steps[0]
    return replace(clip, frames=frames, frame_seconds=hops)
