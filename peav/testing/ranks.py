"""The contract of objectives on several ranks."""

from __future__ import annotations

import pickle
import queue
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from peav.objectives.base import Objective
from peav.testing.objectives import gradients_of
from peav.testing.rows import absent, clip_rows, require, take_targets
from peav.testing.tiny import tiny_embeddings, tiny_targets


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
    torch.manual_seed(0)  # parameters may begin at random
    objective = make().double()
    embeddings = {
        name: e if name == "text_event" else absent(e, [0]) for name, e in tiny_embeddings(objective, num_clips).items()
    }
    loss, gradients = gradients_of(objective, embeddings, tiny_targets(objective, num_clips))
    parameters = _parameter_gradients(objective, embeddings, tiny_targets(objective, num_clips))
    parts = pool.run(_rank_gradients, make, embeddings, num_clips)
    mean_loss = sum(part[0] for part in parts) / len(parts)
    require(
        torch.allclose(mean_loss, loss, rtol=1e-12), f"the mean loss over ranks is {mean_loss}, on one process {loss}"
    )
    for name, expected in gradients.items():
        # Each rank back-propagates world_size times its share, which DDP's mean undoes for the encoders' parameters.
        if name == "text_event":
            found = sum(part[1][name] for part in parts) / len(parts)
        else:
            found = torch.cat([part[1][name] for part in parts]) / len(parts)
        require(
            torch.allclose(found, expected, rtol=1e-10, atol=1e-12),
            f"d/d {name!r} differs between ranks and one process",
        )
    for index, expected in enumerate(parameters):
        found = sum(part[2][index] for part in parts) / len(parts)
        require(
            torch.allclose(found, expected, rtol=1e-10, atol=1e-12), "a parameter's gradient differs from one process's"
        )


def _parameter_gradients(objective: Objective, embeddings: Any, targets: Any) -> list[Tensor]:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    return list(torch.autograd.grad(objective(embeddings, targets).loss, parameters)) if parameters else []


def _rank_gradients(rank: int, make: Callable[[], Objective], embeddings: Any, num_clips: int) -> Any:
    torch.manual_seed(0)
    objective = make().double()
    bounds = [0, 2] if rank == 0 else [2, num_clips]  # uneven on purpose
    rows = torch.arange(*bounds)
    own = clip_rows(embeddings, rows)
    targets = take_targets(tiny_targets(objective, num_clips), rows)
    loss, gradients = gradients_of(objective, own, targets)
    return loss, gradients, _parameter_gradients(objective, own, targets)
