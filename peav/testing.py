"""Public contract checks for plugins: call them from your own tests.

    from peav.testing import check_encoder, check_objective

    def test_my_objective():
        check_objective(lambda: MyObjective("audio", "video"))

Every encoder and objective registered in this repository passes the same checks.
"""

from __future__ import annotations

import copy
import pickle
import queue
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from peav.encoders.base import Encoder
from peav.masking import lengths_to_mask
from peav.objectives.base import Objective
from peav.types import AudioInput, Batch, Embedding, EventInput, Features, ObjectiveOutput, TextInput, VideoInput

__all__ = [
    "GlooPool",
    "check_encoder",
    "check_objective",
    "check_objective_on_ranks",
    "tiny_batch",
    "tiny_embeddings",
    "tiny_targets",
]

SAMPLE_RATE = 16000
_NUM_FRAMES = 10  # of tiny embeddings, 40 ms each


def _require(condition: bool | Tensor, message: str) -> None:
    if not bool(condition):
        raise AssertionError(message)


# --- tiny inputs ---------------------------------------------------------------------------------------------------------------


def tiny_text(num_rows: int, vocab_size: int = 32, length: int = 7, seed: int = 0) -> TextInput:
    """Makes random token ids for `num_rows` different texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    mask = lengths_to_mask(torch.arange(num_rows) % (length - 2) + 3, length)
    ids = torch.randint(5, vocab_size, mask.shape, generator=generator) * mask
    present = torch.ones(num_rows, dtype=torch.bool)
    return TextInput(
        ids, mask, present, torch.arange(num_rows) + 100 * seed, tuple(f"text {i}" for i in range(num_rows))
    )


def tiny_events(num_clips: int, num_phrases: int = 3) -> EventInput:
    """Makes events for `num_clips` clips: clip i holds phrase i mod `num_phrases`, from 0.04 s to 0.2 s; the last clip is unknown."""
    clip = torch.arange(num_clips - 1)
    annotated = torch.ones(num_clips, dtype=torch.bool)
    annotated[-1] = False
    return EventInput(
        phrases=tiny_text(num_phrases, seed=9),
        annotated=annotated,
        clip=clip,
        phrase=clip % num_phrases,
        onset=torch.full((num_clips - 1,), 0.04),
        offset=torch.full((num_clips - 1,), 0.2),
    )


def tiny_batch(num_clips: int = 4, vocab_size: int = 32, image_size: int = 32, seed: int = 0) -> Batch:
    """Makes a batch of random clips of different lengths: audio at 16 kHz, frames, three captions, events."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.ones(num_clips, dtype=torch.bool)
    samples = torch.arange(num_clips) * 640 + 6000
    audio_mask = lengths_to_mask(samples)
    video_mask = lengths_to_mask(torch.arange(num_clips) % 3 + 3)
    audio = torch.randn(audio_mask.shape, generator=generator) * 0.1 * audio_mask
    shape = (*video_mask.shape, 3, image_size, image_size)
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    frames = frames * video_mask[..., None, None, None]
    rows = torch.arange(num_clips)
    return Batch(
        ids=tuple(f"clip-{i}" for i in range(num_clips)),
        audio=AudioInput(audio, audio_mask, present, rows, SAMPLE_RATE),
        video=VideoInput(frames, video_mask, present, rows, torch.full((num_clips,), 0.5)),
        captions={
            kind: tiny_text(num_clips, vocab_size, seed=index + 1)
            for index, kind in enumerate(("audio", "video", "audio_video"))
        },
        events=tiny_events(num_clips),
        duration=samples / SAMPLE_RATE,
    )


