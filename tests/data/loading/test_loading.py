from collections.abc import Callable
from itertools import chain
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from peav.data import ClipDataset, ClipLoader, EvaluationPlan, Population, PrepareReport, TrainingPlan, decode_counts
from peav.data.datamodule import ClipDataModule
from peav.types import AudioInput, Batch

Prepared = tuple[Path, PrepareReport]
FIELDS = ("audio", "captions.audio")


def loader(prepared: Prepared, tokenize: Callable, workers: int = 0, **options: Any) -> ClipLoader:
    dataset = ClipDataset(prepared[0], "train", fields=FIELDS)
    return ClipLoader(
        dataset, TrainingPlan(Population.of(dataset.manifest.index), batch_size=2, seed=5), tokenize, workers, **options
    )


def content(batch: Batch) -> tuple[Any, ...]:
    assert isinstance(batch.audio, AudioInput)
    return batch.ids, batch.captions["audio"].texts, float(batch.audio.samples.double().sum())


def test_batches_do_not_depend_on_the_workers(prepared: Prepared, tokenize: Callable) -> None:
    found = []
    for workers in (0, 1, 2):
        batches = loader(prepared, tokenize, workers)
        found.append([[content(batch) for batch in batches] for _ in range(2)])
        assert len(batches) == 5
    assert found[0] == found[1] == found[2]
    assert found[0][0] != found[0][1]
    seen = [clip for batch in found[0][0] for clip in batch[0]]
    assert len(seen) == len(set(seen)) == 10


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("rows", [7, 8, 23])
def test_evaluation_sees_every_clip_once(rows: int, world: int) -> None:
    plan = EvaluationPlan(rows, batch_size=2)
    ranks = [plan.batches(0, rank, world) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {plan.num_batches(world)}
    assert all(1 <= len(batch) <= 2 for batches in ranks for batch in batches)
    assert [row for step in zip(*ranks, strict=True) for batch in step for row in batch] == list(range(rows))
    with pytest.raises(ValueError, match="cannot be shared among 4 ranks"):
        EvaluationPlan(3, 2).num_batches(4)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 3, 5, 7])
def test_a_loader_resumes_in_the_middle(prepared: Prepared, tokenize: Callable, workers: int, taken: int) -> None:
    straight = loader(prepared, tokenize)
    epochs = [[content(batch) for batch in straight] for _ in range(3)]
    first = loader(prepared, tokenize, workers)
    steps = 0
    state: dict[str, Any] = {}
    for _ in range(2):
        for _ in first:
            steps += 1
            if steps == taken:
                state = first.state_dict()
                break
        if state:
            break
    resumed = loader(prepared, tokenize, workers)
    resumed.load_state_dict(state)
    # Asked for at the end of an epoch, the rest of that epoch is empty and the next follows.
    rest = list(chain(*epochs))[taken:]
    got = [content(batch) for batch in resumed]
    assert got == rest[: 5 - taken % 5 if taken % 5 else 5]
    assert [content(batch) for batch in resumed] == rest[len(got) : len(got) + 5]
    assert len(resumed) == 5
    # An iterator that nobody used changes nothing.
    idle = loader(prepared, tokenize, workers)
    idle.load_state_dict(state)
    for _ in range(2):
        iter(idle)
    assert [content(batch) for batch in idle] == got


@pytest.mark.parametrize("state", [{}, {"epoch": 0}, {"epoch": 0, "batches": -1}, {"epoch": "1", "batches": 0}])
def test_a_state_that_no_loader_gave_is_refused(prepared: Prepared, tokenize: Callable, state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="holds its epoch and batches"):
        loader(prepared, tokenize, 0).load_state_dict(state)


