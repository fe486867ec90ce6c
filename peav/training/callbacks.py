"""Callbacks."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from safetensors.torch import save_file

log = logging.getLogger(__name__)


class EmbeddingWriter(BasePredictionWriter):
    """Writes what `peav predict` computes: one safetensors file a rank, tensors `NAME` (N, D) and `NAME.present` (N,).

    The ids of the N clips are in the file's metadata, as a JSON list under `ids`.

    Args:
        folder: where `embeddings-RANK.safetensors` goes; the trainer's default_root_dir by default.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.folder = folder

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any] | None,
    ) -> None:
        """Joins the batches and writes the file."""
        if not predictions:
            raise ValueError("there was nothing to predict: the split holds no clips")
        names = list(predictions[0]["embeddings"])
        tensors = {}
        for name in names:
            tensors[name] = torch.cat([part["embeddings"][name].float().cpu() for part in predictions])
            tensors[f"{name}.present"] = torch.cat([part["present"][name].cpu() for part in predictions])
        ids = [clip for part in predictions for clip in part["ids"]]
        folder = Path(self.folder if self.folder is not None else trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"embeddings-{trainer.global_rank}.safetensors"
        save_file(tensors, path, metadata={"ids": json.dumps(ids)})
        log.info("wrote %d clips' embeddings %s to %s", len(ids), ", ".join(names), path)
