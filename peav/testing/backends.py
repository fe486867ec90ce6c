"""The contract of backends of the caption engine."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from peav.engine.arguments import full_arguments
from peav.engine.backends import Answer, Backend, Request, answers_of
from peav.testing.model_plugins import require_model_plugin
from peav.testing.rows import require
from peav.testing.stages import tiny_columns


def tiny_requests(media: bool = False) -> list[Request]:
    """Returns requests about four clips.

    Args:
        media: whether they come with sound and frames where the clips have them.
    """
    columns = tiny_columns()
    return [
        Request(
            clip,
            f"Write a sentence about {clip}.",
            audio=columns["audio"][place] if media else None,
            frames=columns["frames"][place] if media else None,
            max_tokens=8,
        )
        for place, clip in enumerate(columns["id"])
    ]


def check_backend(cls: type[Backend], init_args: Mapping[str, Any], requests: Sequence[Request] | None = None) -> None:
    """Checks that a backend keeps its contract.

    Its identity and its models are plain data; it returns an answer a request, by its place, of texts and counts; and at temperature 0
    it says the same of a request in another order, and alone.

    Args:
        cls: the class.
        init_args: of its constructor.
        requests: that it is given; four without media by default.

    Raises:
        AssertionError: if it does not; says which part.
    """
    name, arguments = cls.__name__, full_arguments(cls, init_args, cls.__name__)
    require(issubclass(cls, Backend), f"{name} must be derived from peav.engine.backends.Backend")
    require_model_plugin(cls, arguments)
    asked = tiny_requests() if requests is None else list(requests)
    backend = cls(**arguments)
    before = pickle.dumps(asked)
    whole = _asked(backend, asked)
    require(pickle.dumps(asked) == before, f"{name} changes the requests that it is given")
    moved = _asked(backend, asked[::-1])[::-1]
    for place, (request, said) in enumerate(zip(asked, whole, strict=True)):
        if request.temperature:
            continue
        require(moved[place].text == said.text, f"{name} gives {request.id!r} another answer in another order")
        alone = _asked(backend, [request])[0]
        require(alone.text == said.text, f"{name} gives {request.id!r} another answer alone than among others")
    backend.close()


def _asked(backend: Backend, requests: Sequence[Request]) -> list[Answer]:
    try:
        return answers_of(backend, requests)
    except (TypeError, ValueError) as error:
        raise AssertionError(str(error)) from error
