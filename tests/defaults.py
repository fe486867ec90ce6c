"""The defaults of what people set. `python -m tests.defaults` writes them anew into tests/assets/defaults.json.

A default is part of every experiment that does not name it. One that moves says why in CHANGELOG.md.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peav import data
from peav.data.curation.edit import mix, split_manifest
from peav.data.datamodule import ClipDataModule
from peav.data.loading.augment import Gain, Noise
from peav.data.media.normalize import Normalize
from peav.data.packing.jobs import PackSettings
from peav.data.synthetic import synthesize
from peav.encoders.audio import SpecAugment
from peav.masking import SpanMasking
from peav.registry import encoders, init_signature, objectives
from peav.training.module import PeavModule

GOLDEN = Path(__file__).with_name("assets") / "defaults.json"
CLASSES: tuple[type[Any], ...] = (
    *(data.ClipDataset, data.ClipLoader, data.DecodeSettings, data.TrainingPlan, data.StoreOptions, ClipDataModule),
    *(Gain, Noise, Normalize, PackSettings, SpanMasking, SpecAugment, PeavModule),
)
FUNCTIONS: tuple[Callable[..., Any], ...] = (
    data.prepare,
    data.load_audio,
    data.load_frames,
    split_manifest,
    mix,
    synthesize,
)


def defaults() -> dict[str, dict[str, str]]:
    """Returns the defaults of each class and function, as they are written."""
    signatures = {cls.__name__: init_signature(cls) for cls in CLASSES}
    signatures |= {function.__name__: inspect.signature(function) for function in FUNCTIONS}
    for registry in (encoders, objectives):
        for name in registry:
            if registry.get(name).__module__.startswith("peav."):
                signatures[name] = init_signature(registry.get(name))
    found = {}
    for name, signature in sorted(signatures.items()):
        given = {key: item.default for key, item in signature.parameters.items()}
        values = {key: repr(value) for key, value in given.items() if value is not inspect.Parameter.empty}
        # Factories and objects have an address in their names.
        found[name] = {
            key: value for key, value in sorted(values.items()) if " at 0x" not in value and "<" not in value
        }
    return found


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(defaults(), indent=1) + "\n")
    sys.stdout.write(f"{GOLDEN}\n")
