"""`peav evaluate MODEL --suite NAME --data ROOT`: the tables of a paper, or of your own, on the data sets that lie below a folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from peav.cli.evaluate import SplitMedia
from peav.cli.evaluate_model import ModelChoice
from peav.cli.evaluate_ranks import on_ranks
from peav.cli.logs import set_up_logging
from peav.evaluation.collect import PassOptions
from peav.evaluation.models import EvaluatedModel
from peav.evaluation.result import TABLE, describe_protocol, package_versions, write_result
from peav.evaluation.suite import Suite, check_published, load_suite
from peav.evaluation.suite_report import COLUMNS, suite_markdown, suite_page, suite_results, suite_rows
from peav.evaluation.suite_run import SuiteResult, run_suite

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SuiteOptions:
    """What `peav evaluate --suite` was asked for; see `peav.cli.commands.evaluate.evaluate`."""

    model: ModelChoice
    suite: str
    root: Path
    out: Path | None = None
    cache: Path | None = None
    published: str | None = None
    devices: int = 1
    workers: int | None = None
    how: PassOptions = field(default_factory=PassOptions)

    @property
    def folder(self) -> Path:
        """The folder to write."""
        if self.out is not None:
            return self.out
        base = self.model.run or Path("runs") / "evaluate" / Path(self.model.path).name
        return base / Path(self.suite).stem

    @property
    def prepared(self) -> Path:
        """The folder of packed data sets."""
        return (self.cache or self.folder) / "prepared"

    @property
    def store(self) -> Path:
        """The folder of embeddings."""
        return (self.cache or self.folder) / "embeddings"

    def run(self, suite: Suite, model: EvaluatedModel, share: tuple[int, int] | None = None) -> SuiteResult:
        """Runs the suite, or embeds a share of it."""
        return run_suite(suite, model, self.root, self.prepared, self.store, self.how, self.workers, share)


def run_suite_command(options: SuiteOptions) -> Path | None:
    """Runs a suite, writes everything and prints the table.

    Returns:
        the folder written; None in a process that is not the first of several.

    Raises:
        FileNotFoundError: if model or data are not there.
        SuiteError: if the suite names what there is not.
        ValueError: if nothing could be measured.
    """
    suite = load_suite(options.suite)
    check_published(suite, options.published)
    model, _ = options.model.open()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Packing comes first, with the first batch of each data set.
    pack = partial(options.run, suite, model, (0, 1 << 30))
    if not on_ranks(options.devices, options.model.device, partial(_embed_rank, options=options), pack):
        return None
    found = options.run(suite, model)
    log.info("%s", found.work)
    write_result(folder, suite_results(found, model, options.how, options.model.path), *found.queries())
    name = options.model.name
    (folder / TABLE).write_text(suite_markdown(found, name, options.published), encoding="utf-8")
    settings = {
        "model": options.model.path,
        "suite": options.suite,
        "data": options.root,
        **describe_protocol(model, options.how),
    }
    page = suite_page(found, name, lambda m, s: SplitMedia(s, m), settings, package_versions(), options.published)
    (folder / "report.html").write_text(page, encoding="utf-8")
    _print(found, name, options.published)
    if not found.results:
        raise ValueError(f"no task of {suite.name!r} could be measured; {folder / TABLE} says why of each")
    return folder


def _embed_rank(fabric: Any, options: SuiteOptions) -> None:
    set_up_logging()  # in a process that was spawned
    model, _ = replace(options.model, device=str(fabric.device)).open()
    found = options.run(load_suite(options.suite), model, (fabric.global_rank, fabric.world_size))
    log.info("rank %d of %d: %s", fabric.global_rank, fabric.world_size, found.work)
    fabric.barrier()


def _print(found: SuiteResult, model: str, beside: str | None) -> None:
    table = Table(title=f"{found.suite.name}: {model}", caption="published numbers: arXiv 2512.19687")
    for column in COLUMNS:
        table.add_column(
            column, justify="left" if column in ("task", "metric", "95 % interval", "published") else "right"
        )
    for row in suite_rows(found, model, beside):
        table.add_row(*row)
    console = Console(width=max(Console().width, 160))
    console.print(table)
