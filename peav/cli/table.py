"""The table of commands: where each lives and what it does, so that `peav --help` imports none of them.

A new command is a function in a file of `peav/cli/commands/` and a line here. The line says what the first line of the function's
docstring says (a test compares them); parameters before the `*` of its signature become words, those after it options.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        target: `module:function`.
        help: what it does, in a line.
        parses_itself: whether the function takes the words of the command line, its own name first, and parses them.
    """

    target: str
    help: str
    parses_itself: bool = False

    def load(self) -> Callable[..., Any]:
        """Imports the function."""
        module, _, name = self.target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


@dataclass(frozen=True)
class Group:
    """Commands that stand behind a common word, such as `peav data stats`."""

    help: str
    commands: Mapping[str, Command]


def _lightning(help: str) -> Command:
    return Command("peav.cli.lightning:run_lightning", help, parses_itself=True)


COMMANDS: dict[str, Command | Group] = {
    "fit": _lightning("train a model: peav fit --config peav:tiny_cpu"),
    "validate": _lightning("compute the losses of a checkpoint on the validation split"),
    "test": _lightning("compute the losses of a checkpoint on the test split"),
    "predict": _lightning("write the embeddings of a split"),
    "synth": Command(
        "peav.cli.commands.synth:synth",
        "make a small synthetic audio-visual world: media, captions, events, splits",
    ),
    "prepare": Command(
        "peav.cli.commands.prepare:prepare",
        "turn a folder of media with captions into a Lhotse manifest and LitData shards, and run frozen frontends over it once",
    ),
    "evaluate": Command(
        "peav.cli.commands.evaluate:evaluate",
        "measure retrieval in every direction and frame AUROC, and write a report",
    ),
    "compare": Command(
        "peav.cli.commands.compare:compare",
        "compare results of peav evaluate: numbers beside each other, and what their differences are worth",
    ),
    "embed": Command(
        "peav.cli.commands.embed:embed", "embed files of audio, video and pictures, and texts, into one table"
    ),
    "detect": Command(
        "peav.cli.commands.detect:detect", "find when sounds are heard in files of any length, by their names"
    ),
    "index": Group(
        "make your own media searchable",
        {
            "update": Command(
                "peav.cli.commands.index:update",
                "index folders of audio, video and pictures for search, or bring their index up to date",
            ),
            "info": Command("peav.cli.commands.index:info", "say what an index holds, and how it was made"),
            "export": Command(
                "peav.cli.commands.index:export", "write an index as a parquet table, for a vector database"
            ),
        },
    ),
    "search": Command(
        "peav.cli.commands.search:search",
        "search an index by words, sounds, pictures and clips, and say where in which file it is",
    ),
    "serve": Command(
        "peav.cli.commands.serve:serve",
        "serve a page on which an index is searched, and what is found is seen and heard",
    ),
    "tune": Command(
        "peav.cli.commands.tune:tune",
        "tune the threshold of each phrase on a validation split, and store it with the model",
    ),
    "caption": Command(
        "peav.cli.commands.caption:caption",
        "write captions, transcripts, domains and events of prepared clips with a pipeline of models, and check them",
    ),
    "ab": Group(
        "compare two sources of captions in a blind test by people",
        {
            "make": Command(
                "peav.cli.commands.ab:make",
                "write a page on which people choose between two captions of a clip, not knowing where each comes from",
            ),
            "score": Command(
                "peav.cli.commands.ab:score",
                "say how often new captions were better, the same or worse, from the answers of raters",
            ),
        },
    ),
    "convert": Command(
        "peav.cli.commands.convert:convert", "write a model in another format; with a card for the hub, and to the hub"
    ),
    "recipes": Command(
        "peav.cli.commands.recipes:recipes", "list the experiments that come with peav, or print one of them"
    ),
    "plugins": Command(
        "peav.cli.commands.plugins:plugins",
        "list the encoders, objectives, adapters, fields, and stages, gates and backends of the engine, and where they come from",
    ),
    "data": Group(
        "look at manifests, check, count, split, mix, dedup and trust them",
        {
            "inspect": Command(
                "peav.cli.commands.data:inspect",
                "write a page of numbers and clips to look at, and an overview as a PNG beside it",
            ),
            "validate": Command(
                "peav.cli.commands.data:validate",
                "read every line of the manifests and every row of the shards, and list all that is wrong",
            ),
            "stats": Command(
                "peav.cli.commands.data:stats",
                "count hours, modalities, captions, events, and what occurs more than once",
            ),
            "split": Command(
                "peav.cli.commands.data:split",
                "distribute the clips anew among train, validation and test; the shards stay where they are",
            ),
            "mix": Command(
                "peav.cli.commands.data:mix",
                "put the clips of several prepared folders into one; the shards stay where they are",
            ),
            "dedup": Command(
                "peav.cli.commands.data:dedup",
                "leave out clips whose vectors are nearly those of others (SemDeDup); the shards stay where they are",
            ),
            "trust": Command(
                "peav.cli.commands.data:trust",
                "say once that the manifests of a folder may name stores outside of it; lists them",
            ),
        },
    ),
}


def paths(commands: Mapping[str, Command | Group] = COMMANDS) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Yields every command with the words that call it, such as `("data", "stats")`."""
    for name, entry in commands.items():
        if isinstance(entry, Group):
            yield from (((name, *path), command) for path, command in paths(entry.commands))
        else:
            yield (name,), entry


def find(words: Sequence[str]) -> Command | None:
    """Returns the command that a command line begins with, or None."""
    entry = COMMANDS.get(words[0]) if words else None
    if isinstance(entry, Group):
        return entry.commands.get(words[1]) if len(words) > 1 else None
    return entry
