"""Plugins by name: encoders and objectives announce themselves here.

A class registers with a decorator without arguments, under its own name. A package outside this repository lists the modules that
hold its plugins under the entry point group `peav.plugins`; :func:`load_plugins` imports them.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import PurePath
from typing import Any, Generic, TypeVar, cast

from torch import nn

from peav.suggest import suggest
from peav.trust import Trust, TrustError, check_plain, places_in

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "peav.plugins"
#: Where peav's own plugins are: modules to import by name, as those of every other package are.
BUILT_IN = (
    "peav.encoders",
    "peav.objectives",
    "peav.engine.stages",
    "peav.engine.gates",
    "peav.engine.backends",
    "peav.evaluation.adapters",
)

_C = TypeVar("_C", bound="Plugin")

_SAY_SO = "say so by --trust, in Python trust=True, for model.init_from --model.trust=true"
_HOW_TO_TRUST = (
    f"install the package that announces it under the entry point group {ENTRY_POINT_GROUP!r}, or, if you know where it comes from, "
    f"{_SAY_SO}"
)


class PluginError(RuntimeError):
    """A plugin package is installed, but its modules cannot be imported."""


class Plugin(nn.Module):
    """An nn.Module that remembers how it was made, so that a checkpoint can hold plain configuration instead of a pickle."""

    _init_call: tuple[tuple[Any, ...], dict[str, Any]]

    @classmethod
    def reaches_outside(cls, init_args: Mapping[str, Any]) -> tuple[str, ...]:
        """Names the arguments by which the constructor would read a file or ask the network.

        A checkpoint or a folder that may come from elsewhere is not allowed to give them. By default they are those that hold, at any
        depth, a text with a slash, a backslash or a colon, or one that begins with a dot or a tilde: a plugin whose arguments lead to
        files by other texts says so here, and one whose arguments only look like places says that.

        Args:
            init_args: of the constructor.
        """
        return places_in(init_args)

    def __new__(cls, *args: Any, **kwargs: Any) -> Plugin:
        """Keeps the arguments of the constructor."""
        plugin = super().__new__(cls)
        # nn.Module is not initialised yet, so its own __setattr__ cannot be used.
        object.__setattr__(plugin, "_init_call", (args, kwargs))
        return plugin

    @property
    def config(self) -> dict[str, Any]:
        """The plugin as plain data, `{"class_path": ..., "init_args": ...}`: what its constructor was called with."""
        args, kwargs = self._init_call
        bound = init_signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        init_args = {}
        for key, value in bound.arguments.items():
            kind = bound.signature.parameters[key].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                init_args.update({k: _plain(v) for k, v in value.items()})
            else:
                init_args[key] = _plain(value)
        return {"class_path": class_path(type(self)), "init_args": init_args}


def init_signature(cls: type[Any]) -> inspect.Signature:
    """Returns the signature of a class's constructor.

    Of a class that inherits its `__init__`, `inspect.signature(cls)` shows `Plugin.__new__` in early releases of Python 3.11 (3.11.2).

    >>> class Scaled(Plugin):
    ...     def __init__(self, scale: float = 1.0) -> None: ...
    >>> class Inherits(Scaled): ...
    >>> list(init_signature(Inherits).parameters)
    ['scale']
    """
    signature = inspect.signature(cls.__init__)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _plain(value: Any) -> Any:
    """Reduces a constructor argument to what YAML, JSON and a weights-only checkpoint can hold."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"a plugin's arguments must be plain data, so that a checkpoint can hold them; {value!r} is not")


