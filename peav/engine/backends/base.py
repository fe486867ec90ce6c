"""What a backend is: from a prompt with sound and pictures to a text, one request or many."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.engine.configured import configured
from peav.engine.plugin import ModelPlugin
from peav.registry import Registry


@dataclass(frozen=True)
class Request:
    """What a model is asked.

    Attributes:
        id: of the clip.
        text: the prompt.
        system: the instruction before it; "" for none.
        audio: (S,) float32 at `sample_rate`, or None.
        sample_rate: in Hz.
        frames: (F, 3, H, W) uint8, or None.
        max_tokens: of the answer.
        temperature: of sampling; 0 takes the most likely token.
    """

    id: str
    text: str
    system: str = ""
    audio: NDArray[np.float32] | None = None
    sample_rate: int = 16000
    frames: NDArray[np.uint8] | None = None
    max_tokens: int = 128
    temperature: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: of the answer.
        finish: why it ended: `stop`, or `length` where it was cut.
        tokens_in: of the prompt, where the backend says it.
        tokens_out: of the answer, likewise.
        error: why there is none; "" if there is.
    """

    text: str = ""
    finish: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    error: str = ""


class Backend(ModelPlugin):
    """Base class of backends. `@register_backend` makes one known by its name."""

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what answers depend on, as plain data: the model and its revision, not where it runs.

        Args:
            init_args: all arguments of the constructor, defaults included.
        """
        return init_args

    @abstractmethod
    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers requests, in their order.

        Args:
            requests: at least one.

        Returns:
            an answer a request; one with `error` fails its clip and no other.

        Raises:
            EngineStop: if no request can be answered at present.
        """


backends: Registry[Any] = Registry("backend", Backend)

register_backend = backends.register


def plan_backend(config: Any) -> tuple[type[Backend], dict[str, Any]]:
    """Returns the class of a backend and all its arguments.

    Args:
        config: `{"class_path": ..., "init_args": {...}}`.

    Raises:
        ValueError: if there is none of that name, or it lacks an argument, see :func:`peav.engine.configured.configured`.
    """
    return configured(backends, config, "backend")


def answers_of(backend: Backend, requests: Sequence[Request]) -> list[Answer]:
    """Asks a backend, and sees that it answers as it should.

    Args:
        backend: to be asked.
        requests: at least one.

    Raises:
        TypeError: if it returns something else than a list of answers, or one that holds something else than texts and counts.
        ValueError: if there is not one for each request.
    """
    name, answers = type(backend).__name__, backend.answer(requests)
    if not isinstance(answers, list | tuple):
        raise TypeError(f"{name}.answer must return a list of Answer, got {type(answers).__name__}")
    if len(answers) != len(requests):
        raise ValueError(f"{name}.answer was given {len(requests)} requests, and returned {len(answers)} answers")
    for one in answers:
        if not isinstance(one, Answer):
            raise TypeError(f"{name}.answer must return a list of Answer, got {one!r:.100} in it")
        for field, kind in (("text", str), ("finish", str), ("error", str), ("tokens_in", int), ("tokens_out", int)):
            if not isinstance(value := getattr(one, field), kind):
                raise TypeError(f"{name}.answer returned an Answer with {field}={value!r:.100}, not a {kind.__name__}")
    return list(answers)
