"""`peav`: finds the command that the first words name, and runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from peav import __version__
from peav.cli.logs import set_up_logging
from peav.cli.parsing import DESCRIPTION, build_parser, parse_words
from peav.cli.table import COMMANDS, Command, Group
from peav.mendable import MENDABLE, sentence_of
from peav.suggest import suggest


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        args: the words after `peav`; those of the process by default.

    Returns:
        0; 1 after an error that the user can mend, which is printed in one line; 2 where there is no such command. Options that are
        wrong end the process with status 2, as argparse does.
    """
    # LitData asks a package index for its newest version at import; peav stays off the network.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    words = list(sys.argv[1:] if args is None else args)
    if words == ["--version"]:
        print(f"peav {__version__}")
        return 0
    path: list[str] = []
    choices = COMMANDS
    entry: Command | Group | None = None
    for word in words:
        entry = choices.get(word)
        if entry is None:
            break
        path.append(word)
        if isinstance(entry, Command):
            return _run(entry, path, words)
        choices = dict(entry.commands)
    called = " ".join(["peav", *path])
    rest = words[len(path) :]
    if rest and rest[0] not in ("-h", "--help", "help"):
        print(f"{called}: there is no command {rest[0]!r}. {suggest(rest[0], choices)}", file=sys.stderr)
        return 2
    description = f"{entry.help[0].upper()}{entry.help[1:]}." if isinstance(entry, Group) else DESCRIPTION
    build_parser(choices, [], called, description).print_help()
    return 0


def _run(command: Command, path: Sequence[str], words: Sequence[str]) -> int:
    set_up_logging()
    if command.parses_itself:
        return int(command.load()(words))
    called = " ".join(["peav", *path])
    try:
        function = command.load()
        arguments = parse_words(build_parser(COMMANDS, path), path, function, words)
        function(**arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # whoever read the output has seen enough, as in `peav recipes | head`
    except KeyboardInterrupt:
        print(f"{called}: interrupted", file=sys.stderr)
        return 130
    except MENDABLE as error:
        print(f"{called}: {sentence_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
