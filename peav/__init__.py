"""peav: train, fine-tune, evaluate and use audio-video-text encoders of the PE-AV family (arXiv 2512.19687).

Importing this package loads nothing heavy: what it offers is imported when it is first used.
"""

from typing import TYPE_CHECKING

from peav.lazy import lazy_names

if TYPE_CHECKING:
    from peav.model import PEAV
    from peav.registry import register_encoder, register_objective

__version__ = "0.1.0"
__all__ = ["PEAV", "__version__", "register_encoder", "register_objective"]

__getattr__, __dir__ = lazy_names(
    __name__, {"PEAV": "peav.model", "register_encoder": "peav.registry", "register_objective": "peav.registry"}
)