class Recorder(LightningModule):
    """Writes down what it is fed; its one weight moves with the batches."""

    batch_fields = frozenset(FIELDS)

    def __init__(self, tokenize: Callable) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.tokenize = tokenize
        self.seen: list[tuple[Any, ...]] = []
        self.validated: list[tuple[str, ...]] = []

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, index, *content(batch)))
        assert isinstance(batch.audio, AudioInput)
        return (self.weight * batch.audio.samples.abs().mean()).sum()

    def validation_step(self, batch: Batch, index: int) -> None:
        self.validated.append(batch.ids)

    def test_step(self, batch: Batch, index: int) -> None:
        self.validated.append(batch.ids)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class KeepValidated(Callback):
    """Saves when an epoch has been validated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"validated-epoch={trainer.current_epoch}.ckpt")


def fit(
    prepared: Prepared,
    tokenize: Callable,
    folder: Path,
    workers: int = 0,
    resume: str | None = None,
    epochs: int = 3,
    **options: Any,
) -> tuple[Recorder, list[str]]:
    module = Recorder(tokenize)
    data = ClipDataModule(str(prepared[0]), batch_size=2, num_workers=workers, seed=3)
    keep: list[Callback] = [
        ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        ModelCheckpoint(folder, filename="end-{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True),
        KeepValidated(folder),
    ]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=keep,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return module, sorted(str(path) for path in folder.glob("*.ckpt"))


@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_exactly_wherever_it_stopped(prepared: Prepared, tokenize: Callable, tmp_path: Path) -> None:
    whole, checkpoints = fit(prepared, tokenize, tmp_path / "whole")
    assert len(whole.seen) == 15 and len(checkpoints) == 15 + 3 + 3
    dataset = ClipDataset(prepared[0], "train", fields=FIELDS, seed=3)
    straight = ClipLoader(dataset, TrainingPlan(Population.of(dataset.manifest.index), 2, 3), tokenize)
    assert [step[2:] for step in whole.seen] == [content(batch) for _ in range(3) for batch in straight]
    assert [step[:2] for step in whole.seen] == [(epoch, index) for epoch in range(3) for index in range(5)]
    cases = [(f"step={step}", step, 2 * (step in (3, 10))) for step in (1, 3, 4, 5, 6, 9, 10, 12)]
    cases += [(f"{kind}-epoch={epoch}", 5 * (epoch + 1), 0) for kind in ("end", "validated") for epoch in (0, 1)]
    for name, step, workers in cases:
        path = str(tmp_path / "whole" / f"{name}.ckpt")
        torch.load(path, weights_only=True)
        resumed, _ = fit(prepared, tokenize, tmp_path / f"resumed-{name}", workers, resume=path)
        assert resumed.seen == whole.seen[step:], f"resumed from {name}"
        assert torch.equal(resumed.weight, whole.weight)


class Failing(Recorder):
    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        raise RuntimeError("on purpose")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"max_steps": 2}])
def test_workers_end_with_the_run(
    prepared: Prepared, tokenize: Callable, tmp_path: Path, options: dict[str, Any]
) -> None:
    before = set(active_children())
    fit(prepared, tokenize, tmp_path, 2, epochs=1, **options)
    assert set(active_children()) <= before


@pytest.mark.filterwarnings("ignore")
def test_workers_end_with_a_run_that_fails(prepared: Prepared, tokenize: Callable) -> None:
    before = set(active_children())
    data = ClipDataModule(str(prepared[0]), batch_size=2, num_workers=2)
    with pytest.raises(RuntimeError, match="on purpose"):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
            Failing(tokenize), data
        )
    assert set(active_children()) <= before


def test_a_loader_that_was_closed_goes_on(prepared: Prepared, tokenize: Callable) -> None:
    closed, straight = loader(prepared, tokenize, 1), loader(prepared, tokenize)
    expected = [content(batch) for _ in range(2) for batch in straight]
    got = [content(batch) for batch in closed]
    closed.close()
    assert got + [content(batch) for batch in closed] == expected


@pytest.mark.filterwarnings("ignore")
def test_short_epochs_resume_exactly_too(prepared: Prepared, tokenize: Callable, tmp_path: Path) -> None:
    whole, _ = fit(prepared, tokenize, tmp_path / "whole", limit_train_batches=3)
    for name, step in (("step=2", 2), ("step=3", 3), ("end-epoch=0", 3), ("validated-epoch=1", 6), ("step=7", 7)):
        path = str(tmp_path / "whole" / f"{name}.ckpt")
        resumed, _ = fit(prepared, tokenize, tmp_path / name, resume=path, limit_train_batches=3)
        assert resumed.seen == whole.seen[step:], f"resumed from {name}"


@pytest.mark.filterwarnings("ignore")
def test_validation_in_the_middle_and_short_epochs(prepared: Prepared, tokenize: Callable, tmp_path: Path) -> None:
    whole, _ = fit(prepared, tokenize, tmp_path, limit_train_batches=3, val_check_interval=1)
    plain, _ = fit(prepared, tokenize, tmp_path / "plain")
    assert [step[2:] for step in whole.seen] == [step[2:] for step in plain.seen if step[1] < 3]
    assert whole.validated[:2] == [("val-0", "val-1"), ("val-2",)]


@pytest.mark.filterwarnings("ignore")
def test_data_module_reads_what_the_model_reads(prepared: Prepared, tokenize: Callable, tmp_path: Path) -> None:
    module = Recorder(tokenize)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    data = ClipDataModule(str(prepared[0]), batch_size=2, num_workers=0)
    before = decode_counts()["video"]
    trainer.validate(module, data, verbose=False)
    assert decode_counts()["video"] == before
    assert module.validated == [("val-0", "val-1"), ("val-2",)]
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        trainer.test(module, data, verbose=False)
    given = ClipDataModule(
        str(prepared[0]), batch_size=2, num_workers=0, fields=["video"], predict_split="train", shuffle_pairing=True
    )
    given.setup("predict")
    (batch, *_) = given.predict_dataloader()
    assert batch.audio is None and batch.video is not None and batch.ids == ("both", "silent")
    with pytest.raises(ValueError, match="predict_split must be one of"):
        ClipDataModule("x", predict_split="dev")
    with pytest.raises(ValueError, match="no batch field is called"):
        ClipDataModule("x", fields=["sound"])
