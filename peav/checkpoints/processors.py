"""The processors' configuration beside a model in transformers' format: what a clip looks like to it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peav.checkpoints.files import read_object
from peav.checkpoints.parts import init_args
from peav.checkpoints.spec import MediaSettings, ModelSpec


def read_sample_rate(folder: Path, audio_config: Mapping[str, Any] | None) -> int:
    """Returns the sample rate in Hz: the processor's, else the one that config.json gives the DAC.

    transformers fills in 16,000 Hz where config.json says nothing, which is the DAC's default and not PE-AV's 48,000.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (found := read_object(folder, name)) is not None:
            rate = found.get("feature_extractor", found).get("sampling_rate")
            if rate is not None:
                return int(rate)
    return int(((audio_config or {}).get("dac_config") or {}).get("sampling_rate", MediaSettings.sample_rate))


def read_media(folder: Path, sample_rate: int, frame_size: int | None) -> MediaSettings:
    """Reads the number of frames where the processor's configuration says one."""
    number, size = None, frame_size or 336
    for name in ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json"):
        if (found := read_object(folder, name)) is not None:
            video = found.get("video_processor", found)
            number = video.get("num_frames", number)
            size = (video.get("size") or {}).get("height", size) if frame_size is None else size
    return MediaSettings(sample_rate=sample_rate, num_frames=number, frame_size=size)


def write_processor(folder: Path, spec: ModelSpec) -> set[str]:
    """Writes what transformers' processors need beside the model; returns the names of the files."""
    audio = init_args(spec, "audio")
    extractor = {
        "feature_extractor_type": "PeAudioFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": audio["sample_rate"],
        "padding_value": 0.0,
        "hop_length": math.prod(audio["codec_ratios"]),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2) + "\n", encoding="utf-8")
    if "video" not in spec.embeddings:
        return {"preprocessor_config.json"}
    size = spec.known_media.frame_size
    video = {
        "video_processor_type": "PeVideoVideoProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "num_frames": spec.known_media.num_frames,
        "do_sample_frames": True,
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n", encoding="utf-8")
    return {"preprocessor_config.json", "video_preprocessor_config.json"}