class Registry(Generic[_C]):
    """Classes of one kind by name.

    Args:
        kind: what the classes are, for messages: `encoder`, `objective` or `field`.
        base: what they derive from.
        name_of: what a class is called; its own name by default.
    """

    def __init__(
        self, kind: str, base: type[Any] = Plugin, name_of: Callable[[type[Any]], str] = attrgetter("__name__")
    ) -> None:
        self.kind, self.base, self.name_of = kind, base, name_of
        self._classes: dict[str, type[_C]] = {}

    def register(self, cls: type[_C]) -> type[_C]:
        """Registers a class under its own name; used as a decorator without arguments.

        Raises:
            TypeError: if `cls` is not a subclass of `base` (derive it from `peav.encoders.Encoder`, `peav.objectives.Objective`,
                `peav.evaluation.adapters.EmbeddingAdapter` or `peav.fields.Field`).
            ValueError: if another class holds the name.
        """
        if not (inspect.isclass(cls) and issubclass(cls, self.base)):
            raise TypeError(f"@register_{self.kind} takes a subclass of peav's {self.kind.capitalize()}, not {cls!r}")
        for parameter in init_signature(cls).parameters.values():
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                raise TypeError(
                    f"{cls.__name__}: the argument {parameter.name!r} has no name in a YAML; make it a keyword"
                )
        name = self.name_of(cls)
        other = self._classes.get(name)
        # A module imported twice under the same name (a reload) defines the same class again, which is no clash.
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"two {self.kind} classes are named {name!r}: {other.__module__}.{other.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; rename one of them"
            )
        self._classes[name] = cls
        return cls

    def get(self, name: str) -> type[_C]:
        """Returns the class registered as `name`; plugins are imported first, where nobody has yet.

        Raises:
            KeyError: if there is none; the message lists the choices.
            PluginError: if a plugin cannot be imported.
        """
        if name not in self:
            raise KeyError(f"no {self.kind} is named {name!r}. {suggest(name, self._classes)}")
        return self._classes[name]

    def build(self, config: Mapping[str, Any], trust: Trust = Trust.NAMES) -> _C:
        """Builds a plugin from `{"class_path": ..., "init_args": ...}`; the inverse of :attr:`Plugin.config`.

        Args:
            config: `class_path` is a registered name, or the dotted path of a :class:`Plugin`.
            trust: whether a dotted path may be imported.

        Raises:
            KeyError: if no class has that name.
            TrustError: if a dotted path would have to be imported, and may not.
            TypeError: if the dotted path does not lead to a Plugin.
        """
        return self.resolve(config["class_path"], trust)(**(config.get("init_args") or {}))

    def resolve(self, path: str, trust: Trust = Trust.NAMES) -> type[_C]:
        """Returns the class of a registered name or a dotted path.

        A dotted path to a class that is registered needs no import: an installed package announced it.

        Args:
            path: the name or path.
            trust: whether a dotted path may be imported.

        Raises:
            KeyError: if no class has that name.
            TrustError: if a dotted path would have to be imported, and may not.
            TypeError: if the dotted path does not lead to a Plugin.
        """
        module, _, name = path.rpartition(".")
        if not module:
            return self.get(name)
        known = self._classes[name] if name in self else None
        if known is not None and known.__module__.partition(".")[0] == module.partition(".")[0]:
            other = self._at(module, name, trust)
            if other is None or other is known or trust.imports:
                return other or known
        if not trust.imports:
            raise TrustError(
                f"the {self.kind} {path!r} is not among the registered ones, and its module would have to be imported: "
                f"{_HOW_TO_TRUST}"
            )
        cls: Any = getattr(importlib.import_module(module), name, None)
        if not (inspect.isclass(cls) and issubclass(cls, self.base)):
            raise TypeError(f"{path!r} is not a peav {self.kind}")
        return cast(type[_C], cls)

    def _at(self, module: str, name: str, trust: Trust) -> type[_C] | None:
        """Returns the plugin that a module holds by a name; None where there is none, or the module may not be imported.

        A package may have two of a name, of which one is registered, and may show that one in several modules.
        """
        if trust.imports and module not in sys.modules:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:  # the class has moved within its package
                return None
        cls: Any = getattr(sys.modules.get(module), name, None)
        return cast(type[_C], cls) if inspect.isclass(cls) and issubclass(cls, self.base) else None

    def holds(self, cls: type[Any]) -> bool:
        """Says whether a class is registered under its name; imports nothing, for a class that is at hand has registered."""
        return self._classes.get(cls.__name__) is cls

    def admit(self, config: Any, trust: Trust, source: object) -> None:
        """Checks the configuration of a plugin that a file gives, before anything is built from it.

        Args:
            config: `{"class_path": ..., "init_args": ...}`.
            trust: how far the file is trusted. What is imported because the user said so is told in the log.
            source: the file, for messages.

        Raises:
            TrustError: if it names a class that would have to be imported or an argument that leads out of the file, and the user did
                not say to trust it; or is no configuration of a plugin.
            TypeError: if a dotted path does not lead to a Plugin.
        """
        init_args = config.get("init_args") or {} if isinstance(config, Mapping) else None
        if not isinstance(init_args, Mapping) or not isinstance(config.get("class_path"), str):
            raise TrustError(f"{source}: {config!r:.100} is no configuration of an {self.kind}")
        check_plain(config, source)
        path = config["class_path"]
        if not re.fullmatch(r"[\w<>]+(\.[\w<>]+)*", path):
            raise TrustError(f"{source}: {path!r:.100} is no name of an {self.kind}")
        try:
            cls = self.resolve(path)
        except TrustError:
            if not trust.imports:
                raise TrustError(
                    f"{source} names the {self.kind} {path!r}, which is not among the registered ones and would have to be imported, "
                    f"which runs its module: {_HOW_TO_TRUST}"
                ) from None
            log.warning("importing %s, which %s names: you said to trust it", path.rpartition(".")[0], source)
            try:
                cls = self.resolve(path, trust)
            except ImportError as error:
                raise TrustError(
                    f"{source} names the {self.kind} {path!r}, which cannot be imported ({error}): put the folder of its module on "
                    "PYTHONPATH, or install its package"
                ) from error
        except KeyError as error:
            raise TrustError(
                f"{source}: {error.args[0]} It may belong to a package that is not installed here, or to a module that is not imported"
            ) from None
        outside = cls.reaches_outside(init_args)
        if outside and not trust.imports:
            values = ", ".join(f"{name}={init_args[name]!r:.60}" for name in outside)
            raise TrustError(
                f"{source} gives the {self.kind} {path!r} the argument {values}, which leads to a file or to the network: it is refused; "
                f"if you know where the file comes from, {_SAY_SO}"
            )

    def __iter__(self) -> Iterator[str]:
        _load_plugins_once()
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        _load_plugins_once()
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        if name not in self._classes:
            _load_plugins_once()
        return name in self._classes


