"""A synthetic audio-visual world: small, captioned, annotated, with held-out combinations, made on a CPU."""

from peav.data.synthetic.world import HoldOut, Scene, combination, hold_out, sample_world, split_sizes
from peav.data.synthetic.write import WorldReport, synthesize

__all__ = [
    "HoldOut",
    "Scene",
    "WorldReport",
    "combination",
    "hold_out",
    "sample_world",
    "split_sizes",
    "synthesize",
]