def tiny_embeddings(objective: Objective, num_clips: int = 6, dim: int = 8, seed: int = 0) -> dict[str, Embedding]:
    """Makes random unit embeddings in float64 for what an objective requires; frames of different lengths where it wants them."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = {}
    for index, name in enumerate(objective.requires):
        num_rows = 3 if name == "text_event" else num_clips
        pooled = torch.randn(num_rows, dim, generator=generator, dtype=torch.float64)
        frames = mask = None
        if name in objective.frames:
            mask = lengths_to_mask(torch.arange(num_rows) % 3 + _NUM_FRAMES - 2, _NUM_FRAMES)
            frames = torch.randn(num_rows, _NUM_FRAMES, dim, generator=generator, dtype=torch.float64)
            frames = torch.nn.functional.normalize(frames, dim=-1) * mask.unsqueeze(-1)
        embeddings[name] = Embedding(
            pooled=torch.nn.functional.normalize(pooled, dim=-1),
            present=torch.ones(num_rows, dtype=torch.bool),
            group=torch.arange(num_rows) + 1000 * index,
            frames=frames,
            mask=mask,
            frame_seconds=0.04 if frames is not None else None,
        )
    return embeddings


def tiny_targets(objective: Objective, num_clips: int = 6) -> dict[str, Any]:
    """Makes the targets an objective declares, out of a tiny batch."""
    batch = tiny_batch(num_clips)
    return {target: batch.read(target) for target in objective.targets}


# --- objectives ----------------------------------------------------------------------------------------------------------------

MakeTargets = Callable[[Objective, int], Mapping[str, Any]]


def check_objective(make: Callable[[], Objective], make_targets: MakeTargets = tiny_targets) -> None:
    """Runs the contract of objectives on one process.

    The loss is a finite scalar that depends on every embedding; its gradient agrees with finite differences in float64; absent rows,
    whatever they hold, equal deleted rows; padded frames change nothing; the order of the clips changes nothing; negatives get
    gradient; a batch without any valid pair is reported (`count` 0) with a loss of 0 and finite gradients; autocast changes nothing.

    Args:
        make: builds the objective.
        make_targets: builds its targets for a number of clips, if `peav.testing.tiny_targets` does not fit.

    Raises:
        AssertionError: naming the first clause that does not hold.
    """
    objective = make().double()
    _require(objective.requires, "an objective must name the embeddings it `requires`")
    targets = make_targets(objective, 6)
    embeddings = tiny_embeddings(objective)
    output = _run(objective, embeddings, targets)
    _require(output.loss.ndim == 0 and torch.isfinite(output.loss), "the loss must be a finite scalar")
    _require(output.count > 0, "`count` must count the valid positives")
    _check_gradient(objective, embeddings, targets)
    _check_absent(objective, embeddings, targets)
    _check_order(objective, embeddings, targets)
    _check_empty(objective, embeddings, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = objective.float()(_float(embeddings), targets).loss
    plain = objective(_float(embeddings), targets).loss
    _require(torch.allclose(cast.float(), plain, rtol=1e-5), f"autocast changes the loss: {cast} against {plain}")


def _run(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
    return objective(embeddings, targets)


def _float(embeddings: Mapping[str, Embedding]) -> dict[str, Embedding]:
    return {
        name: replace(e, pooled=e.pooled.float(), frames=None if e.frames is None else e.frames.float())
        for name, e in embeddings.items()
    }


def _leaves(
    objective: Objective, embeddings: Mapping[str, Embedding]
) -> tuple[dict[str, Embedding], dict[str, Tensor]]:
    """Copies the embeddings with leaves that require grad: the frames where the objective wants them, else the pooled vectors."""
    copies, leaves = {}, {}
    for name, embedding in embeddings.items():
        if embedding.frames is not None:
            leaves[name] = embedding.frames.detach().clone().requires_grad_()
            copies[name] = replace(embedding, frames=leaves[name])
        else:
            leaves[name] = embedding.pooled.detach().clone().requires_grad_()
            copies[name] = replace(embedding, pooled=leaves[name])
    return copies, leaves


def _gradients(
    objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    copies, leaves = _leaves(objective, embeddings)
    loss = _run(objective, copies, targets).loss
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = {}
    for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
        gradients[name] = torch.zeros_like(leaf) if gradient is None else gradient
    return loss.detach(), gradients


def _check_gradient(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    _, gradients = _gradients(objective, embeddings, targets)
    for name, gradient in gradients.items():
        _require(gradient.abs().sum() > 0, f"the loss does not depend on {name!r}")
    copies, leaves = _leaves(objective, embeddings)
    names = list(leaves)

    def loss(*values: Tensor) -> Tensor:
        changed = {
            name: replace(copies[name], **{"frames" if copies[name].frames is not None else "pooled": value})
            for name, value in zip(names, values, strict=True)
        }
        return _run(objective, changed, targets).loss

    torch.autograd.gradcheck(loss, tuple(leaves.values()))
    parameters = [p for p in objective.parameters() if p.requires_grad]
    for parameter in parameters:
        gradient = torch.autograd.grad(_run(objective, embeddings, targets).loss, parameter, allow_unused=True)[0]
        _require(
            gradient is not None and torch.isfinite(gradient).all(), "a parameter of the objective gets no gradient"
        )
    for name in names:
        if name == "text_event":
            continue
        # A clip of which only this embedding is there has no positive: what gradient it gets, it gets as a negative.
        others = {
            other: embeddings[other]
            if other in (name, "text_event")
            else _absent(embeddings[other], [0], garbage=False)
            for other in names
        }
        if len([other for other in names if other != "text_event"]) > 1:
            _, gradients = _gradients(objective, others, targets)
            _require(gradients[name][0].abs().sum() > 0, f"negatives of {name!r} get no gradient")


def _absent(embedding: Embedding, rows: Sequence[int], garbage: bool = True) -> Embedding:
    present, pooled, frames = embedding.present.clone(), embedding.pooled.clone(), embedding.frames
    present[list(rows)] = False
    if garbage:
        pooled[list(rows)] = 1e4
        if frames is not None:
            frames = frames.clone()
            frames[list(rows)] = 1e4
    return replace(embedding, present=present, pooled=pooled, frames=frames)


def _take(embedding: Embedding, rows: Tensor) -> Embedding:
    taken = {
        field.name: getattr(embedding, field.name)[rows]
        for field in fields(embedding)
        if isinstance(getattr(embedding, field.name), Tensor) and getattr(embedding, field.name).ndim
    }
    return replace(embedding, **taken)


def _take_targets(targets: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    taken = {}
    for name, target in targets.items():
        if isinstance(target, EventInput):
            place = torch.full((len(target.annotated),), -1)
            place[rows] = torch.arange(len(rows))
            kept = place[target.clip] >= 0
            taken[name] = replace(
                target,
                annotated=target.annotated[rows],
                clip=place[target.clip][kept],
                phrase=target.phrase[kept],
                onset=target.onset[kept],
                offset=target.offset[kept],
            )
        else:
            changed = {
                field.name: getattr(target, field.name)[rows]
                for field in fields(target)
                if isinstance(getattr(target, field.name), Tensor)
            }
            taken[name] = replace(target, **changed)
    return taken


def _clip_rows(embeddings: Mapping[str, Embedding], rows: Tensor) -> dict[str, Embedding]:
    return {name: e if name == "text_event" else _take(e, rows) for name, e in embeddings.items()}


def _check_absent(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    num_clips = max(len(e.pooled) for name, e in embeddings.items() if name != "text_event")
    absent = {name: e if name == "text_event" else _absent(e, [1, 4]) for name, e in embeddings.items()}
    rows = torch.tensor([row for row in range(num_clips) if row not in (1, 4)])
    loss, gradients = _gradients(objective, absent, targets)
    deleted, _ = _gradients(objective, _clip_rows(embeddings, rows), _take_targets(targets, rows))
    _require(
        torch.allclose(loss, deleted, rtol=1e-12), f"absent rows do not equal deleted rows: {loss} against {deleted}"
    )
    for name, gradient in gradients.items():
        if name != "text_event":
            _require(gradient[[1, 4]].abs().sum() == 0, f"absent rows of {name!r} get a gradient")
    for name, embedding in embeddings.items():
        if embedding.frames is None or embedding.mask is None:
            continue
        noisy = torch.where(embedding.mask.unsqueeze(-1), embedding.frames, 1e4)
        changed, gradients = _gradients(objective, {**embeddings, name: replace(embedding, frames=noisy)}, targets)
        plain, _ = _gradients(objective, embeddings, targets)
        _require(torch.equal(changed, plain), f"padded frames of {name!r} change the loss")
        _require(gradients[name][~embedding.mask].abs().sum() == 0, f"padded frames of {name!r} get a gradient")


def _check_order(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    num_clips = max(len(e.pooled) for name, e in embeddings.items() if name != "text_event")
    rows = torch.randperm(num_clips, generator=torch.Generator().manual_seed(3))
    plain, gradients = _gradients(objective, embeddings, targets)
    moved, moved_gradients = _gradients(objective, _clip_rows(embeddings, rows), _take_targets(targets, rows))
    _require(torch.allclose(plain, moved, rtol=1e-12), "the order of the clips changes the loss")
    for name, gradient in gradients.items():
        expected = gradient if name == "text_event" else gradient[rows]
        _require(torch.allclose(moved_gradients[name], expected, rtol=1e-9, atol=1e-12), f"order changes d/d {name!r}")


def _check_empty(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    nothing = {name: _absent(e, range(len(e.pooled))) for name, e in embeddings.items()}
    copies, leaves = _leaves(objective, nothing)
    output = _run(objective, copies, targets)
    _require(output.count == 0, "a batch in which nothing is present must be reported with count 0")
    _require(output.loss == 0, f"a batch in which nothing is present must have loss 0, not {output.loss}")
    for gradient in torch.autograd.grad(output.loss, list(leaves.values()), allow_unused=True):
        _require(
            gradient is None or torch.isfinite(gradient).all(),
            "a batch in which nothing is present gives NaN gradients",
        )


# --- ranks ---------------------------------------------------------------------------------------------------------------------


class GlooPool:
    """Processes that hold a gloo process group on loopback and run functions; one pool serves a whole test session.

    Args:
        world_size: number of processes.
        timeout_seconds: after which a call that does not come back raises.
    """

    def __init__(self, world_size: int = 2, timeout_seconds: float = 120.0) -> None:
        self.world_size, self.timeout_seconds = world_size, timeout_seconds
        context = mp.get_context("spawn")
        self._tasks: list[Queue[Any]] = [context.Queue() for _ in range(world_size)]
        self._results: Queue[Any] = context.Queue()
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._store = store
        self._processes = [
            context.Process(
                target=_gloo_worker, args=(rank, world_size, store.port, self._tasks[rank], self._results), daemon=True
            )
            for rank in range(world_size)
        ]
        for process in self._processes:
            process.start()

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Calls `function(rank, *args)` on every rank and returns the results in the order of the ranks.

        Args:
            function: a module-level function.
            args: picklable arguments.

        Raises:
            RuntimeError: if a rank raised or did not answer in time.
        """
        for tasks in self._tasks:
            tasks.put(pickle.dumps((function, args)))
        results: dict[int, Any] = {}
        for _ in range(self.world_size):
            try:
                rank, ok, value = self._results.get(timeout=self.timeout_seconds)
            except queue.Empty:
                raise RuntimeError(
                    f"no answer from all ranks within {self.timeout_seconds} s; got {sorted(results)}"
                ) from None
            if not ok:
                raise RuntimeError(f"rank {rank} failed:\n{value}")
            results[rank] = pickle.loads(value)
        return [results[rank] for rank in range(self.world_size)]

    def close(self) -> None:
        """Ends the processes."""
        for tasks in self._tasks:
            tasks.put(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()

    def __enter__(self) -> GlooPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _gloo_worker(rank: int, world_size: int, port: int, tasks: Any, results: Any) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    while (task := tasks.get()) is not None:
        try:
            function, args = pickle.loads(task)
            results.put((rank, True, pickle.dumps(function(rank, *args))))
        except BaseException:
            results.put((rank, False, traceback.format_exc()))
    dist.destroy_process_group()


def check_objective_on_ranks(make: Callable[[], Objective], pool: GlooPool, num_clips: int = 6) -> None:
    """Checks that ranks with uneven numbers of clips and of valid positives equal one process: loss, gradients, parameters.

    Args:
        make: builds the objective; picklable, so a module-level function or a functools.partial.
        pool: the processes.
        num_clips: of the global batch.

    Raises:
        AssertionError: if they differ by more than 1e-12 in float64.
    """
    objective = make().double()
    embeddings = {
        name: e if name == "text_event" else _absent(e, [0])
        for name, e in tiny_embeddings(objective, num_clips).items()
    }
    loss, gradients = _gradients(objective, embeddings, tiny_targets(objective, num_clips))
    parameters = _parameter_gradients(objective, embeddings, tiny_targets(objective, num_clips))
    parts = pool.run(_rank_gradients, make, embeddings, num_clips)
    mean_loss = sum(part[0] for part in parts) / len(parts)
    _require(
        torch.allclose(mean_loss, loss, rtol=1e-12), f"the mean loss over ranks is {mean_loss}, on one process {loss}"
    )
    for name, expected in gradients.items():
        # Each rank back-propagates world_size times its share, which DDP's mean undoes for the encoders' parameters.
        if name == "text_event":
            found = sum(part[1][name] for part in parts) / len(parts)
        else:
            found = torch.cat([part[1][name] for part in parts]) / len(parts)
        _require(
            torch.allclose(found, expected, rtol=1e-10, atol=1e-12),
            f"d/d {name!r} differs between ranks and one process",
        )
    for index, expected in enumerate(parameters):
        found = sum(part[2][index] for part in parts) / len(parts)
        _require(
            torch.allclose(found, expected, rtol=1e-10, atol=1e-12), "a parameter's gradient differs from one process's"
        )


def _parameter_gradients(objective: Objective, embeddings: Any, targets: Any) -> list[Tensor]:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    return list(torch.autograd.grad(objective(embeddings, targets).loss, parameters)) if parameters else []


def _rank_gradients(rank: int, make: Callable[[], Objective], embeddings: Any, num_clips: int) -> Any:
    objective = make().double()
    bounds = [0, 2] if rank == 0 else [2, num_clips]  # uneven on purpose
    rows = torch.arange(*bounds)
    own = _clip_rows(embeddings, rows)
    targets = _take_targets(tiny_targets(objective, num_clips), rows)
    loss, gradients = _gradients(objective, own, targets)
    return loss, gradients, _parameter_gradients(objective, own, targets)


# --- encoders ------------------------------------------------------------------------------------------------------------------


def check_encoder(make: Callable[[], Encoder], batch: Batch | None = None, atol: float = 1e-5) -> None:
    """Runs the contract of encoders.

    The features have the declared names, dimensions and rows; garbage in padded slots, the order and the company of a clip change
    nothing; clips that lack the input come out as not present, without NaN; every trainable parameter gets a gradient.

    Args:
        make: builds the encoder, which should have no dropout.
        batch: clips to encode; `tiny_batch()` by default.
        atol: tolerance of "changes nothing", for features of unit size.

    Raises:
        AssertionError: naming the first clause that does not hold.
    """
    torch.manual_seed(0)
    encoder = make()
    _require(encoder.provides, "an encoder must say what it `provides`")
    batch = batch if batch is not None else tiny_batch()
    names = list(encoder.provides)
    inputs = _encoder_inputs(encoder, batch)
    outputs = encoder(inputs, names)
    _require(set(outputs) == set(names), f"asked for {names}, the encoder returned {sorted(outputs)}")
    for name, feature in outputs.items():
        rows = len(inputs["events"].phrases.group) if name == "text_event" else len(batch)
        _require(
            feature.pooled.shape == (rows, encoder.dims[name]),
            f"pooled {name!r} is {tuple(feature.pooled.shape)}, declared ({rows}, {encoder.dims[name]})",
        )
        _require(feature.present.dtype == torch.bool and len(feature.present) == rows, f"`present` of {name!r} is off")
        if feature.frames is not None:
            _require(
                feature.mask is not None and feature.frame_seconds is not None, f"frames of {name!r} need mask and hop"
            )
            _require(feature.frames.shape[:2] == feature.mask.shape, f"frames and mask of {name!r} differ")
    single = encoder(inputs, names[:1])
    _require(set(single) == {names[0]}, "only the names asked for may be computed")

    _same(outputs, encoder(_garbage(inputs), names), atol, "garbage in padded slots changes")
    order = torch.tensor([2, 0, 3, 1])
    _same(
        {name: f if name == "text_event" else _take_features(f, order) for name, f in outputs.items()},
        encoder({key: _take_input(value, order) for key, value in inputs.items()}, names),
        atol,
        "the order of the clips changes",
    )
    _same(
        {name: f if name == "text_event" else _take_features(f, order[:1]) for name, f in outputs.items()},
        encoder({key: _take_input(value, order[:1]) for key, value in inputs.items()}, names),
        atol,
        "the company of a clip changes",
    )
    _check_absent_inputs(encoder, inputs, names, outputs, atol)
    loss = sum(
        (f.pooled.square().mean() + f.pooled[..., :1].sum() + (0 if f.frames is None else f.frames[..., :1].sum()))
        for f in encoder(inputs, names).values()
    )
    parameters = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    if parameters:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)  # type: ignore[arg-type]
        for name, gradient in zip(parameters, gradients, strict=True):
            _require(
                gradient is not None and gradient.abs().sum() > 0, f"the trainable parameter {name!r} gets no gradient"
            )


