"""What the commands say beside their results: one handler for all, and what Lightning says that helps nobody is off."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from typing import TextIO

#: Messages of Lightning that tell a user of peav nothing: advertisements, and devices that are not there.
UNHELPFUL = re.compile(
    r"💡|.*\blit(logger|models)\b|GPU available: False|TPU available: False|IPU available: False|HPU available: False",
    re.IGNORECASE,
)

#: Likewise warnings, by how they begin. What the reason is stands beside each.
UNHELPFUL_WARNINGS = (
    "LightningCLI's args parameter is intended to run from within Python",  # peav hands its words over
    "Couldn't infer the batch indices",  # predictions carry the clips' ids
    r"The '\w+' does not have many workers",  # num_workers is the user's choice
    r"Consider setting `persistent_workers=True`",  # the loader is peav's
    r"You defined a `validation_step` but have no `val_dataloader`",  # a data set without that split
)

#: Packages whose deprecations are their own affair.
_OTHERS = r"(lightning|pytorch_lightning|lightning_fabric|lightning_utilities|litdata|torchmetrics)(\..*)?$"


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is standard error when a record comes, which tests and notebooks exchange."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops what helps nobody, and what every rank of a run would say alike."""
        if record.name.startswith("lightning") and UNHELPFUL.match(record.getMessage()):
            return False
        return record.levelno > logging.INFO or _rank() == 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record."""
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging() -> None:
    """Lets peav say what it does, others what is wrong; to be called before others are imported, who add handlers of their own."""
    root = logging.getLogger()
    if not any(isinstance(handler, Stderr) for handler in root.handlers):
        root.addHandler(Stderr())
    logging.getLogger("peav").setLevel(logging.INFO)
    logging.getLogger("litdata").setLevel(logging.WARNING)


def quiet_lightning(command: str) -> None:
    """Lets Lightning speak through peav's handler, without what helps nobody; what helps stays.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The callback that keeps checkpoints says so of a run that keeps none.
    for message in (*UNHELPFUL_WARNINGS, *(["The dirpath has changed from"] if command != "fit" else [])):
        warnings.filterwarnings("ignore", message)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=_OTHERS)


def _rank() -> int:
    """Returns the rank of this process in a run on several devices, as its launcher says it; 0 where there is none."""
    found = next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if os.environ.get(name)), "0")
    return int(found) if found.isdigit() else 0
