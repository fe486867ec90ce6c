"""A module of training as evaluation sees it: its model, with what its objectives say of pairs and of frames."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from peav.data.loading.decoding import DecodeSettings
from peav.evaluation.models import FrameScale, PeavModel
from peav.inputs import Precision
from peav.objectives import Objective
from peav.training.module import PeavModule
from peav.types import ClipFormat

log = logging.getLogger(__name__)

#: Settings of the data module that change what a clip looks like to the model.
DATA_SETTINGS = tuple(f.name for f in fields(ClipFormat))


def evaluated_model(module: PeavModule, data: Mapping[str, Any], name: str, precision: Precision = "auto") -> PeavModel:
    """Returns a module's model with its objectives: they say which pairs are compared, also those that have no scale.

    Args:
        module: that was, or is being, trained.
        data: hyper-parameters of its data module; what they lack of `DATA_SETTINGS` is the default.
        name: what reports call it.
        precision: in which it computes.
    """
    settings = {key: data[key] for key in DATA_SETTINGS if key in data}
    if isinstance(size := settings.get("frame_size"), int):
        settings["frame_size"] = (size, size)
    elif size is not None:
        settings["frame_size"] = tuple(size)
    if settings.get("fps") is not None:
        settings["num_frames"] = None
    objectives = [objective for objective in module.objectives.values() if isinstance(objective, Objective)]
    model = PeavModel(
        module.model,
        name,
        [pair for objective in objectives for pair in objective.compared],
        frame_scale(objectives),
        DecodeSettings(**settings),
        # Checkpoints of before have no fields of the user's own kinds.
        data.get("field_options"),
        precision,
    )
    model.started_from = module.started_from
    return model


def frame_scale(objectives: Sequence[Objective]) -> FrameScale | None:
    """Returns what the first objective with a frame level declares of it (`Objective.frame_pair`), None where none does."""
    declared = [(o.frame_pair, o) for o in objectives if o.frame_pair is not None]
    if not declared:
        return None
    pair, objective = declared[0]
    if others := [" x ".join(other) for other in dict.fromkeys(other for other, _ in declared) if other != pair]:
        log.warning("frames are evaluated for %s alone, not for %s", " x ".join(pair), ", ".join(others))
    if (by_phrase := objective.text_scores().get(pair)) is not None:
        return FrameScale(*pair, by_phrase=lambda phrases: by_phrase(phrases.to(by_phrase.device)))
    score = objective.pair_scores().get(pair)
    return FrameScale(*pair) if score is None else FrameScale(*pair, float(score[0]), float(score[1]))
