"""Names of a package, and optional libraries, that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its name.
        places: the module of each name that it hands out.

    >>> getter, _ = lazy_names("example", {"sqrt": "math"})
    >>> getter("sqrt")(4.0)
    2.0
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *places})

    return get, names


def import_extra(library: str, extra: str, purpose: str) -> Any:
    """Returns an optional library.

    Args:
        library: as it is imported.
        extra: of peav's, that installs it.
        purpose: what it is for, to begin a sentence with.

    Raises:
        ImportError: if it is not installed, with what to install.

    >>> import_extra("math", "x", "counting").sqrt(4.0)
    2.0
    """
    try:
        return import_module(library)
    except ModuleNotFoundError:
        raise ImportError(f"{purpose} needs {library}: pip install 'peav[{extra}]'") from None
