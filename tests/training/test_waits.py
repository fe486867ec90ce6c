"""A training step asks the device for a handful of values, whatever it is made of: everything else runs ahead."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from peav.checkpoints import TEN_PAIRS
from peav.encoders import DacAudioEncoder
from peav.objectives import BestRQ, FrameAlignment, Objective, PairObjective
from peav.testing import tiny_batch
from peav.training import PeavModule
from peav.training.sharding import share_objectives
from peav.types import AudioInput, Batch
from tests.helpers import SMALL_ENCODERS, small_encoders
from tests.pretend_device import Waits, device, pretend, strategy

OBJECTIVES = {f"{a}:{b}": (a, b) for a, b in TEN_PAIRS}


def make(kind: str, **options: Any) -> PeavModule:
    """Ten pairs, frames and BEST-RQ on small encoders: those of tiny_cpu.yaml, or those of the released models."""
    torch.manual_seed(0)
    encoders, inputs = small_encoders(), 32
    if kind == "released":
        encoders["audio"] = DacAudioEncoder(
            dim=16, num_layers=1, num_heads=2, sample_rate=16000, codec_hidden_size=2, codec_ratios=(2, 4), codec_dim=4
        )
        encoders["video"] = SMALL_ENCODERS["PEVideoEncoder"]()
        inputs = 4
    objectives: dict[str, Objective | None] = {name: PairObjective(*pair) for name, pair in OBJECTIVES.items()}
    objectives |= {"frame": FrameAlignment(), "best_rq": BestRQ(input_dim=inputs, dim=16, num_codes=20, code_dim=4)}
    return PeavModule(encoders, objectives, embedding_dim=8, warmup_steps=1, **options)


def batches(number: int) -> list[Batch]:
    """Clips of different lengths, of which some lack a modality or repeat another's caption."""
    found = []
    for seed in range(number):
        batch = tiny_batch(8, seed=seed)
        audio, caption = batch.audio, batch.captions["audio"]
        assert isinstance(audio, AudioInput)
        there = torch.arange(8) != 3
        audio = replace(audio, present=there, mask=audio.mask & there[:, None], samples=audio.samples.double())
        audio = replace(audio, seed=torch.arange(8))
        captions = {
            **batch.captions,
            "audio": replace(caption, group=caption.group.index_fill(0, torch.tensor(5), 100)),
        }
        found.append(replace(batch, audio=audio, captions=captions))
    return found


class Watch(Callback):
    """Counts in one batch, from when it is on the device to its end, and keeps the losses."""

    def __init__(self, waits: Waits, counted: int) -> None:
        self.waits, self.counted = waits, counted
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(batch_idx)
        self.waits.counting = batch_idx == self.counted

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.waits.counting = False
        self.losses.append(float(outputs["loss"]))


def fit(kind: str, folder: Path, waits: Waits, on_device: bool, **options: Any) -> Watch:
    """Trains three steps in float64, of which none logs, and counts in the second."""
    watch = Watch(waits, 1)
    data = batches(3)
    where: dict[str, Any] = {"strategy": strategy()} if on_device else {"accelerator": "cpu"}
    trainer = Trainer(
        max_steps=3,
        precision="64-true",
        default_root_dir=folder,
        callbacks=[watch],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        gradient_clip_val=1.0,
        **where,
    )
    trainer.fit(make(kind, **options), DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    return watch


def count(kind: str, folder: Path) -> dict[str, Any]:
    """Counts the waits of a step, and trains on the CPU beside it."""
    with pretend() as waits:
        found = fit(kind, folder, waits, on_device=True)
    expected = fit(kind, folder, Waits(), on_device=False)
    return {"total": waits.total, "waits": str(waits), "losses": found.losses, "expected": expected.losses}


@pytest.mark.parametrize("kind", ["tiny_cpu", pytest.param("released", marks=pytest.mark.slow)])
def test_a_step_that_logs_nothing_waits_ten_times_at_most(kind: str, tmp_path: Path) -> None:
    """Through Lightning's trainer and the optimizer; and what a device computes is what the CPU does.

    In a process of its own: torch makes the queues of autograd for the devices that are known at the first backward pass.
    """
    command = [sys.executable, "-m", "tests.training.test_waits", kind, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 1 <= found["total"] <= 10, f"{found['total']} waits:\n{found['waits']}"
    assert found["losses"] == pytest.approx(found["expected"], rel=1e-9)


def test_what_makes_a_host_wait_is_counted() -> None:
    """The count itself: each of these waits for a GPU, and the rest does not."""
    with pretend() as waits:
        x, mask = torch.randn(4).to(device()), (torch.arange(4) > 1).to(device())
        waits.counting = True
        waiting: list[Any] = [
            *(lambda: x[0].item(), lambda: bool(mask.any()), lambda: x.tolist(), lambda: x.cpu(), lambda: x[mask]),
            *(lambda: mask.nonzero(), lambda: x.unique(), lambda: torch.equal(x, x), lambda: x.masked_select(mask)),
            *(
                lambda: torch.tensor(3.0, device=x.device),
                lambda: torch.zeros(4).to(x.device),
                lambda: x[torch.tensor([1, 2])],
            ),
            *(lambda: torch.repeat_interleave(mask.long()), lambda: int(x.argmax()), lambda: x.new_tensor([1.0])),
        ]
        for number, function in enumerate(waiting, 1):
            function()
            assert waits.total == number, f"call {number}: {waits}"
        x[mask.long()], torch.where(mask, x, 0).sum(), torch.full((), 3.0, device=x.device), x * torch.tensor(2.0)
        torch.zeros(4).to(x.device, non_blocking=True)
        assert waits.total == len(waiting)
        with pytest.raises(RuntimeError, match="mixes tensors of the host"):
            x + torch.zeros(4)


def test_objectives_are_moved_before_they_are_shared() -> None:
    """NCCL sends nothing that lies on the host."""
    objectives = torch.nn.ModuleDict({"pair": PairObjective("audio", "video"), "best_rq": BestRQ(input_dim=4, dim=8)})
    with pretend():
        share_objectives(objectives, device())
        assert {tensor.device for tensor in objectives.state_dict().values()} == {device()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(count(sys.argv[1], Path(sys.argv[2]))) + "\n")
