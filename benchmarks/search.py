"""Exact search in many windows: the index of peav beside faiss flat and usearch, in the same run.

    python benchmarks/search.py --windows 1000000

Vectors of 1,024 in fp16 with log-normal norms, in segments as `peav index update` leaves them; ten best of each query, with all windows
and under a filter that keeps a tenth. Memory is what the process grows by, the pages of the file that it has read included.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from peav.search.ranking import rank
from peav.search.segment import WINDOW, Segment, write_segment
from peav.search.store import SEGMENT_WINDOWS

DIM = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write 2 KB a window; a temporary folder by default")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        run(folder, options.windows, options.queries)
    finally:
        shutil.rmtree(folder)


def vectors(begin: int, count: int) -> np.ndarray:
    random = np.random.default_rng([0, begin])
    values = random.standard_normal((count, DIM), np.float32)
    return (values * random.lognormal(0.0, 0.5, (count, 1)) / np.sqrt(DIM)).astype(np.float16)


def run(folder: Path, windows: int, queries: int) -> None:
    print(f"{windows} x {DIM}, fp16; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    sizes, begun = [], time.perf_counter()
    for begin in range(0, windows, SEGMENT_WINDOWS):
        count = min(SEGMENT_WINDOWS, windows - begin)
        rows = np.zeros(count, WINDOW)
        rows["id"], rows["file"] = np.arange(begin, begin + count), np.arange(begin, begin + count) // 100
        sizes.append(
            write_segment(folder / str(len(sizes)), rows, {"audio": (np.arange(count), vectors(begin, count))})
        )
    print(f"written in {time.perf_counter() - begun:.1f} s")
    asked = np.random.default_rng(1).standard_normal((queries, DIM), np.float32)
    tenth = [
        np.random.default_rng([2, number]).random(size["windows.npy"] // 32) < 0.1 for number, size in enumerate(sizes)
    ]
    before = resident()
    segments = [Segment(folder / str(number), size) for number, size in enumerate(sizes)]
    masks = [mask[: len(segment)] for mask, segment in zip(tenth, segments, strict=True)]
    found: dict[str, list[list[int]]] = {}

    def measure(name: str, function: Callable[[np.ndarray], list[int]]) -> None:
        function(asked[0])
        times, cpu, answers = [], [], []
        for query in asked:
            begun, used = time.perf_counter(), time.process_time()
            answers.append(function(query))
            times.append(time.perf_counter() - begun)
            cpu.append(time.process_time() - used)
        found[name] = answers
        print(
            f"{name:28} {1000 * statistics.median(times):7.0f} ms median, {1000 * statistics.median(cpu):7.0f} ms of CPU"
        )

    measure("peav", lambda query: rank(segments, [None] * len(segments), {"audio": query}, 10).windows["id"].tolist())
    measure("peav, a tenth", lambda query: rank(segments, masks, {"audio": query}, 10).windows["id"].tolist())
    print(f"memory: {(resident() - before) / 1e9:.2f} GB of {windows * DIM * 2 / 1e9:.2f} GB of vectors")
    segments.clear()
    flat = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for begin in range(0, windows, SEGMENT_WINDOWS):
        flat.add(vectors(begin, min(SEGMENT_WINDOWS, windows - begin)).astype(np.float32))
    measure("faiss, one flat index", lambda query: flat.search(query[None], 10)[1][0].tolist())
    bits = np.packbits(np.concatenate(masks), bitorder="little")
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
    measure("faiss, a tenth", lambda query: flat.search(query[None], 10, params=chosen)[1][0].tolist())
    flat.reset()
    assert found["peav"] == found["faiss, one flat index"] and found["peav, a tenth"] == found["faiss, a tenth"]
    if importlib.util.find_spec("usearch") is not None:
        from usearch.index import MetricKind, search

        every = np.concatenate(
            [vectors(b, min(SEGMENT_WINDOWS, windows - b)) for b in range(0, windows, SEGMENT_WINDOWS)]
        )
        halves = asked.astype(np.float16)
        places = {query.tobytes(): number for number, query in enumerate(asked)}
        measure(
            "usearch, exact",
            lambda query: search(every, halves[places[query.tobytes()]], 10, MetricKind.IP, exact=True).keys.tolist(),
        )
        same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found["peav"], found["usearch, exact"], strict=True)])
        print(f"of the ten best, usearch (queries in fp16) finds {same:.1%}")
    print(f"greatest resident size of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def resident() -> int:
    """Bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
