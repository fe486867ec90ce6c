"""peav: train, fine-tune, evaluate and use audio-video-text encoders of the PE-AV family (arXiv 2512.19687).

Importing this package loads neither Lightning nor transformers.
"""

from peav.registry import register_encoder, register_objective

__version__ = "0.1.0"
__all__ = ["__version__", "register_encoder", "register_objective"]
