"""What a run says: nothing that helps nobody, and all that helps. Every line of it is looked at."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from peav.cli.logs import Stderr, quiet_lightning
from tests.cli.test_commands import ROOT, TINY, overrides

#: What may stand in standard error of a run that goes well; a line that is not listed fails, whatever a new version thinks of.
HELPFUL = (
    r"INFO Seed set to \d+",
    r"INFO `Trainer\(limit_\w+=\d+\)` was configured so \d+ batch(es)? will be used\.",
    r"INFO \d+ objectives train: .*",
    r"INFO training: \d+ clips in \d+ buckets of durations",
    r"INFO training: .*\d+ (clips learn their|have both, and learn the) transcript.*",
    r"INFO `Trainer\.fit` stopped: `max_epochs=\d+` reached\.",
    r"INFO (Restoring states|Loaded model weights) from the checkpoint (path )?at .*",
    r"INFO wrote \d+ clips' embeddings .*",
)


def said_by(words: list[str], out: Path) -> list[str]:
    """What a run prints to standard error, in a process of its own."""
    command = [sys.executable, "-m", "peav.cli.main", *words]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=out, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if line.strip()]


def test_every_line_of_a_run_helps(world: Path, tmp_path: Path) -> None:
    options = [f"--config={TINY}", *overrides(world, tmp_path / "run")]
    options.remove("--trainer.logger=false")  # the advertisement of a logger comes with the default one
    lines = said_by(["fit", *options], tmp_path)
    checkpoint = f"--ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}"
    lines += said_by(["predict", *options, checkpoint, "--trainer.limit_predict_batches=1"], tmp_path)
    unknown = [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in HELPFUL)]
    assert not unknown
    for pattern in (HELPFUL[0], HELPFUL[2], HELPFUL[4], HELPFUL[5], HELPFUL[6]):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("💡 Tip: For seamless cloud logging and experiment tracking, try installing [litlogger](...)", False),
        ("GPU available: False, used: False", False),
        ("TPU available: False, using: 0 TPU cores", False),
        ("GPU available: True (cuda), used: False", True),
        ("GPU available: True (cuda), used: True", True),
        ("Using bfloat16 Automatic Mixed Precision (AMP)", True),
    ],
)
def test_devices_are_named_where_there_are_some(message: str, said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    handler = Stderr()
    handler.handle(logging.LogRecord("lightning.pytorch.utilities.rank_zero", logging.INFO, "", 0, message, (), None))
    assert (message in capsys.readouterr().err) is said


def test_one_rank_speaks_and_all_warn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    for level in (logging.INFO, logging.WARNING):
        Stderr().handle(logging.LogRecord("peav.training", level, "", 0, "said", (), None))
    assert capsys.readouterr().err == "WARNING said\n"


def test_deprecations_of_others_are_off_and_those_of_the_users_own_code_are_not() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        quiet_lightning("fit")
        for module in ("lightning.pytorch.utilities._pytree", "litdata.streaming.reader", "my_plugin"):
            warnings.warn_explicit(f"{module} is old", FutureWarning, "file.py", 1, module=module)
        warnings.warn("The 'val_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("The number of training batches (4) is smaller than the logging interval", stacklevel=1)
    assert [str(warning.message).split()[0] for warning in found] == ["my_plugin", "The"]
    assert "logging interval" in str(found[-1].message)
