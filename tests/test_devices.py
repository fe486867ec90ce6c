"""What devices cannot do: float64 on Apple's GPUs, and a copy to the host that need not be waited for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from peav.devices import accumulator_dtype, copied
from peav.objectives.frame import event_frames
from peav.testing import tiny_batch
from peav.training.virtual import ChunkStore
from peav.types import Batch, EventInput, TextInput

PACKAGE = Path(__file__).parents[1] / "peav"

#: Where float64 is meant by name, for what lies on the CPU or what a user asked for; everything else asks `accumulator_dtype`.
ON_THE_CPU = {
    "devices.py": "the one place",
    "checkpoints": "weights of a file, before they are anywhere",
    "cli/detect.py": "probabilities on the host, for a picture",
    "cli/index_export.py": "a column of Parquet",
    "data": "numpy",
    "engine": "numpy",
    "evaluation": "embeddings that were collected on the host",
    "inputs": "results that `embed` has brought to the host",
    "objectives/base.py": "a comparison: what is float64 already",
    "objectives/frame_inputs.py": "events and texts on the host",
    "objectives/frame_mask.py": "what each clip says of each text, which the host finds",
    "search": "numpy",
    "spans.py": "probabilities that it takes to the host itself",
    "testing": "checks in double precision",
    "training/means.py": "losses of a split, brought to the host to be added up",
    "training/precision.py": "64-true, which the user asked for",
}


def doubles(path: Path) -> Iterator[int]:
    """Lines that name float64 or call `.double()`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("float64", "double"):
            yield node.lineno


def test_float64_is_made_on_a_device_in_one_place_alone() -> None:
    found = {str(path.relative_to(PACKAGE)): list(doubles(path)) for path in sorted(PACKAGE.rglob("*.py"))}
    named = {name for name, lines in found.items() if lines}
    allowed = {name for name in named if name in ON_THE_CPU or name.split("/")[0] in ON_THE_CPU}
    assert named == allowed, {name: found[name] for name in named - allowed}
    assert {name for name in ON_THE_CPU if any(n == name or n.startswith(f"{name}/") for n in named)} == set(ON_THE_CPU)


def test_apples_gpus_sum_in_float32() -> None:
    assert accumulator_dtype(torch.device("mps")) == accumulator_dtype("mps:0") == torch.float32
    assert accumulator_dtype("cpu") == accumulator_dtype(torch.device("cuda", 1)) == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_frames_of_events_are_those_of_whole_numbers(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two minutes of boundaries, and a hundredth of a second to either side of them.

    In float32 the rule of the device is patched, what is computed by it is not: the arithmetic of a GPU without float64.
    """
    monkeypatch.setattr("peav.objectives.event_frames.accumulator_dtype", lambda device: dtype)
    phrases = TextInput(*(torch.zeros(1, 1, dtype=torch.int64),) * 2, torch.ones(1, dtype=torch.bool), torch.zeros(1))
    zeros = torch.zeros(3000, dtype=torch.int64)
    for aside in (-1, 0, 1):
        hundredths = 4 * torch.arange(3000) + aside
        onset, offset = (hundredths.double() / 100).float(), ((hundredths + 20).double() / 100).float()
        first, last = event_frames(EventInput(phrases, torch.ones(1) > 0, zeros, zeros, onset, offset), 0.04)
        assert first.dtype == dtype
        assert torch.equal(first.long(), hundredths // 4) and torch.equal(last.long(), -(-(hundredths + 20) // 4))


class Copies(TorchFunctionMode):
    """Writes down every `Tensor.to`: from which device, to which, and whether it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.to:
            target = kwargs.get("device", args[1] if len(args) > 1 else None)
            if isinstance(target, str | torch.device):
                kind = torch.device(target).type
                self.found.append((args[0].device.type, kind, bool(kwargs.get("non_blocking", False))))
        return func(*args, **kwargs)


@pytest.mark.parametrize("target", ["cpu", torch.device("cpu")])
def test_a_batch_that_comes_to_the_host_has_arrived(target: Any) -> None:
    with Copies() as copies:
        tiny_batch(3).to(target)
    assert len(copies.found) > 10 and set(copies.found) == {("cpu", "cpu", False)}


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_chunks_of_a_virtual_batch_have_arrived_before_they_are_kept(storage: Any) -> None:
    with Copies() as copies:
        kept = ChunkStore(storage).keep(tiny_batch(3))
    assert isinstance(kept, Batch | Path) and len(copies.found) > 10
    assert not any(late for _, kind, late in copies.found if kind == "cpu")


def test_memory_that_is_not_page_locked_is_waited_for() -> None:
    with Copies() as copies:
        moved = copied(torch.ones(2), "meta")
    assert moved.device.type == "meta" and copies.found == [("cpu", "meta", False)]


def test_nothing_else_copies_without_waiting() -> None:
    """`peav.host` sends what the host has just made, keeps and does not change."""
    late = [str(p.relative_to(PACKAGE)) for p in sorted(PACKAGE.rglob("*.py")) if "non_blocking" in p.read_text()]
    assert late == ["devices.py", "host.py"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_comes_from_a_gpu_is_whole_at_once() -> None:
    device = torch.device("cuda")
    batch = tiny_batch(3).pin_memory().to(device)
    busy = torch.randn(8192, 8192, device=device)
    for _ in range(20):
        busy = busy @ busy / 8192
    assert batch.video is not None
    late = Batch(
        batch.ids, video=type(batch.video)(**{**vars(batch.video), "group": batch.video.group + busy.isfinite().sum()})
    )
    assert late.to("cpu").video.group.min() > 10**7  # type: ignore[union-attr]