def _encoder_inputs(encoder: Encoder, batch: Batch) -> dict[str, Any]:
    sources = {source for reads in encoder.provides.values() for source in reads}
    inputs: dict[str, Any] = {}
    for index, source in enumerate(sorted(sources)):
        if source.startswith("features."):
            name = source.removeprefix("features.")
            inputs[source] = _tiny_features(len(batch), encoder.input_dims.get(name, 16), seed=index)
        else:
            inputs[source] = batch.read(source)
    return inputs


def _tiny_features(num_rows: int, dim: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    mask = lengths_to_mask(torch.arange(num_rows) % 3 + 4 + seed)
    frames = torch.randn(*mask.shape, dim, generator=generator) * mask.unsqueeze(-1)
    pooled = torch.randn(num_rows, dim, generator=generator)
    return Features(pooled, torch.ones(num_rows, dtype=torch.bool), torch.arange(num_rows), frames, mask, 0.04)


def _take_input(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Features):
        return _take_features(value, rows)
    if isinstance(value, EventInput):
        return _take_targets({"events": value}, rows)["events"]
    changed = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, Tensor) and item.ndim:
            changed[field.name] = item[rows]
    return replace(value, **changed)


def _take_features(feature: Features, rows: Tensor) -> Features:
    return _take_input_fields(feature, rows)


