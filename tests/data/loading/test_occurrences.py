"""A clip that an epoch samples several times looks different each time, and the same in every run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from peav.data import ClipLoader
from peav.data.datamodule import ClipDataModule
from peav.data.loading.augment import Gain
from peav.types import AudioInput
from tests.data.world import RATE, damage, make_data


class Seen(NamedTuple):
    """What a model is shown of a clip."""

    id: str
    caption: str
    level: float
    seed: int


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """30 clips of the domain `often`, which come about twice an epoch, and 30 of `seldom`."""
    return make_data(tmp_path / "data", clips=60, domains=("often", "seldom"))


def loader(data: Path, tokenize: Callable, workers: int = 0, **options: Any) -> ClipLoader:
    """The training loader as `peav fit` makes it."""
    module = ClipDataModule(
        str(data),
        batch_size=6,
        num_workers=workers,
        sample_rate=RATE,
        fields=["audio", "captions.audio"],
        tokenize=tokenize,
        domain_weights={"often": 0.95, "seldom": 0.05},
        audio_augment=[Gain(-6, 6)],
        **options,
    )
    module.setup("fit")
    return module.train_dataloader()


def see(batches: Any) -> list[Seen]:
    found = []
    for batch in batches:
        audio = batch.audio
        assert isinstance(audio, AudioInput) and audio.seed is not None
        rows = zip(
            batch.ids, batch.captions["audio"].texts, audio.samples[:, 0].tolist(), audio.seed.tolist(), strict=True
        )
        found += [Seen(*row) for row in rows]
    return found


def by_id(seen: list[Seen]) -> dict[str, list[Seen]]:
    grouped = defaultdict(list)
    for clip in seen:
        grouped[clip.id].append(clip)
    return grouped


def test_each_time_has_its_own_caption_augmentation_and_seed(data: Path, tokenize: Callable) -> None:
    made = loader(data, tokenize)
    epochs = [see(made) for _ in range(3)]
    for epoch, seen in enumerate(epochs):
        often = [times for times in by_id(seen).values() if len(times) > 1]
        assert len(often) >= 25
        for times in often:
            assert len({clip.seed for clip in times}) == len({clip.level for clip in times}) == len(times)
        # Two captions a clip: about half of the pairs differ.
        assert 0.2 < np.mean([times[0].caption != times[1].caption for times in often]) < 0.8
        # What comes once is what it would be without weights.
        for position, clip in enumerate(made.dataset.manifest):
            alone = made.dataset[epoch, position]
            times = by_id(seen).get(clip.id, [])
            assert [clip.seed for clip in times].count(alone.seed or 0) == min(1, len(times))
            assert not times or alone.captions["audio"] in [clip.caption for clip in times]
    assert len({clip.seed for seen in epochs for clip in seen}) == 180


def test_workers_and_a_restart_change_nothing(data: Path, tokenize: Callable) -> None:
    straight = see(loader(data, tokenize))
    stopped = loader(data, tokenize, workers=2)
    first = []
    for batch in stopped:
        first += see([batch])
        if len(first) == 24:
            break
    state = stopped.state_dict()
    stopped.close()
    resumed = loader(data, tokenize, workers=1)
    resumed.load_state_dict(state)
    assert first + see(resumed) == straight


def test_a_substitute_is_not_the_clip_of_its_own_turn_again(data: Path, tokenize: Callable) -> None:
    damage(data, 4)
    damage(data, 6)
    made = loader(data, tokenize, max_bad_share=1.0)
    for _ in range(3):
        seen = see(made)
        assert len({clip.seed for clip in seen}) == len({clip.level for clip in seen}) == len(seen) == 60
    assert len(made.replaced) > 6
    assert see(loader(data, tokenize, workers=2, max_bad_share=1.0)) == see(loader(data, tokenize, max_bad_share=1.0))
