"""From functions to a command line, by jsonargparse: a signature gives words and options, its docstring their help."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle, parse
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from peav.cli.names import Names, collected, join_names
from peav.cli.recipe_files import RecipeOrFile
from peav.cli.table import Command, Group
from peav.suggest import suggest

DESCRIPTION = "Train, fine-tune, evaluate and use audio-video-text encoders of the PE-AV family."

#: `NAME=VALUE`, an item of an option that is a mapping.
_PAIR = re.compile(r"\w+=[^\s{}\[\]]+")

#: How jsonargparse begins its report on a value that fits none of the types that it may have.
_UNION = "Does not validate against any of the Union subtypes"


class Paragraphs(DefaultHelpFormatter):
    """Keeps the paragraphs of a description apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n"))


class CommandParser(ArgumentParser):
    """A parser whose errors are one line, with the option that was probably meant.

    Attributes:
        called: of the parser of a table, that of the command that is called.
    """

    called: CommandParser | None = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Says in one line what is wrong with the command line and ends the process with status 2."""
        if not self.exit_on_error:  # jsonargparse tries, and asks again
            super().error(message, ex)
        self.exit(2, say_error(self.called or self, shorten(message)))


def say_error(parser: ArgumentParser, message: str) -> str:
    """Returns the line that says what is wrong with a command line; an option that nobody knows gets a suggestion.

    Args:
        parser: of the command.
        message: jsonargparse's, of one line or several.
    """
    message = shorten(message)
    options, prog = parser._option_string_actions, parser.prog.replace(" [options]", "")
    unknown = re.search(r"unrecognized arguments: .*?(--[^\s=]+)", message)
    if unknown:
        hint = re.match(r"Did you mean '[^']*'\?", suggest(unknown[1], options))
        message = f"there is no option {unknown[1]}.{' ' + hint[0] if hint else ''}"
    # The keys of the whole table's parser begin with the names of the commands: `data.stats.split`.
    prefix = "".join(f"{name}." for name in prog.split()[1:])
    message = message.replace(prefix, "") if prefix else message
    message = re.sub(
        r'Parser key "([^"]+)"', lambda key: f"--{key[1]}" if f"--{key[1]}" in options else key[1], message
    )
    return f"{prog}: {' '.join(message.split())} ({prog} --help lists the options)\n"


def shorten(message: str) -> str:
    r"""Leaves of a report on a value that may be of several types what is wrong with it, without the value, which may be a whole model.

    >>> lines = ["Does not validate against any of the Union subtypes", "Subtypes: [int, <class 'NoneType'>]", "Errors:"]
    >>> lines += ["  - Expected a <class 'int'>. Got value: x", "  - Expected a <class 'NoneType'>", "Given value: x"]
    >>> shorten("\n".join(['Parser key "size":', *lines]))
    'Parser key "size":\nExpected a <class \'int\'>. Got value: x'
    """
    before, found, report = message.partition(_UNION)
    if not found:
        return message
    report = textwrap.dedent(report[report.find("\n") + 1 :])
    listed, _, given = report.partition("\nGiven value")
    errors = [shorten(error) for error in listed.partition("Errors:\n")[2].removeprefix("  - ").split("\n  - ")]
    errors = [error for error in errors if not error.startswith("Expected a <class 'NoneType'>")]
    if not any(errors):
        return message
    key = re.search(r"NestedArg\(key='([^']+)'", given)
    return f"{before.rstrip()}\n{key[1] + ': ' if key else ''}{'; or '.join(errors)}".lstrip("\n")


def build_parser(
    commands: Mapping[str, Command | Group], path: Sequence[str], prog: str = "peav", description: str = DESCRIPTION
) -> CommandParser:
    """Makes the parser of a table of commands: the one that is called with its options, the others with their names alone.

    Args:
        commands: the table.
        path: the words that name the command, such as `("data", "stats")`; empty for none.
        prog: the words before them.
        description: of the table.
    """
    parser = CommandParser(prog=prog, description=description, formatter_class=Paragraphs, allow_abbrev=False)
    parser.called = _add_commands(parser, commands, path)
    return parser


def _add_commands(
    parser: CommandParser, commands: Mapping[str, Command | Group], path: Sequence[str]
) -> CommandParser | None:
    """Adds a table to a parser, and returns the parser of the command that is called."""
    called: CommandParser | None = None
    subcommands = parser.add_subcommands(
        title="commands", description=f"{parser.prog} COMMAND --help explains one.", metavar="COMMAND", required=False
    )
    for name, entry in commands.items():
        chosen = bool(path) and path[0] == name
        subparser = command_parser(entry.load()) if chosen and isinstance(entry, Command) else CommandParser()
        subcommands.add_subcommand(name, subparser, help=entry.help)
        subparser.prog = f"{parser.prog} {name}"
        if chosen:
            called = subparser if isinstance(entry, Command) else _add_commands(subparser, entry.commands, path[1:])
    return called


def command_parser(function: Callable[..., Any]) -> CommandParser:
    """Makes the parser of a command.

    What stands before the `*` of the function's signature are words, in their order: one that must be given, one that may be left out
    where it has a default, any number of them where it is a sequence. Everything after the `*` is an option.

    Args:
        function: with type hints, and a Google docstring.
    """
    docstring = parse(inspect.getdoc(function) or "", DocstringStyle.GOOGLE)
    description = "\n\n".join(part for part in (docstring.short_description, docstring.long_description) if part)
    parser = CommandParser(description=description)
    helps = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in docstring.params}
    words = _words(function)
    for name, word in words.items():
        parser.add_argument(name, help=helps.get(name), metavar=name.upper(), **word)
    if set(words) < set(inspect.signature(function).parameters):
        parser.add_argument("--config", action=RecipeOrFile, help="a YAML file of options, or peav:NAME, a recipe.")
    parser.add_function_arguments(function, skip=set(words), as_group=False, sub_configs=True)
    for name in function.__kwdefaults__ or {}:
        if name.endswith("_"):
            _rename(parser, f"--{name}", option_of(name))
    return parser


def option_of(name: str) -> str:
    """Returns the option of a parameter; one that would be a word of Python ends in `_`.

    >>> option_of("top"), option_of("not_")
    ('--top', '--not')
    """
    return f"--{name.removesuffix('_')}"


def _rename(parser: ArgumentParser, before: str, after: str) -> None:
    """Gives an option another name."""
    action = parser._option_string_actions.pop(before)
    parser._option_string_actions.pop(f"{before}+", None)  # jsonargparse's, to append to a list
    parser._option_string_actions[after] = action
    action.option_strings, action.metavar = [after], after.strip("-").upper()


def parse_words(parser: CommandParser, path: Sequence[str], function: Callable[..., Any], words: Sequence[str]) -> Any:
    """Returns the arguments of a function, by name and in their types, that a command line gives.

    Args:
        parser: of the whole table, made for this command by :func:`build_parser`.
        path: the words that name the command.
        function: that the command runs.
        words: the command line.
    """
    hints = get_type_hints(function)
    mappings = [option_of(name) for name, hint in hints.items() if get_origin(_given(hint)) in (dict, Mapping)]
    switches = [option_of(name) for name, hint in hints.items() if hint is bool]
    options = function.__kwdefaults__ or {}
    lists = [option_of(name) for name in options if get_origin(_given(hints[name])) in (list, Sequence)]
    names = [option_of(name) for name in options if {*get_args(hints[name])} - {NoneType} == {*get_args(Names)}]
    rest = join_names(join_lists(join_pairs(words[len(path) :], mappings), lists), names)
    rest = complete_switches(rest, switches)
    if parser.called is not None:
        valued = [name for name, action in parser.called._option_string_actions.items() if action.nargs != 0]
        rest = options_last(rest, valued)
    parsed = parser.parse_args([*path, *rest])
    given = parsed
    for name in path:
        given = given[name]
    # jsonargparse would build the classes that a mapping names: that is the command's to do, if it wants them at all.
    plain = {name: _plain(given[name]) for name, hint in hints.items() if option_of(name) in mappings and name in given}
    for name in plain:
        given[name] = None
    values = parser.instantiate(parsed)
    for name in path:
        values = values[name]
    return {name: value for name, value in {**values.as_dict(), **plain}.items() if name != "config"}


def _plain(value: Any) -> Any:
    """Returns a value with mappings in place of namespaces."""
    if isinstance(value, Namespace | Mapping):
        return {name: _plain(held) for name, held in (vars(value) if isinstance(value, Namespace) else value).items()}
    return [_plain(held) for held in value] if isinstance(value, list) else value


def join_pairs(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Joins the words `NAME=VALUE` after an option that is a mapping into the one value that jsonargparse reads.

    >>> join_pairs(["a", "--features", "audio=dac", "video=pe", "--model", "m"], ["--features"])
    ['a', '--features={"audio": "dac", "video": "pe"}', '--model', 'm']
    >>> join_pairs(["--features=audio=dac", "a"], ["--features"])
    ['--features={"audio": "dac"}', 'a']
    >>> join_pairs(["--shares={a: 2}", "--out=x"], ["--shares"])
    ['--shares={a: 2}', '--out=x']
    """
    joined: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, _, first = word.partition("=")
        pairs = [first] if first else []
        if option in options and all(_PAIR.fullmatch(pair) for pair in pairs):
            while rest and _PAIR.fullmatch(rest[0]):
                pairs.append(rest.pop(0))
            if pairs:
                word = f"{option}={json.dumps(dict(pair.split('=', 1) for pair in pairs))}"
        joined.append(word)
    return joined