def _take_input_fields(feature: Features, rows: Tensor) -> Features:
    changed = {
        field.name: getattr(feature, field.name)[rows]
        for field in fields(feature)
        if isinstance(getattr(feature, field.name), Tensor) and getattr(feature, field.name).ndim
    }
    return replace(feature, **changed)


def _garbage(inputs: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, AudioInput):
            changed[key] = replace(value, samples=torch.where(value.mask, value.samples, torch.nan))
        elif isinstance(value, VideoInput):
            changed[key] = replace(value, frames=torch.where(value.mask[..., None, None, None], value.frames, 255))
        elif isinstance(value, TextInput):
            changed[key] = replace(value, input_ids=torch.where(value.mask, value.input_ids, 7))
        elif isinstance(value, EventInput):
            phrases = value.phrases
            ids = torch.where(phrases.mask, phrases.input_ids, 7)
            changed[key] = replace(value, phrases=replace(phrases, input_ids=ids))
        elif isinstance(value, Features) and value.frames is not None and value.mask is not None:
            changed[key] = replace(value, frames=torch.where(value.mask.unsqueeze(-1), value.frames, 1e3))
        else:
            changed[key] = copy.copy(value)
    return changed


def _same(left: Mapping[str, Features], right: Mapping[str, Features], atol: float, what: str) -> None:
    for name, expected in left.items():
        found = right[name]
        _require(torch.allclose(found.pooled, expected.pooled, atol=atol, rtol=1e-4), f"{what} the pooled {name!r}")
        if expected.frames is not None and expected.mask is not None and found.frames is not None:
            # Padding may be longer in one batch than in the other; the valid frames count.
            width = min(found.frames.shape[1], expected.frames.shape[1])
            valid = expected.mask[:, :width].unsqueeze(-1)
            a, b = found.frames[:, :width] * valid, expected.frames[:, :width] * valid
            _require(torch.allclose(a, b, atol=atol, rtol=1e-4), f"{what} the frames of {name!r}")


def _check_absent_inputs(
    encoder: Encoder, inputs: Mapping[str, Any], names: list[str], outputs: Mapping[str, Features], atol: float
) -> None:
    gone: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, EventInput):
            gone[key] = value
            continue
        present = value.present.clone()
        present[1] = False
        changes: dict[str, Any] = {"present": present}
        if getattr(value, "mask", None) is not None:
            mask = value.mask.clone()
            mask[1] = False
            changes["mask"] = mask
        gone[key] = replace(value, **changes)
    found = encoder(gone, names)
    for name, feature in found.items():
        if name == "text_event":
            continue
        _require(
            not feature.present[1] and feature.present[[0, 2, 3]].all(),
            f"`present` of {name!r} ignores a missing input",
        )
        _require(torch.isfinite(feature.pooled).all(), f"a missing input makes {name!r} NaN")
        rows = torch.tensor([0, 2, 3])
        _same(
            {name: _take_features(outputs[name], rows)},
            {name: _take_features(feature, rows)},
            atol,
            "a missing clip changes",
        )
