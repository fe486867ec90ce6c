"""peav: train, fine-tune, evaluate and use audio-video-text encoders of the PE-AV family (arXiv 2512.19687).

Importing this package loads nothing heavy: what it offers is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peav.model import PEAV
    from peav.registry import register_encoder, register_objective

__version__ = "0.1.0"
__all__ = ["PEAV", "__version__", "register_encoder", "register_objective"]

#: What is imported when it is asked for, and from where.
_LAZY = {"PEAV": "peav.model", "register_encoder": "peav.registry", "register_objective": "peav.registry"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
