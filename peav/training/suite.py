"""A suite of published tasks that is run while a model trains: its numbers are logged, and the best checkpoint is kept."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from peav import distributed
from peav.evaluation.collect import PassOptions
from peav.evaluation.models import PeavModel
from peav.evaluation.result import TABLE, write_result
from peav.evaluation.suite import LOWER_IS_BETTER, SuiteError, Task, load_suite
from peav.evaluation.suite_report import suite_markdown, suite_results, why
from peav.evaluation.suite_run import SuiteResult, run_suite
from peav.inputs import Precision
from peav.suggest import suggest
from peav.training.boundary import at_step_end
from peav.training.evaluated import evaluated_model
from peav.training.module import PeavModule
from peav.training.random_state import ProcessRandom
from peav.training.saving import SaveRun

log = logging.getLogger(__name__)

#: The share that no process has: data are packed, and nothing but the first batch is embedded.
_PACK = (0, 1 << 30)


class EvaluateSuite(Callback):
    """Runs a suite every so many steps and once more at the end, logs `suite/TASK`, and keeps the checkpoint that is best by one number.

    Training is what it would be without it, to the last bit. Each evaluation writes `suite/step_N/evaluation.json` and a table, which
    `peav compare` reads. Data sets are packed once, before the first step; ranks share the embedding, and the first one scores, so
    that all must see the same folders. A run that goes on from a checkpoint remembers the best.

    Args:
        data: folder in which the data sets lie, as for `peav evaluate --suite`.
        suite: `paper`, `sound`, `music`, `speech`, `video`, `frames`, or a YAML file.
        every_n_steps: optimizer steps between two evaluations.
        keep_best: the task by whose number `best.ckpt` is kept, beside `last.ckpt`; by default no checkpoint is.
        folder: to write; `suite` in the trainer's default_root_dir by default.
        batch_size: clips at once.
        num_workers: processes that decode, on each device, and that pack.
        precision: `auto`, `fp32` or `bf16`.

    Raises:
        FileNotFoundError: if the folder of the data sets is not there.
        ValueError: if `every_n_steps` is no number of steps.
        SuiteError: if the suite cannot be run, or has no task `keep_best`.
    """

    def __init__(
        self,
        data: str,
        suite: str = "paper",
        every_n_steps: int = 1000,
        keep_best: str | None = None,
        folder: str | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be a number of steps, not {every_n_steps}")
        if not Path(data).is_dir():
            raise FileNotFoundError(f"there is no folder {data}: `data` names the folder in which the data sets lie")
        self.root, self.suite, self.every_n_steps, self.folder = Path(data), load_suite(suite), every_n_steps, folder
        tasks = [task.name for task in self.suite.tasks]
        if keep_best is not None and keep_best not in tasks:
            raise SuiteError(
                f"keep_best={keep_best!r} is no task of the suite {self.suite.name!r}. {suggest(keep_best, tasks)}"
            )
        self.keep_best, self.precision = keep_best, precision
        self.how = PassOptions(batch_size=batch_size, num_workers=num_workers, progress=False)
        self.best: float | None = None
        self.best_step: int | None = None
        self._evaluated_at: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns what is remembered of the best."""
        return {"best": self.best, "best_step": self.best_step, "evaluated_at": self._evaluated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers the best of the run that this one goes on with."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self._evaluated_at = state_dict["evaluated_at"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what it cannot evaluate.

        Raises:
            SuiteError: if the weights are spread over devices, or the module is none of peav's.
        """
        _checked(pl_module)
        if stage == "fit" and isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise SuiteError(
                "EvaluateSuite needs the whole model on each device, which FSDP spreads over them: leave it out, and run "
                "`peav evaluate --suite` on the checkpoints"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Packs the data sets, and finds what is missing before a step is made.

        Raises:
            SuiteError: if no task can be measured, or the one that decides cannot.
        """
        problem = ""
        if trainer.is_global_zero:
            random = ProcessRandom.now(pl_module.device)
            model = self._model(trainer, pl_module)
            packed = self._packed(trainer)
            found = run_suite(self.suite, model, self.root, packed, packed / "embeddings", self.how, share=_PACK)
            shutil.rmtree(packed / "embeddings", ignore_errors=True)
            problem = self._problem(found)
            random.restore(pl_module.device)
        if problem := distributed.gather_objects(problem)[0]:
            raise SuiteError(problem)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates at the end of a step, where it is time to."""
        if trainer.global_step % self.every_n_steps == 0 and at_step_end(trainer):
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates what training ended with."""
        self._evaluate(trainer, pl_module)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._evaluated_at or step == 0:
            return
        self._evaluated_at = step
        random = ProcessRandom.now(pl_module.device)
        model = self._model(trainer, pl_module)
        packed, store = self._packed(trainer), self._store(trainer)
        if trainer.world_size > 1:
            share = (trainer.global_rank, trainer.world_size)
            run_suite(self.suite, model, self.root, packed, store, self.how, share=share)
            trainer.strategy.barrier("embedded")
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            found = run_suite(self.suite, model, self.root, packed, store, self.how)
            values = {name: result.value for name, result in found.results.items()}
            self._write(found, model, trainer)
            # The embeddings of weights that the next step changes; a digest names them, and none would be found again.
            shutil.rmtree(store)
        values = distributed.gather_objects(values)[0]
        random.restore(pl_module.device)
        named = {f"suite/{name}": value for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(named, step=step)
            logger.save()  # a run that is killed now and goes on from here does not evaluate again
        self._keep(trainer, values, step)

    def _keep(self, trainer: Trainer, values: dict[str, float], step: int) -> None:
        """Saves the checkpoint if it is the best."""
        if self.keep_best is None:
            return
        if self.keep_best not in values:
            raise SuiteError(
                f"{self.keep_best}, by which the best checkpoint is kept, could not be measured at step {step}"
            )
        value = values[self.keep_best]
        task = next(task for task in self.suite.tasks if task.name == self.keep_best)
        sign = -1 if task.metric.startswith(LOWER_IS_BETTER) else 1
        if self.best is None or sign * value > sign * self.best:
            self.best, self.best_step = value, step
            place = self.best_path(trainer)
            trainer.save_checkpoint(place, weights_only=False)
            log.info("step %d is the best so far by %s, %.4f: %s", step, self.keep_best, value, place)

    @staticmethod
    def best_path(trainer: Trainer) -> Path:
        """Returns where the best checkpoint lies: beside `last.ckpt`."""
        savers = [callback for callback in getattr(trainer, "callbacks", ()) if isinstance(callback, SaveRun)]
        folder = savers[0].folder_in(trainer) if savers else Path(trainer.default_root_dir) / "checkpoints"
        return folder / "best.ckpt"

    def _model(self, trainer: Trainer, module: LightningModule) -> PeavModel:
        modes = [(part, part.training) for part in module.modules()]
        data = dict(getattr(getattr(trainer, "datamodule", None), "hparams", {}))
        try:
            return evaluated_model(_checked(module), data, Path(trainer.default_root_dir).name, self.precision)
        finally:
            for part, training in modes:
                part.training = training  # the model of an evaluation is made in evaluation mode

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder is not None else Path(trainer.default_root_dir) / "suite"

    def _packed(self, trainer: Trainer) -> Path:
        return self._folder(trainer) / "prepared"

    def _store(self, trainer: Trainer) -> Path:
        return self._step_folder(trainer) / "embeddings"

    def _step_folder(self, trainer: Trainer) -> Path:
        return self._folder(trainer) / f"step_{trainer.global_step}"

    def _problem(self, found: SuiteResult) -> str:
        """Says why there would be nothing to log, or to choose by; "" where all is well."""
        out: list[Task] = [t for t in self.suite.tasks if t.name in found.skipped or t.dataset.name in found.missing]
        for task in out:
            if task.name == self.keep_best:
                return (
                    f"{task.name}, by which the best checkpoint is to be kept, cannot be measured: {why(found, task)}"
                )
        if len(out) == len(self.suite.tasks):
            reasons = "; ".join(f"{task.name}: {why(found, task)}" for task in out[:3])
            return f"no task of {self.suite.name!r} can be measured on {self.root}: {reasons}"
        for task in out:
            log.warning("task %s is left out: %s", task.name, why(found, task))
        return ""

    def _write(self, found: SuiteResult, model: PeavModel, trainer: Trainer) -> None:
        folder = self._step_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        write_result(folder, suite_results(found, model, self.how, str(trainer.default_root_dir)), *found.queries())
        (folder / TABLE).write_text(suite_markdown(found, model.name), encoding="utf-8")


def _checked(module: LightningModule) -> PeavModule:
    if not isinstance(module, PeavModule):
        raise SuiteError(f"EvaluateSuite evaluates a PeavModule, not a {type(module).__name__}")
    return module
