"""What a model is, as plain data: what every checkpoint format is read into and written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peav.checkpoints.detection import DetectionSettings
from peav.types import ClipFormat, Downmix, Sampling, Seconds

#: An ordered pair of embedding names.
Pair = tuple[str, str]

#: PE-AV's ten pairs, in the order of its paper (arXiv 2512.19687): 1 to 8 pretrain, 9 and 10 fine-tune.
TEN_PAIRS: tuple[Pair, ...] = (
    ("audio", "text_audio"),
    ("audio", "video"),
    ("audio", "text_audio_video"),
    ("audio_video", "text_audio"),
    ("audio_video", "text_audio_video"),
    ("video", "text_audio"),
    ("video", "text_video"),
    ("video", "text_audio_video"),
    ("audio_plus_text", "video"),
    ("video_plus_text", "audio"),
)

#: Those of them whose scale and bias the released checkpoints hold.
PUBLISHED_PAIRS: tuple[Pair, ...] = tuple(TEN_PAIRS[index] for index in (0, 1, 4, 6, 8, 9))

#: The pair of frame-level alignment: frames of audio, event phrases.
FRAME_PAIR: Pair = ("audio", "text_event")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message says what is wrong and what would help."""


@dataclass(frozen=True)
class MediaSettings:
    """What a clip looks like to a model: part of the model, and stored with it.

    Attributes:
        sample_rate: of the audio, Hz.
        num_frames: video frames a clip; None takes them by `fps`, or all of them where that is None too.
        fps: video frames a second.
        frame_size: height and width of the frames, pixels.
        downmix: `meta`, 0.7071 (L + R), or `mean`.
        sampling: which frames: `index`, Meta's rule, or `time`.
        window_seconds: media longer than this are embedded in windows; the released models were trained on clips of 30 s.
    """

    sample_rate: int = 48000
    num_frames: int | None = None
    fps: float | None = None
    frame_size: int = 336
    downmix: Downmix = "meta"
    sampling: Sampling = "index"
    window_seconds: Seconds = 30.0

    @property
    def clip_format(self) -> ClipFormat:
        """What a clip looks like, without its length."""
        return ClipFormat(self.sample_rate, self.frame_size, self.num_frames, self.fps, self.downmix, self.sampling)


@dataclass(frozen=True)
class ModelSpec:
    """A model as plain data.

    Attributes:
        encoders: `{"class_path", "init_args"}` by name.
        embeddings: names of the embeddings that the model was trained to make.
        frames: names of the embeddings that it was trained to make frame by frame.
        embedding_dim: dimension of the shared space.
        normalize: whether embeddings get unit length.
        pairs: pairs whose scale and bias the model holds.
        media: what a clip looks like to it; None where the checkpoint does not say, and what its encoders declare is all that is known.
        name: of the architecture it was made of, where it has one.
        detection: how it finds sounds by name, where that was tuned.
        text_pairs: those of `pairs` whose scale and bias depend on the right one, a text.
    """

    encoders: Mapping[str, Mapping[str, Any]]
    embeddings: tuple[str, ...]
    frames: tuple[str, ...] = ()
    embedding_dim: int = 1024
    normalize: bool = False
    pairs: tuple[Pair, ...] = ()
    media: MediaSettings | None = None
    name: str = ""
    detection: DetectionSettings | None = None
    text_pairs: tuple[Pair, ...] = ()

    @property
    def known_media(self) -> MediaSettings:
        """What a clip looks like; as to the released models, where the checkpoint does not say."""
        return self.media if self.media is not None else MediaSettings()

    def to_dict(self) -> dict[str, Any]:
        """Returns the specification as JSON data; `detection` and `text_pairs` where there are any: earlier versions read the others."""
        data = {**asdict(self), "encoders": {name: dict(config) for name, config in self.encoders.items()}}
        if self.detection is None:
            del data["detection"]
        if not self.text_pairs:
            del data["text_pairs"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: if a field is missing or unknown.
        """
        try:
            values = dict(data)
            values["media"] = None if values.get("media") is None else MediaSettings(**values["media"])
            if values.get("detection") is not None:
                values["detection"] = DetectionSettings.from_dict(values["detection"])
            values["pairs"] = tuple((left, right) for left, right in values["pairs"])
            values["text_pairs"] = tuple((left, right) for left, right in values.get("text_pairs", ()))
            values["embeddings"], values["frames"] = tuple(values["embeddings"]), tuple(values["frames"])
            values["encoders"] = {
                str(name): {"class_path": config["class_path"], "init_args": dict(config["init_args"])}
                for name, config in dict(values["encoders"]).items()
            }
            return cls(**values)
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"config.json is not one that this version of peav writes: {error}") from error
