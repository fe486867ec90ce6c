"""`peav`: LightningCLI's commands (fit, validate, test, predict) beside peav's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

#: The commands that LightningCLI runs; their help is that of `peav fit --help`.
LIGHTNING_COMMANDS = {
    "fit": "train a model from a YAML: peav fit --config experiments/tiny_cpu.yaml",
    "validate": "compute the losses of a checkpoint on the validation split",
    "test": "compute the losses of a checkpoint on the test split",
    "predict": "write the embeddings of a split",
}

#: What stands before a command of its own: `peav data stats`.
DATA_HELP = "look at manifests, check, count, split, mix and trust them: peav data --help"


def _commands() -> dict[str, Callable[..., Any]]:
    from peav.cli import commands

    return {
        "synth": commands.synth,
        "prepare": commands.prepare,
        "evaluate": commands.evaluate,
        "embed": commands.embed,
        "convert": commands.convert,
        "plugins": commands.plugins,
    }


def _help() -> str:
    lines = ["usage: peav COMMAND [options]    (peav COMMAND --help explains one)", ""]
    lines += [f"  {name:10} {text}" for name, text in LIGHTNING_COMMANDS.items()]
    for name, command in _commands().items():
        first = (command.__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name:10} {first[0].lower()}{first[1:].rstrip('.')}")
    lines.append(f"  {'data':10} {DATA_HELP}")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        args: the words after `peav`; those of the process by default.
    """
    # LitData asks a package index for its newest version at import; peav stays off the network.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    command, rest = words[0], words[1:]
    if command in LIGHTNING_COMMANDS:
        from peav.cli.lightning import run_lightning

        return run_lightning([command, *rest])
    if command == "data":
        from peav.cli.data import run_data

        return run_data(rest)
    commands = _commands()
    if command not in commands:
        from peav.registry import suggest

        print(
            f"peav: no command {command!r}. {suggest(command, [*LIGHTNING_COMMANDS, *commands, 'data'])}",
            file=sys.stderr,
        )
        return 2
    from peav.cli.commands import run_command

    return run_command(commands[command], command, rest)


if __name__ == "__main__":
    sys.exit(main())
