"""`peav fit` itself, killed and gone on with: the same clips, losses, learning rates and weights, to the last bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
BATCH, STEPS, EPOCHS = 8, 9, 2  # 74 training clips

#: Those of tiny_cpu.yaml, with dropout, so that random numbers matter.
TEXT_OPTIONS = {
    **{"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192},
    **{"initializer_range": 0.1, "attention_dropout": 0.1, "embedding_dropout": 0.1},
}


@dataclass
class Runs:
    """Starts `peav fit` of tiny_cpu.yaml on a small world.

    Attributes:
        data: that was prepared.
        folder: under which runs write, each in one of its own.
        options: of all runs.
        launcher: what stands before `fit` on the command line.
    """

    data: Path
    folder: Path
    options: tuple[str, ...] = ()
    launcher: tuple[str, ...] = (sys.executable, "-m", "peav.cli.main")
    environment: dict[str, str] | None = None

    def words(self, name: str) -> list[str]:
        """Returns the command of a run without what a test adds."""
        return [
            *("fit", f"--config={ROOT / 'experiments/tiny_cpu.yaml'}", f"--data.data={self.data}"),
            f"--model.encoders.text.init_args.tokenizer={self.data / 'tokenizer.json'}",
            *(f"--data.batch_size={BATCH}", f"--trainer.max_epochs={EPOCHS}", "--trainer.limit_val_batches=1"),
            *("--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false"),
            *("--save.every_minutes=1e-6", f"--trainer.default_root_dir={self.folder / name}"),
            f"--model.encoders.text.init_args.options={json.dumps(TEXT_OPTIONS)}",
        ]

    def start(
        self, name: str, *more: str, when: str = "never", number: int = 9, rank: int = 0
    ) -> subprocess.Popen[str]:
        """Starts a run, which saves itself at the end of every step."""
        out = self.folder / name
        recorder = "tests.training.recording.Recorder"
        command = [
            *(*self.launcher, *self.words(name)),
            *(
                f"--trainer.callbacks={recorder}",
                f"--trainer.callbacks.folder={out}",
                f"--trainer.callbacks.when={when}",
            ),
            *(f"--trainer.callbacks.number={number}", f"--trainer.callbacks.rank={rank}"),
            *(*self.options, *more),
        ]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOCAL_", "MASTER_", "WORLD_", "PL_"))}
        environment |= {"OMP_NUM_THREADS": "1", **(self.environment or {})}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, name: str, *more: str, **told: Any) -> tuple[int, str]:
        """Runs to the end and returns the exit status and what was said."""
        return ended(self.start(name, *more, **told))

    def resume(self, name: str, *more: str, **told: Any) -> tuple[int, str]:
        """Goes on from `last.ckpt`."""
        return self.run(name, f"--ckpt_path={self.last(name)}", *more, **told)

    def last(self, name: str) -> Path:
        """Returns the checkpoint of a run."""
        return self.folder / name / "checkpoints/last.ckpt"

    def batches(self, name: str, rank: int = 0) -> list[dict[str, Any]]:
        """Returns what each batch was; of those that were repeated after a kill, all that was seen must be the same."""
        found: dict[int, dict[str, Any]] = {}
        for line in (self.folder / name / f"batches-{rank}.jsonl").read_text().splitlines():
            batch = json.loads(line)
            assert found.setdefault(batch["batch"], batch) == batch, "a batch was repeated otherwise"
        return [found[number] for number in sorted(found)]

    def check(self, calm: str, other: str, ranks: int = 1) -> None:
        """Checks that two runs are one: every batch, and everything in their last checkpoints."""
        for rank in range(ranks):
            expected = self.batches(calm, rank)
            assert self.batches(other, rank) == expected and expected
        saved = [torch.load(self.last(name), weights_only=True) for name in (calm, other)]
        assert list(differences(*saved)) == []


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for a process."""
    output, errors = process.communicate(timeout=400)
    return process.returncode, output + errors


