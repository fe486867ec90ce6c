"""`peav index export`: an index as a parquet table, which vector databases read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from peav.cli.embed_store import import_pyarrow
from peav.search.store import Store

_ROWS_AT_ONCE = 4096


def export_index(store: Store, out: Path) -> int:
    """Writes every window of the files that are alive, in the order of their numbers; returns how many.

    The columns are `id`, `path`, `start`, `seconds`, `kind`, `domain`, `transcript`, and a list of halves for each embedding, null where
    the window lacks it.

    Raises:
        ValueError: if `out` does not end in .parquet, is there already, or pyarrow is not installed.
    """
    if out.suffix != ".parquet":
        raise ValueError(f"OUT must end in .parquet, not {out.name!r}")
    if out.exists():
        raise ValueError(f"{out} is there already: delete it, or choose another name")
    arrow, parquet = import_pyarrow()
    files = {file.id: file for file in store.catalog.files()}
    vector = arrow.list_(arrow.float16(), store.dim)
    plain = {"path": arrow.string(), "start": arrow.float64(), "seconds": arrow.float64()}
    plain |= {name: arrow.string() for name in ("kind", "domain", "transcript")}
    schema = arrow.schema([("id", arrow.int64()), *plain.items(), *((name, vector) for name in store.names)])
    alive = np.array(list(files), np.int64)
    written = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    with parquet.ParquetWriter(partial, schema) as writer:
        for segment in sorted(store.segments.values(), key=lambda segment: int(segment.windows["id"][0])):
            rows = np.flatnonzero(np.isin(segment.windows["file"], alive))
            for begin in range(0, len(rows), _ROWS_AT_ONCE):
                some = rows[begin : begin + _ROWS_AT_ONCE]
                windows = segment.windows[some]
                own = [files[number] for number in windows["file"].tolist()]
                columns: dict[str, Any] = {
                    "id": windows["id"],
                    "path": [file.path for file in own],
                    "start": windows["start"],
                    "seconds": windows["seconds"],
                    "kind": [file.kind for file in own],
                    "domain": [file.domain for file in own],
                    "transcript": [file.transcript for file in own],
                }
                for name in store.names:
                    values = np.zeros((len(some), store.dim), np.float16)
                    has = np.isin(some, segment.rows.get(name, np.zeros(0, np.int64)))
                    if has.any():
                        values[has] = segment.take(name, some[has])
                    flat = arrow.array(values.reshape(-1), arrow.float16())
                    columns[name] = arrow.FixedSizeListArray.from_arrays(flat, store.dim, mask=arrow.array(~has))
                writer.write_table(arrow.table(columns, schema))
                written += len(some)
    partial.replace(out)
    return written
