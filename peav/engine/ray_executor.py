"""The executor `ray`: actors of a Ray cluster that claim parts, as processes do. Ray says where they run, and nothing else.

What is done, by whom, and what is left stays in the folder of the job, which all nodes must see: an actor that is lost is replaced, a
driver that is killed takes its actors along, and the next run goes on from what is there, with this executor or another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peav.engine.execution import Execution, Run
from peav.engine.job import JobSpec
from peav.engine.progress import Step, Tally
from peav.engine.stage import EngineError, EngineStop
from peav.engine.work import work_alone
from peav.lazy import import_extra
from peav.types import Seconds

_log = logging.getLogger(__name__)

#: Time between two looks at which parts are done.
POLL_SECONDS: Seconds = 1.0

#: So many lost actors, one after another without a part that was finished, end the run; of more than half as many workers, twice their
#: number, for a node takes all of its actors along.
MAX_LOST = 20


def import_ray() -> Any:
    """Returns Ray, which sends no statistics home.

    Raises:
        ImportError: if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return import_extra("ray", "ray", "the executor ray")


def shares(nodes: Sequence[Mapping[str, float]], workers: int, gpus: float) -> tuple[float, float]:
    """Returns the processors and the GPUs that each actor asks for, so that all of them fit: one that does not would wait for ever.

    An actor runs on one node, and a part of a GPU is a part of one GPU: what is left over on two nodes holds none.

    Args:
        nodes: what each has.
        workers: actors.
        gpus: that each wants, a part of one or several.

    Raises:
        ValueError: if there are too few GPUs; says how many actors fit.

    >>> shares([{"CPU": 1.0}], 4, 0.0), shares([{"CPU": 64.0, "GPU": 8.0}], 16, 0.5)
    ((0.25, 0.0), (1.0, 0.5))
    >>> shares([{"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}], 4, 0.0)
    (0.5, 0.0)
    """
    there = [int(node.get("GPU", 0.0)) for node in nodes]
    fit = [_with_gpus(number, gpus) if gpus else workers for number in there]
    if sum(fit) < workers:
        raise ValueError(
            f"{workers} workers with {gpus:g} GPUs each do not fit on the {sum(there)} GPUs of the cluster: give --workers "
            f"{sum(fit)}, or fewer --gpus"
            if sum(fit)
            else f"no node of the cluster has {gpus:g} GPUs, which --gpus asks for"
            if sum(there)
            else f"the cluster has no GPU, and --gpus is {gpus:g}"
        )
    hundredths = [round(node.get("CPU", 0.0) * 100) for node in nodes]
    for each in range(100, 0, -1):
        if sum(min(cpus // each, most) for cpus, most in zip(hundredths, fit, strict=True)) >= workers:
            return each / 100, gpus
    return 0.0, gpus


def _with_gpus(number: int, gpus: float) -> int:
    """Returns how many actors the GPUs of a node hold."""
    return number * int(1 / gpus + 1e-9) if gpus <= 1 else int(number / gpus)


def run_with_ray(run: Run, execution: Execution, tally: Tally) -> None:
    """Computes the parts of a job by actors.

    A cluster is joined where `RAY_ADDRESS` names one, else one of this machine is started.

    Args:
        run: of the job.
        execution: how many actors, and what each asks for.
        tally: is told which parts are done.

    Raises:
        EngineStop: if a stage cannot work at all.
        EngineError: if actors are lost again and again, or one fails.
        ValueError: if the cluster has too few GPUs.
    """
    ray = import_ray()
    own = not ray.is_initialized()
    if own:
        address = (
            os.environ.get("RAY_ADDRESS") or "local"
        )  # without one Ray joins whatever cluster it finds on this machine
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)
    try:
        cpus, gpus = shares(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], execution.workers, execution.gpus
        )
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus)(PartWorker)
        arguments = (run.job.spec, run.since, run.pulse.stale)
        _drive(ray, lambda: actor.remote(*arguments), run, execution.workers, tally)
    finally:
        if own:
            ray.shutdown()


def _drive(ray: Any, start: Callable[[], Any], run: Run, workers: int, tally: Tally) -> None:
    left, lost = list(run.job.parts), 0
    before = {part.name: run.job.tokens_out(part) for part in left}  # of earlier runs
    actors = {}
    for _ in range(min(workers, max(len(left), 1))):
        one = start()
        actors[one.run.remote()] = one
    while actors:
        ended, _ = ray.wait(list(actors), timeout=POLL_SECONDS)
        settled = [part for part in left if run.job.settled(part, run.since)]
        for part in settled:
            tally(Step(part.name, tokens=max(run.job.tokens_out(part) - before[part.name], 0), whole=True))
            left.remove(part)
        lost = 0 if settled else lost
        if not left and not ended:
            break  # whoever is still there waits for a place on a node that was lost
        for reference in ended:
            actors.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayActorError as error:
                lost += 1
                if lost > max(MAX_LOST, 2 * workers):
                    raise EngineError(f"{lost} actors were lost one after another: {error}") from None
                _log.warning("an actor was lost; another takes its place: %s", str(error).splitlines()[0])
                one = start()
                actors[one.run.remote()] = one
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, EngineStop | OSError):
                    raise cause from None
                raise EngineError(f"{type(cause).__name__}: {cause}") from None


class PartWorker:
    """What an actor is: it claims parts until none is left.

    Args:
        spec: of the job.
        since: when the run began.
        stale: seconds without a sign of life after which a process on another machine counts as dead.
    """

    def __init__(self, spec: JobSpec, since: float, stale: Seconds) -> None:
        self._arguments = (spec, since, stale)

    def run(self) -> None:
        """Works until all parts are done."""
        work_alone(*self._arguments)