def differences(one: Any, other: Any, where: str = "checkpoint") -> Any:
    """Yields where two checkpoints differ."""
    if isinstance(one, Tensor):
        if not torch.equal(one, other):
            yield where
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield f"{where}: {sorted(set(one) ^ set(other))}"
        # Lightning does not begin anew to count batches of validation where a run goes on at an epoch's end; nothing reads the number.
        for key in (one.keys() & other.keys()) - {"epoch_loop.val_loop.batch_progress"}:
            yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield where
        for index, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{where}[{index}]")
    elif one != other:
        yield f"{where}: {one!r}, {other!r}"


@pytest.fixture
def runs(world: Path, tmp_path: Path) -> Runs:
    return Runs(world, tmp_path)


def test_a_run_killed_in_mid_epoch_goes_on_with_the_same_clips_losses_and_weights(runs: Runs) -> None:
    runs.options = ("--trainer.max_epochs=1", "--data.batch_size=16", "--trainer.limit_val_batches=0")
    calm = runs.start("calm")
    status, said = runs.run("killed", when="batch:2")
    assert status == -signal.SIGKILL, said
    status, said = runs.run("killed")
    assert status == 1 and "holds a run already (last.ckpt): go on with it by --ckpt_path=" in said
    status, said = runs.resume("killed", "--data.num_workers=1")
    assert status == 0, said
    assert ended(calm)[0] == 0
    assert len(runs.batches("calm")) == 4
    runs.check("calm", "killed")


#: When, with how many workers: at the first step, in mid-epoch twice at one place, at an epoch's end before it was saved, at the first
#: step of the next epoch, in its middle, in its validation.
CHAIN = [
    ("batch:1", 0),
    ("batch:3", 2),
    ("batch:0", 1),
    ("epoch:0", 0),
    ("batch:1", 2),
    ("batch:4", 0),
    ("validation:1", 1),
    ("never", 2),
]


@pytest.mark.slow
def test_a_chain_of_kills_is_one_run(runs: Runs) -> None:
    calm = runs.start("calm")
    for index, (when, workers) in enumerate(CHAIN):
        more = [f"--data.num_workers={workers}"] + ([f"--ckpt_path={runs.last('killed')}"] if index else [])
        status, said = runs.run("killed", *more, when=when)
        assert status == (0 if when == "never" else -signal.SIGKILL), f"{when}: {said}"
    assert ended(calm)[0] == 0
    assert [len(runs.batches("calm")), {len(batch["ids"]) for batch in runs.batches("calm")}] == [
        EPOCHS * STEPS,
        {BATCH},
    ]
    runs.check("calm", "killed")


VIRTUAL = ("--model.virtual_batch_size=32", "--model.virtual_batch_storage=disk")


@pytest.mark.slow
@pytest.mark.parametrize("gather", [VIRTUAL, ("--trainer.accumulate_grad_batches=4",)], ids=["virtual", "accumulated"])
def test_a_run_killed_while_batches_are_gathered_gathers_them_again(runs: Runs, gather: tuple[str, ...]) -> None:
    """Nine batches are two whole steps and one of a single batch."""
    runs.options = gather
    calm = runs.start("calm")
    assert runs.run("killed", when="batch:6")[0] == -signal.SIGKILL
    saved = torch.load(runs.last("killed"), weights_only=True)
    assert saved["global_step"] == 1 and saved["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["batches"] == 4
    status, said = runs.resume("killed", when="batch:3", number=int(signal.SIGTERM))
    assert status == 75 and "SIGTERM ended the run after step 2" in said, said
    status, said = runs.resume("killed", when="save:3")
    assert status == 0, said
    assert ended(calm)[0] == 0
    runs.check("calm", "killed")
    # One that was asked for after the first batch of three in the second epoch.
    middle = torch.load(runs.folder / "killed/middle.ckpt", weights_only=True)
    assert middle["global_step"] == 3
    (runs.folder / "middle").mkdir()
    status, said = runs.run("middle", f"--ckpt_path={runs.folder / 'killed/middle.ckpt'}")
    assert status == 0, said
    expected = runs.batches("calm")[STEPS:]
    assert runs.batches("middle") == expected
    assert list(differences(*(torch.load(runs.last(name), weights_only=True) for name in ("calm", "middle")))) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "init_from"])
