"""The folder in which a command keeps what it has done until it is done, and the settings that it was started with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peav.atomic import replacing

_SETTINGS = "settings.json"
_COMMAND = "command"


def open_partial(folder: Path, settings: Mapping[str, Any], work: str, command: str) -> None:
    """Opens the folder of an interrupted run, or makes a new one.

    Args:
        folder: where; made where it is missing.
        settings: all that the results depend on besides the media.
        work: a pattern of the files that hold results: without one, other settings replace those of before.
        command: its name, for messages.

    Raises:
        ValueError: if the folder holds results of other settings, or something else.
    """
    settings = json.loads(json.dumps({**settings, _COMMAND: command}))
    path = folder / _SETTINGS
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before.get(_COMMAND) != command:
            raise ValueError(
                f"{folder} holds what `{before.get(_COMMAND)}` began: choose another --out, or delete the folder"
            )
        changed = [
            f"{name} was {before.get(name)!r} and is {settings.get(name)!r}"
            for name in sorted({*before, *settings})
            if before.get(name) != settings.get(name)
        ]
        if changed and any(folder.glob(work)):
            raise ValueError(
                f"{folder} holds what an interrupted run did with other settings: {'; '.join(changed)}. Run it again with "
                "those, choose another --out, or delete the folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and was not made by `{command}`: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(settings, indent=1), encoding="utf-8")
