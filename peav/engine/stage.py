"""What a stage of the caption engine is: a plugin that takes columns of clips and returns columns."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, ClassVar

from peav.engine.plugin import ModelPlugin
from peav.registry import Registry

#: Columns of a batch of clips: name to one value a clip. `id` is always among them.
Columns = dict[str, list[Any]]

#: What the manifest says of a clip, and what is decoded of it: columns that no stage has to provide.
MANIFEST_COLUMNS = (
    "id",
    "duration",
    "has_audio",
    "has_video",
    "dataset",
    "licence",
    "real_captions",
    "real_transcript",
)
MEDIA_COLUMNS = ("audio", "frames")

#: Columns that several stages may provide: lists, which are joined in the order of the stages. A stage that reads one replaces it.
JOINED_COLUMNS = ("tags", "candidates", "verdicts", "support")


class EngineError(RuntimeError):
    """Ends a run: what is done stays done. The message says why, and how to go on."""


class EngineStop(EngineError):  # noqa: N818  the name says what it does
    """A stage cannot work at all, such as one whose server is gone: the run ends, and no clip is given up for it."""


@dataclass(frozen=True)
class Failed:
    """In place of a value in a column: this clip failed. The next run tries it again.

    Attributes:
        reason: why, in a sentence.
    """

    reason: str


@dataclass(frozen=True)
class FrameNeeds:
    """Which frames a stage wants.

    Attributes:
        size: (H, W) in pixels.
        num_frames: evenly over the clip, or
        fps: frames a second.
    """

    size: tuple[int, int] = (224, 224)
    num_frames: int | None = 8
    fps: float | None = None


class Stage(ModelPlugin):
    """Base class of stages. `@register_stage` makes one known by its name.

    A stage is built once in each process, from plain arguments, and called with batches. What its results depend on besides its
    arguments and columns, such as the weights of a model, is its :meth:`identity`. It changes `version` when its code changes what
    comes out.

    Attributes:
        reads: columns that it needs: of the manifest (`MANIFEST_COLUMNS`), of the media (`audio`: (S,) float32 arrays or None;
            `frames`: (F, 3, H, W) uint8 arrays or None), or of stages before it. One that ends in `?` is given where it is there.
        provides: columns that it returns.
        deterministic: whether it gives the same for the same clip, in any batch.
        calibrates: whether it wants to see a sample of clips first (:meth:`calibrate`).
        unkeyed: arguments that its results do not depend on, or whose content its :meth:`identity` has.
        sample_rate: at which it wants audio, Hz; set in the constructor.
        frame_needs: which frames it wants; set in the constructor.
        tokens_in: tokens of the prompts that it gave to models so far, where it knows them.
        tokens_out: tokens of their answers.
        vocabulary: phrases by medium (`audio`, `video`) that it knows, of one that provides `support`; set in the constructor.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ()
    deterministic: ClassVar[bool] = True
    calibrates: ClassVar[bool] = False
    unkeyed: ClassVar[tuple[str, ...]] = ()

    sample_rate: int = 16000
    frame_needs: FrameNeeds = FrameNeeds()
    vocabulary: Mapping[str, Sequence[str]] = MappingProxyType({})
    tokens_in: int = 0
    tokens_out: int = 0

    @classmethod
    def columns(cls, init_args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns what a stage with these arguments reads and provides; by default what the class says.

        Args:
            init_args: all arguments of the constructor, defaults included.
        """
        return cls.reads, cls.provides

    @classmethod
    def key_arguments(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the arguments that results depend on: all but `unkeyed`, such as those that say where and how fast it computes.

        Args:
            init_args: all arguments of the constructor, defaults included.
        """
        return {name: value for name, value in init_args.items() if name not in cls.unkeyed}

    @abstractmethod
    def __call__(self, batch: Columns) -> Columns:
        """Computes the columns that it provides.

        Args:
            batch: `id`, and the columns that it reads, a list of one length each. The values are shared: it must not change them.

        Returns:
            `id` and every column that it provides. Rows are told by their ids: one that is missing is a failure of its clip, one that
            was not asked for is refused. The values are plain data that JSON holds, or :class:`Failed`.

        Raises:
            EngineStop: if no clip can be computed at present.
            Exception: anything else makes the engine try the clips one by one; those that raise it fail.
        """

    def calibrate(self, batch: Columns) -> Any:
        """Looks at a sample of clips, and returns what it learned as plain data; called once a job where `calibrates` is true.

        Args:
            batch: as for a call.
        """
        return None

    def load_calibration(self, learned: Any) -> None:
        """Takes what :meth:`calibrate` returned, in this or another process, before the first batch.

        Args:
            learned: plain data.
        """

    def bind(self, stages: Mapping[str, Stage]) -> None:
        """Takes the stages before this one, built, by name; a gate finds there whom it asks to write again.

        Args:
            stages: those that stand before it.
        """


stages: Registry[Any] = Registry("stage", Stage)

register_stage = stages.register


def digest_of(data: Any) -> str:
    """Returns a digest, 16 hexadecimal digits, of plain data.

    >>> digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    True
    """
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def not_plain(data: Any) -> str:
    """Returns the name of a type inside data that is no plain data, the same in every process; "" where there is none.

    >>> not_plain({"a": [1, None, "x"]}), not_plain({"a": [{1, 2}]})
    ('', 'set')
    """
    if isinstance(data, Mapping):
        return next((found for item in (*data, *data.values()) if (found := not_plain(item))), "")
    if isinstance(data, list | tuple):
        return next((found for item in data if (found := not_plain(item))), "")
    return "" if data is None or isinstance(data, bool | int | float | str | date | PurePath) else type(data).__name__


def take(batch: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> Columns:
    """Returns some rows of a batch.

    >>> take({"id": ["a", "b", "c"], "n": [1, 2, 3]}, [2, 0])
    {'id': ['c', 'a'], 'n': [3, 1]}
    """
    return {name: [values[row] for row in rows] for name, values in batch.items()}
