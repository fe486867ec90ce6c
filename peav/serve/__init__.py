"""`peav serve`: an index behind a page in the browser, on this machine and without the network."""

from typing import TYPE_CHECKING

from peav.lazy import lazy_names

if TYPE_CHECKING:
    from peav.serve.app import make_app
    from peav.serve.settings import ServeSettings

__all__ = ["ServeSettings", "make_app"]

__getattr__, __dir__ = lazy_names(__name__, {"ServeSettings": "peav.serve.settings", "make_app": "peav.serve.app"})
