"""What the tests of object stores read, and how they compare it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peav.data import ClipDataset, ClipLoader, Population, StoreOptions, TrainingPlan
from peav.data.stores.reader import number_chunks
from peav.types import AudioInput, Batch
from tests.data.world import RATE


def loader(
    data: str | Path, tokenize: Callable, store: StoreOptions | None = None, workers: int = 0, window: int | None = 3
) -> ClipLoader:
    dataset = ClipDataset(data, "train", fields=["audio", "captions.audio"], sample_rate=RATE, store=store)
    index = dataset.manifest.index
    chunks = number_chunks([dataset.reader.store(name) for name in index.stores], index.store, index.row)
    plan = TrainingPlan(Population.of(index, chunks), 4, seed=5, window_chunks=window)
    return ClipLoader(dataset, plan, tokenize, workers)


def content(batch: Batch) -> tuple[Any, ...]:
    assert isinstance(batch.audio, AudioInput)
    return batch.ids, batch.captions["audio"].texts, batch.audio.samples.sum(1).tolist()