encoders: Registry[Any] = Registry("encoder")
objectives: Registry[Any] = Registry("objective")

adapters: Registry[Any] = Registry("adapter")

register_encoder = encoders.register
register_objective = objectives.register
register_adapter = adapters.register


def class_path(cls: type[Plugin]) -> str:
    """Returns the name under which a plugin is configured: the short one of peav's own classes, the dotted path of every other.

    The short name of a class that registered itself when the user's configuration imported it means nothing in the next process; by
    the dotted path it is found again, without an import where an installed package announces it.
    """
    if cls.__module__.partition(".")[0] == "peav" and (encoders.holds(cls) or objectives.holds(cls)):
        return cls.__name__
    return f"{cls.__module__}.{cls.__qualname__}"


@cache
def _load_plugins_once() -> None:
    load_plugins()


def load_plugins() -> list[str]:
    """Imports peav's own plugins, and the modules that installed packages list under the entry point group `peav.plugins`.

    Returns:
        the names of the entry points.

    Raises:
        PluginError: if a module cannot be imported; the message names the package.
    """
    for module in BUILT_IN:
        importlib.import_module(module)
    names = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else "an unknown package"
            raise PluginError(
                f"the plugin {entry.name!r} ({entry.value}) of {package} cannot be imported: {type(error).__name__}: {error}. "
                f"Mend the package or uninstall it (pip uninstall {package})."
            ) from error
        names.append(entry.name)
    return names