def test_adapters_and_a_first_checkpoint_are_resumed_too(runs: Runs, kind: str) -> None:
    begin = Runs(runs.data, runs.folder, ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2"))
    assert begin.run("begin")[0] == 0
    runs.options = (f"--model.init_from={begin.last('begin')}",)
    if kind == "lora":
        pytest.importorskip("peft")
        runs.options += ("--model.tune=lora", "--model.lora_rank=2")
    calm = runs.start("calm")
    assert runs.run("killed", when="batch:4")[0] == -signal.SIGKILL
    status, said = runs.resume("killed", "--data.num_workers=2")
    assert status == 0, said
    assert ended(calm)[0] == 0
    runs.check("calm", "killed")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["batch:4", "batch:8", "validation:0", "epoch:0"])
def test_sigterm_saves_at_the_end_of_the_step_and_ends_with_75(runs: Runs, when: str) -> None:
    runs.options = ("--save.every_minutes=0",)
    calm = runs.start("calm")
    status, said = runs.run("ended", when=when, number=int(signal.SIGTERM))
    step = 5 if when == "batch:4" else STEPS
    assert status == 75 and f"SIGTERM ended the run after step {step}; go on with --ckpt_path=" in said, said
    assert "Traceback" not in said
    status, said = runs.resume("ended")
    assert status == 0, said
    assert ended(calm)[0] == 0
    runs.check("calm", "ended")


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(runs: Runs) -> None:
    calm = runs.start("calm")
    assert runs.run("killed", when="saving:4")[0] == -signal.SIGKILL
    assert torch.load(runs.last("killed"), weights_only=True)["global_step"] == 3
    assert [file.name for file in runs.last("killed").parent.iterdir()] != [
        "last.ckpt"
    ]  # what was begun lies beside it
    status, said = runs.resume("killed")
    assert status == 0, said
    assert [file.name for file in runs.last("killed").parent.iterdir()] == ["last.ckpt"]
    assert ended(calm)[0] == 0
    runs.check("calm", "killed")


@pytest.mark.slow
def test_slurm_queues_the_job_again_which_goes_on_by_itself(runs: Runs) -> None:
    calm = runs.start("calm")
    tools = runs.folder / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {runs.folder}/scontrol\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"NTASKS": "1", "JOB_NAME": "train", "JOB_ID": "1234", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    slurm |= {"NODELIST": "localhost", "JOB_NODELIST": "localhost", "NTASKS_PER_NODE": "1"}
    runs.environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    runs.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    status, said = runs.run("queued", when="batch:3", number=int(signal.SIGUSR1))
    assert status == 75 and "SIGUSR1 ended the run after step 4" in said, said
    assert (runs.folder / "scontrol").read_text() == "requeue 1234\n"
    runs.environment["SLURM_RESTART_COUNT"] = "1"
    status, said = runs.run("queued", "--overwrite")
    assert status == 0 and "SLURM has queued this job again: it goes on from" in said, said
    assert ended(calm)[0] == 0
    runs.check("calm", "queued")


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["torchrun", "lightning"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_two_ranks_of_which_one_gets_the_signal(runs: Runs, launch: str, number: signal.Signals) -> None:
    if launch == "torchrun":
        runs.launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
        runs.launcher += ("-m", "peav.cli.main")
    runs.options = (f"--config={ROOT / 'experiments/cluster/ddp.yaml'}", "--trainer.devices=2", "--data.batch_size=4")
    assert runs.run("calm")[0] == 0
    status, said = runs.run("ended", when="batch:4", number=int(number), rank=1)
    if number == signal.SIGTERM:
        assert "SIGTERM ended the run after step 5" in said
        # torchrun says 1 for whatever its processes end with, and names it.
        assert re.search(r"exitcode *: *75", said) if launch == "torchrun" else status == 75, said
    assert status != 0
    status, said = runs.resume("ended", "--data.num_workers=1")
    assert status == 0, said
    runs.check("calm", "ended", ranks=2)
    ids = [[batch["ids"] for batch in runs.batches("calm", rank)] for rank in (0, 1)]
    assert not any(set(a) & set(b) for a, b in zip(*ids, strict=True))
