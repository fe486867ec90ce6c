"""The stages of a job in their order: which reads what of which, and the keys under which their results are kept."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peav.data.workers import Terminated
from peav.engine.configured import configured
from peav.engine.stage import (
    JOINED_COLUMNS,
    MANIFEST_COLUMNS,
    MEDIA_COLUMNS,
    EngineError,
    EngineStop,
    Stage,
    digest_of,
    not_plain,
    stages,
)
from peav.mendable import MENDABLE, sentence_of
from peav.opening import check_name

#: Raised when the engine itself changes what a stage is given or what becomes of its answer: all keys change.
ENGINE_VERSION = 1


@dataclass(frozen=True)
class Planned:
    """A stage of a job.

    Attributes:
        name: in the configuration.
        cls: its class.
        init_args: all of them, defaults included.
        reads: columns that it is given.
        provides: columns that it returns.
        upstream: names of the stages whose columns it reads.
        own: digest of its arguments that results depend on.
        models: licences of the models behind it, by name.
        key: digest of all that its results depend on but the clips.
        reads_texts: whether it, or one that it depends on, reads the captions that people wrote.
    """

    name: str
    cls: type[Stage]
    init_args: Mapping[str, Any]
    reads: tuple[str, ...]
    provides: tuple[str, ...]
    upstream: tuple[str, ...]
    own: str
    models: Mapping[str, str]
    key: str
    reads_texts: bool

    def build(self) -> Stage:
        """Builds it."""
        stage: Stage = self.cls(**self.init_args)
        return stage


class Pipeline:
    """The stages of a job.

    Args:
        config: name to `{"class_path": ..., "init_args": {...}}`, in the order in which they run; None in place of one leaves it out.

    Raises:
        ValueError: if there is none, one is not known or lacks an argument, or reads a column that nothing before it provides.
        EngineStop: if one cannot say what its results depend on, such as one whose checkpoint is not there.
    """

    def __init__(self, config: Mapping[str, Mapping[str, Any] | None]) -> None:
        importlib.import_module("peav.engine.stages")
        self.stages: dict[str, Planned] = {}
        for name, given in config.items():
            if given is not None:
                self.stages[name] = self._plan(name, given)
        if not self.stages:
            raise ValueError(
                "there is no stage: give --config ENGINE.yaml, such as peav:engine/small, or stages.NAME.class_path=..."
            )

    def _plan(self, name: str, given: Mapping[str, Any]) -> Planned:
        where = f"stages.{name}"
        check_name(name, "a stage")
        cls, init_args = configured(stages, given, where)
        with errors_of(where):
            reads, provides = cls.columns(init_args)
            identity, models = cls.identity(init_args), dict(cls.models(init_args))
            own_arguments = cls.key_arguments(init_args)
            for what, held in (("identity", identity), ("key_arguments", own_arguments)):
                if kind := not_plain(held):
                    raise ValueError(
                        f"{cls.__name__}.{what} holds a {kind}, which may look otherwise in another process: return plain data"
                    )
        for what, names in (("reads", reads), ("provides", provides)):
            if isinstance(names, str):
                raise ValueError(
                    f"{where}: {cls.__name__}.{what} must be names of columns, such as ({names!r},), not a text"
                )
        if not provides:
            raise ValueError(f"{where}: {cls.__name__} provides no column: name them in `provides`")
        upstream: list[str] = []
        given_columns = []
        for asked in reads:
            column = asked.removesuffix("?")
            sources = [other.name for other in self.stages.values() if column in other.provides]
            upstream += sources
            known_here = bool(sources) or column in (*MANIFEST_COLUMNS, *MEDIA_COLUMNS)
            if known_here:
                given_columns.append(column)
            elif column == asked:
                known = {one for other in self.stages.values() for one in other.provides}
                raise ValueError(
                    f"{where} reads {column!r}, which no stage before it provides. There are "
                    f"{', '.join(sorted({*known, *MANIFEST_COLUMNS, *MEDIA_COLUMNS}))}: put a stage that provides it before, or leave "
                    f"{name} out (stages.{name}=null)"
                )
        reads, upstream = tuple(given_columns), list(dict.fromkeys(upstream))
        key = digest_of(
            {
                "engine": ENGINE_VERSION,
                "name": name,  # entries of joined columns say whose they are
                "class": f"{cls.__module__}.{cls.__qualname__}",
                "version": cls.version,
                "init_args": own_arguments,
                "identity": identity,
                "upstream": [self.stages[other].key for other in upstream],
            }
        )
        reads_texts = bool({"real_captions", "real_transcript"} & set(reads)) or any(
            self.stages[other].reads_texts for other in upstream
        )
        own = digest_of(own_arguments)
        return Planned(name, cls, init_args, reads, provides, tuple(upstream), own, models, key, reads_texts)

    @property
    def digest(self) -> str:
        """Of all stages."""
        return digest_of([stage.key for stage in self.stages.values()])

    @property
    def shape(self) -> dict[str, str]:
        """The classes of the stages by name: what stays when only settings change."""
        return {name: f"{stage.cls.__module__}.{stage.cls.__qualname__}" for name, stage in self.stages.items()}

    def before(self, name: str) -> set[str]:
        """Returns the names of all stages that one depends on."""
        upstream = self.stages[name].upstream
        return set(upstream).union(*(self.before(other) for other in upstream))

    def provenance(self, column: str) -> list[Planned]:
        """Returns the stages that had a part in a column, in their order."""
        made = {name for name, stage in self.stages.items() if column in stage.provides}
        wanted = made.union(*(self.before(name) for name in made))
        return [stage for name, stage in self.stages.items() if name in wanted]


@contextmanager
def errors_of(place: str) -> Iterator[None]:
    """Says where in the configuration it was that the code of a plugin failed.

    Args:
        place: such as `stages.tags`.

    Raises:
        EngineStop: in place of errors that a user can mend, such as a file that is not there; all others pass, with a note.
    """
    try:
        yield
    except (EngineError, Terminated):
        raise
    except MENDABLE as error:
        raise EngineStop(f"{place}: {' '.join(sentence_of(error).split()) or type(error).__name__}") from error
    except SystemExit as error:
        raise EngineStop(f"{place}: its code called for the end of the process (exit status {error.code})") from error
    except Exception as error:
        error.add_note(f"raised by {place} of the configuration")
        raise


def add_columns(row: dict[str, Any], made: Mapping[str, Any], replaces: Collection[str] = ()) -> None:
    """Adds what a stage made of a clip to what is known of it: lists are joined, all else takes the place of what was there.

    Args:
        row: what is known.
        made: by the stage.
        replaces: columns that the stage read itself: what it made of them takes their place.

    >>> row = {"tags": [1]}
    >>> add_columns(row, {"tags": [2], "texts": {}})
    >>> row
    {'tags': [1, 2], 'texts': {}}
    """
    for name, value in made.items():
        joins = name in JOINED_COLUMNS and name not in replaces
        row[name] = [*row.get(name, ()), *(value or ())] if joins else value
