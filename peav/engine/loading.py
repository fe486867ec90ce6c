"""Loading models of transformers, with a sentence where there is none of the name."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_pretrained(loader: Any, model: str, **options: Any) -> Any:
    """Returns what a class of transformers loads; code from the repository of a model never runs.

    Args:
        loader: such as `AutoModelForCausalLM`.
        model: a folder, or a repository of the hub.
        **options: of `from_pretrained`.

    Raises:
        OSError: if there is no such folder, and none of that name comes from the hub; or a file is missing in the folder.
    """
    try:
        return loader.from_pretrained(model, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        if Path(model).exists():
            raise
        first = str(error).strip().partition("\n")[0]
        raise OSError(
            f"there is no model {model!r}: no folder has that name, and the hub gave none ({first}). Give a folder, or a repository "
            "OWNER/NAME that the hub has or that is in its cache"
        ) from error
