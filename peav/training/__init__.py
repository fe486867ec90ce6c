"""Training: the LightningModule, its optimizer and its callbacks."""

from peav.training.module import PeavModule

__all__ = ["PeavModule"]