def join_lists(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Joins the values of an option that is a list, and given several times, into the one value that jsonargparse reads.

    >>> join_lists(["a", "--text", "dog barking", "--out=x", "--text=a: b"], ["--text"])
    ['a', '--out=x', '--text=["dog barking", "a: b"]']
    >>> join_lists(['--text=["a", "b"]'], ["--text"])
    ['--text=["a", "b"]']
    """
    kept, values = collected(words, options, _is_list)
    return kept + [f"{option}={json.dumps(given, ensure_ascii=False)}" for option, given in values.items()]


def _is_list(value: str) -> bool:
    try:
        return isinstance(json.loads(value), list)
    except ValueError:
        return False


def complete_switches(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Lets an option that is true or false stand alone for true.

    >>> complete_switches(["--trust", "a", "--strict", "false"], ["--trust", "--strict"])
    ['--trust=true', 'a', '--strict', 'false']
    """
    following = [*words[1:], ""]
    return [
        f"{word}=true" if word in options and after not in ("true", "false") else word
        for word, after in zip(words, following, strict=False)
    ]


def options_last(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Puts options behind words: argparse takes no more words once an option has followed one that may be left out.

    >>> options_last(["a", "--seed", "3", "b", "--reader.init_args.x", "y", "--help", "c"], ["--seed", "--reader"])
    ['a', 'b', 'c', '--seed=3', '--reader.init_args.x=y', '--help']
    """
    first: list[str] = []
    last: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*first, *last, word, *rest]
        if not word.startswith("-"):
            first.append(word)
        elif word.partition(".")[0] in options and "=" not in word and rest and not rest[0].startswith("--"):
            last.append(f"{word}={rest.pop(0)}")
        else:
            last.append(word)
    return first + last


def _words(function: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Returns what argparse is told of each word of a command."""
    hints = get_type_hints(function)
    words = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            continue
        optional = parameter.default is not inspect.Parameter.empty
        kind = _given(hints[name])
        word: dict[str, Any] = {"type": kind}
        if get_origin(kind) in (list, Sequence):
            word = {"type": get_args(kind)[0], "nargs": "*" if optional else "+"}
            word |= {"default": list(parameter.default)} if optional else {}
        elif optional:
            word |= {"nargs": "?", "default": parameter.default}
        words[name] = word
    return words


def _given(hint: Any) -> Any:
    """Returns what a type is where it is not None."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if get_origin(hint) in (Union, UnionType) and len(kinds) == 1 else hint
