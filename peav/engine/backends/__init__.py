"""Backends: where a model runs that a stage asks; importing this package registers them, and loads no model."""

from peav.engine.backends.base import Answer, Backend, Request, answers_of, backends, plan_backend, register_backend
from peav.engine.backends.http import HTTPBackend
from peav.engine.backends.local import TransformersBackend

__all__ = [
    "Answer",
    "Backend",
    "HTTPBackend",
    "Request",
    "TransformersBackend",
    "answers_of",
    "backends",
    "plan_backend",
    "register_backend",
]
