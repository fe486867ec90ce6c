"""LightningCLI with peav's plugins: short class names, nothing built that no objective needs, messages that help."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import peav.encoders
import peav.objectives  # noqa: F401  registers the plugins
from peav import registry
from peav.checkpoints.pickled import check_pickled
from peav.cli.logs import quiet_lightning, set_up_logging
from peav.cli.parsing import say_error, shorten
from peav.cli.recipe_files import RecipeOrFile, resolve_config
from peav.cli.runs import prepare_fit
from peav.data import ManifestError, MediaError, ShardError, StoreError, TooManyBadClips
from peav.data.datamodule import ClipDataModule
from peav.data.loading.plan import DataSettingError
from peav.evaluation.suite import SuiteError
from peav.mendable import sentence_of
from peav.suggest import suggest
from peav.training.assembly import check_teachers, needed_encoders, provided_by
from peav.training.callbacks import EmbeddingWriter
from peav.training.module import PeavModule
from peav.training.resume import ResumeError, check_evaluation, read_resumable
from peav.training.saving import RunInterrupted, SaveRun, exit_status
from peav.training.suite import EvaluateSuite  # noqa: F401  by its short name among --trainer.callbacks
from peav.trust import Trust, TrustError
from peav.types import ClipFormat

log = logging.getLogger(__name__)


class PeavParser(LightningArgumentParser):
    """Adds to jsonargparse's message on an unknown class which plugin was probably meant."""

    def error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Reports a configuration error."""
        meant = ""
        for found in re.findall(r"""(?:class_path(?:['"]?[:=]\s*| ')|import path string: )['"]?([\w.]+)""", message):
            for plugins in (registry.objectives, registry.encoders):
                if f"{plugins.kind}s" in message and found not in plugins and "." not in found:
                    meant += f"\n\nNo {plugins.kind} is named {found!r}. {suggest(found, plugins)}"
                    break
        if not self.exit_on_error:  # jsonargparse tries, and asks again
            super().error(message + meant, *args, **kwargs)
        self.exit(2, say_error(self, shorten(message) + meant))


class PeavCLI(LightningCLI):
    """LightningCLI for a PeavModule and a ClipDataModule.

    Attributes:
        status: the exit status of what was run.
    """

    status = 0

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Makes the parser."""
        # Else `--trainer.max_epoch=1` would be taken for `--trainer.max_epochs=1`, and a typo for whatever it begins.
        parser = PeavParser(**{"prog": "peav", **kwargs, "allow_abbrev": False})
        parser.add_argument("-c", "--config", action=RecipeOrFile, help="a YAML file, or peav:NAME, a recipe")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what every run has: how it saves itself, and the writer of `predict`."""
        parser.add_lightning_class_args(SaveRun, "save")
        parser.add_lightning_class_args(EmbeddingWriter, "predict_output")
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="Let `fit` begin anew in a folder that holds a run, whose files it removes.",
        )

    def before_instantiate_classes(self) -> None:
        """Removes from the configuration the encoders that no objective needs, so that they are never built."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        if self.subcommand in ("validate", "test", "predict") and not config.ckpt_path:
            self._refuse("needs a trained model: --ckpt_path=RUN/checkpoints/last.ckpt")
        self._check_checkpoint(config)
        # The run's own configuration would be one that overwrites wherever it is used.
        self.overwrite, config.overwrite = config.overwrite, False
        if self.subcommand != "fit":
            self.save_config_callback = None  # the folder's config.yaml is that of its training
        _fill_in_outputs(config.trainer, self.subcommand in (None, "fit"))
        try:
            self._leave_out_encoders()
        except (ValueError, KeyError) as error:
            self._refuse(sentence_of(error))

    def _check_checkpoint(self, config: Any) -> None:
        """Sees to it that a checkpoint is read as tensors and plain data, wherever it lies: what a pickle holds may run."""
        if config.get("weights_only") is False:
            self._refuse(
                "weights_only=false would run what the checkpoint holds: peav reads tensors and plain data alone"
            )
        if "weights_only" in config:
            config["weights_only"] = True  # Lightning's own default is false for addresses
        path = str(config.get("ckpt_path") or "")
        if path.startswith(("http://", "https://")):
            self._refuse(f"{path} is not fetched: download the checkpoint, and give the file")
        try:
            if path and "://" not in path and Path(path).exists():
                check_pickled(Path(path))
        except TrustError as error:
            self._refuse(str(error))

    def _parse_ckpt_path(self) -> None:
        """Leaves the configuration as the user gave it: Lightning would let the checkpoint's hyper-parameters overrule it silently."""

    def instantiate_classes(self) -> None:
        """Builds trainer, model and data; what is wrong with them is an error of the configuration, told without a traceback."""
        try:
            super().instantiate_classes()
        except (ValueError, KeyError, FileNotFoundError) as error:
            self._refuse(sentence_of(error))

    def _refuse(self, message: str) -> NoReturn:
        parser = self._subcommand_parsers[self.subcommand] if self.subcommand else self.parser
        parser.error(message)
        raise SystemExit(2)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> Trainer:
        """Leaves out what saves a run where `trainer.enable_checkpointing` is false."""
        saves = config.get("enable_checkpointing") is not False
        self.saver = next(c for c in callbacks if isinstance(c, SaveRun)) if saves else None
        return super()._instantiate_trainer(config, [c for c in callbacks if saves or not isinstance(c, SaveRun)])

    def before_fit(self) -> None:
        """Looks whether the run may go on, or write, where it is asked to."""
        config = self.config["fit"]
        path = prepare_fit(self.trainer, self.model, self.datamodule, self.saver, config.ckpt_path, self.overwrite)
        config.ckpt_path = self.config_init["fit"].ckpt_path = path

    def fit(self, **kwargs: Any) -> None:
        """Trains; signals are the trainer's as long as it does."""
        try:
            self.trainer.fit(**kwargs)
        except RunInterrupted as interrupted:
            self.status = exit_status(self.trainer, interrupted)
            if self.trainer.is_global_zero:
                print(f"peav fit: {interrupted}", file=sys.stderr)
        finally:
            if self.saver is not None:
                self.saver.stop_listening()

    def _check_evaluation(self) -> None:
        path = self.config[self.subcommand].ckpt_path
        saved = read_resumable(path)
        check_evaluation(path, saved, self.model)
        known = saved.get(ClipDataModule.CHECKPOINT_HYPER_PARAMS_KEY) or {}
        self.datamodule.follow(ClipFormat(**{f.name: known.get(f.name) for f in fields(ClipFormat)}))

    before_validate = before_test = before_predict = _check_evaluation

    def _leave_out_encoders(self) -> None:
        model = self.config[self.subcommand].model if self.subcommand else self.config.model
        objectives = {name: value for name, value in (model.objectives or {}).items() if value is not None}
        if not objectives or not model.encoders or model.init_from:
            return  # the module says what is missing; it knows the encoders of the checkpoint, beside which these stand
        built = {name: registry.objectives.build(_plain(value), Trust.CODE) for name, value in objectives.items()}
        if self.subcommand == "fit":
            check_teachers(built, bool(model.init_from or self.config.fit.ckpt_path))
        requires = {f"objective {name!r}": objective.requires for name, objective in built.items()}
        requires["extra_embeddings"] = tuple(model.extra_embeddings or ())
        needed = needed_encoders(provided_by({n: _plain(value) for n, value in model.encoders.items()}), requires)
        left_out = sorted(set(model.encoders) - set(needed))
        if left_out:
            log.info("no objective needs the encoders %s: not built", ", ".join(left_out))
        model.encoders = {name: model.encoders[name] for name in needed}


def _fill_in_outputs(trainer: Any, training: bool) -> None:
    """Lets everything that a run writes follow `trainer.default_root_dir`, wherever the user has not chosen otherwise.

    TensorBoard and CSV logs in training, and a progress bar. `false` or an empty list stay what they are.
    """
    root = str(trainer.default_root_dir or "runs/latest")
    trainer.default_root_dir = root

    def plugin(path: str, **init_args: Any) -> Namespace:
        return Namespace(class_path=f"lightning.pytorch.{path}", init_args=Namespace(**init_args))

    if not training and trainer.logger is None:
        trainer.logger = False  # its one line at step 0 would look like a run that begins anew
    if trainer.logger is None or trainer.logger is True:
        trainer.logger = [
            plugin("loggers.TensorBoardLogger", save_dir=root, name="tensorboard", version=""),
            plugin("loggers.CSVLogger", save_dir=root, name="csv"),
        ]
    if trainer.callbacks is None:
        trainer.callbacks = []
        if trainer.enable_progress_bar is not False:
            trainer.callbacks.append(plugin("callbacks.RichProgressBar"))


def _unknown_removals(args: Sequence[str]) -> str:
    """Says which `--model.objectives.NAME=null` removes what no configuration file has; empty if all is well."""
    files = re.findall(r"(?:^|\n)(?:--config|-c)[=\n]([^\n]+)", "\n".join(args))
    known: set[str] = set()
    for file in map(resolve_config, files):
        if Path(file).is_file():
            known |= set(((yaml.safe_load(Path(file).read_text()) or {}).get("model") or {}).get("objectives") or {})
    removed = re.findall(r"^--model\.objectives\.([\w-]+)[=\n](?:null|None)$", "\n".join(args), re.MULTILINE)
    for name in removed:
        if known and name not in known:
            return f"there is no objective {name!r} to remove. {suggest(name, known)}"
    return ""


def _without_traceback(error: Exception) -> str:
    """Returns what an error says; that of a data loader's worker begins with the traceback of the worker."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return re.sub(r"^[\w.]*Error: ", "", text.strip().splitlines()[-1])


def _plain(value: Any) -> dict[str, Any]:
    init_args = value.get("init_args")
    return {"class_path": value["class_path"], "init_args": dict(init_args.items()) if init_args else {}}


def run_lightning(args: Sequence[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        args: the command and its options.

    Returns:
        0; 1 when files are missing or damaged, or a run cannot go on; 75 when a signal ended a run, which has saved itself; errors in
        the configuration end the process with a message, as jsonargparse does.
    """
    try:
        registry.load_plugins()
        misspelt = _unknown_removals(args)
    except (registry.PluginError, ValueError) as error:
        misspelt = str(error)
    if misspelt:
        print(f"peav {args[0]}: {misspelt}", file=sys.stderr)
        return 2
    set_up_logging()
    quiet_lightning(args[0])
    try:
        cli = PeavCLI(
            PeavModule,
            ClipDataModule,
            args=list(args),
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"default_env": False},
            auto_configure_optimizers=False,
        )
    except (
        FileNotFoundError,
        DataSettingError,
        ManifestError,
        MediaError,
        ResumeError,
        ShardError,
        StoreError,
        SuiteError,
        TooManyBadClips,
    ) as error:
        # Data that were never prepared, a checkpoint that is not there, a store that went away: no fault of the program.
        print(f"peav {args[0]}: {_without_traceback(error)}", file=sys.stderr)
        return 1
    return cli.status
