"""Search in one's own media: an index of windows (vectors by faiss, all else in SQLite), and queries by text, sound, picture and clip.

`Index.open(path).search(...)` is what people use; `Store` is the folder beneath it, which `peav index update` writes.
"""

from typing import TYPE_CHECKING

from peav.lazy import lazy_names

if TYPE_CHECKING:
    from peav.search.catalog import FileEntry
    from peav.search.filters import Filters
    from peav.search.found import Card, Found, Moment
    from peav.search.index import Index
    from peav.search.store import Store, StoreError
    from peav.search.terms import Example

__all__ = ["Card", "Example", "FileEntry", "Filters", "Found", "Index", "Moment", "Store", "StoreError"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Card": "peav.search.found",
        "Example": "peav.search.terms",
        "FileEntry": "peav.search.catalog",
        "Filters": "peav.search.filters",
        "Found": "peav.search.found",
        "Index": "peav.search.index",
        "Moment": "peav.search.found",
        "Store": "peav.search.store",
        "StoreError": "peav.search.store",
    },
)
