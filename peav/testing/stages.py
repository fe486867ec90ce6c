"""The contract of stages of the caption engine."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from peav.engine.arguments import full_arguments
from peav.engine.compute import rows_of, unfit
from peav.engine.stage import Columns, Failed, Stage, not_plain, take
from peav.testing.model_plugins import require_model_plugin
from peav.testing.rows import require

_RATE = 16000


def tiny_columns(rows: int = 4) -> Columns:
    """Returns a batch of clips with a value in each column that stages of peav read, as the engine would give it.

    Args:
        rows: clips; every second one has no picture, and the last one neither sound nor anything that is known of it.
    """
    random = np.random.default_rng(0)
    last = rows - 1
    sound = [None if k == last else random.normal(0, 0.1, _RATE).astype(np.float32) for k in range(rows)]
    picture = [None if k % 2 else random.integers(0, 255, (8, 3, 96, 96), dtype=np.uint8) for k in range(rows)]
    tags = [
        [{"phrase": f"sound {k}", "medium": "audio", "score": 1.0, "confidence": "high", "by": "a"}] if k < last else []
        for k in range(rows)
    ]
    candidates = [[{"kind": "audio", "text": f"sound {k}", "by": "a"}] if k < last else [] for k in range(rows)]
    return {
        "id": [f"clip-{k}" for k in range(rows)],
        "duration": [1.0] * rows,
        "has_audio": [one is not None for one in sound],
        "has_video": [one is not None for one in picture],
        "dataset": [""] * rows,
        "licence": [""] * rows,
        "real_captions": [{}] * rows,
        "real_transcript": [None if k else "good morning" for k in range(rows)],
        "audio": sound,
        "frames": picture,
        "tags": tags,
        "candidates": candidates,
        "speech": [{"text": "good morning"} if k == 0 else {} for k in range(rows)],
        "voice": [[[0.1, 0.9]] if k == 0 else [] for k in range(rows)],
        "measures": [{"silence": 0.0}] * rows,
        "texts": [{"audio": f"sound {k}"} if k < last else {} for k in range(rows)],
        "finish": [{}] * rows,
        "verdicts": [[] for _ in range(rows)],
    }


def check_stage(cls: type[Stage], init_args: Mapping[str, Any], batch: Columns | None = None) -> None:
    """Checks that a stage keeps its contract.

    It says what it reads and provides, and its key is plain data; it returns a row for each clip, by id, that JSON holds; it changes
    nothing that it was given; and a deterministic one gives each clip the same in any order, alone, and built again, numbers but for
    what a batch of another size may change in them.

    Args:
        cls: the class.
        init_args: of its constructor.
        batch: what it is given; a batch of four clips by default.

    Raises:
        AssertionError: if it does not; says which part.
    """
    arguments = full_arguments(cls, init_args, cls.__name__)
    require_model_plugin(cls, arguments)
    reads, provides = cls.columns(arguments)
    require(bool(provides), f"{cls.__name__} provides no column")
    for what, columns in (("reads", reads), ("provides", provides)):
        require(not isinstance(columns, str), f"{cls.__name__}.{what} must be names of columns, got {columns!r}")
    held = cls.key_arguments(arguments)
    require(not not_plain(held), f"{cls.__name__}.key_arguments returns no plain data: {held!r}")
    whole = batch or tiny_columns()
    given = {name: whole[name] for name in ("id", *(one.removesuffix("?") for one in reads)) if name in whole}
    stage = cls(**arguments)
    if cls.calibrates:
        learned = json.loads(json.dumps(stage.calibrate(given)))
        stage.load_calibration(learned)
    before = pickle.dumps(given)
    made = _rows(cls, stage, given, provides)
    require(pickle.dumps(given) == before, f"{cls.__name__} changes the columns that it is given")
    if cls.deterministic:
        order = list(range(len(given["id"])))[::-1]
        moved = _rows(cls, stage, take(given, order), provides)
        require(
            moved == made, f"{cls.__name__} gives clips another answer in another order: its rows must follow their ids"
        )
        for place, clip in enumerate(given["id"]):
            alone = _rows(cls, stage, take(given, [place]), provides)
            require(
                alone[clip] == made[clip],
                f"{cls.__name__} gives the clip {clip!r} another answer alone than in a batch",
            )
        again = cls(**arguments)
        if cls.calibrates:
            again.load_calibration(learned)
        require(_alike(_rows(cls, again, given, provides), made), f"{cls.__name__}, built again, gives another answer")
        again.close()
    stage.close()


def _rows(cls: type[Stage], stage: Stage, given: Columns, provides: tuple[str, ...]) -> dict[str, Any]:
    name, ids = cls.__name__, list(given["id"])
    made = stage({name: list(values) for name, values in given.items()})
    try:
        rows = rows_of(name, provides, made, ids)
    except ValueError as error:
        raise AssertionError(str(error)) from None
    missing = [clip_id for clip_id in ids if clip_id not in rows]
    require(not missing, f"{name} returned no rows of the clips {missing}")
    for values in rows.values():
        if not any(isinstance(value, Failed) for value in values.values()):
            wrong = unfit(values)
            require(wrong is None, f"{name}: {wrong}")
    return rows


def _alike(left: Any, right: Any) -> bool:
    """Returns whether two answers say the same: texts to the letter, numbers to a thousandth."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-3, abs_tol=2e-3)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_alike(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_alike, left, right))
    return bool(left == right)
