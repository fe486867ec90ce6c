"""Time, memory and recall of the search for near duplicates (peav/engine/near_pairs.py), beside faiss's exact comparison of all pairs.

    OMP_NUM_THREADS=1 python benchmarks/near_duplicates.py --clips 20000 103000 1000000 --faiss_up_to 20000

Clips have eight random hashes of 64 bits; 500 of them come again with four bits of six hashes changed and two hashes new. `recall` draws
pairs of hashes that differ in so many bits, and asks whether a key of theirs is the same, for as many pictures as are said. `words` are
clips of 80 words of sound, squares of uniform numbers, and 500 of them again without their first five.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage

import numpy as np
from numpy.typing import NDArray

from peav.engine.near import MAX_PICTURE_BITS, MIN_WORDS
from peav.engine.near_pairs import key_masks, picture_pairs, word_pairs

COPIES = 500


def changed(hashes: NDArray[np.uint64], bits: int, random: np.random.Generator) -> NDArray[np.uint64]:
    """Returns hashes of which so many bits are others."""
    places = np.tile(np.arange(64, dtype=np.uint64), (len(hashes), 1))
    chosen = random.permuted(places, axis=1)[:, :bits]
    return hashes ^ np.bitwise_or.reduce(np.uint64(1) << chosen, axis=1)


def pictures(clips: int, random: np.random.Generator) -> list[NDArray[np.uint64]]:
    """Returns the hashes of clips, the copies behind them."""
    held = list(random.integers(0, 2**64, (clips, 8), dtype=np.uint64))
    new = random.integers(0, 2**64, (COPIES, 2), dtype=np.uint64)
    return held + [np.r_[changed(own[:6], 4, random), other] for own, other in zip(held, new, strict=False)]


def words(clips: int, random: np.random.Generator) -> list[NDArray[np.uint32]]:
    """Returns the words of clips, the copies behind them."""
    held = [(random.random(80) ** 2 * 2**31).astype(np.uint32) for _ in range(clips)]
    return held + [own[5:] for own in held[:COPIES]]


def by_faiss(hashes: list[NDArray[np.uint64]], most: int) -> NDArray[np.int64]:
    """Compares all hashes with all others."""
    import faiss

    data = np.ascontiguousarray(np.concatenate(hashes)).view(np.uint8).reshape(-1, 8)
    owners = np.repeat(np.arange(len(hashes)), list(map(len, hashes)))
    index = faiss.IndexBinaryFlat(64)
    index.add(data)
    begins, _, found = index.range_search(data, most + 1)  # below the radius
    one, other = owners[np.repeat(np.arange(len(data)), np.diff(begins).astype(np.int64))], owners[found]
    return np.unique(np.stack([one, other], axis=1)[one < other], axis=0)


def measure(what: str, clips: int) -> dict[str, object]:
    """Runs one search in this process."""
    random = np.random.default_rng(0)
    held = words(clips, random) if what == "words" else pictures(clips, random)
    run: dict[str, Callable[[], NDArray[np.int64]]] = {
        "words": lambda: word_pairs(held, MIN_WORDS),
        "pictures": lambda: picture_pairs(held, MAX_PICTURE_BITS),
        "faiss": lambda: by_faiss(held, MAX_PICTURE_BITS),
    }
    before, begun = getrusage(RUSAGE_SELF).ru_maxrss, time.process_time()
    pairs = run[what]()
    seconds = time.process_time() - begun
    found = len({(one, other) for one, other in pairs.tolist() if other == clips + one})
    return {
        "what": what,
        "clips": clips,
        "CPU s": round(seconds, 2),
        "data, MB": before // 1024,
        "at most, MB": getrusage(RUSAGE_SELF).ru_maxrss // 1024,
        "pairs": len(pairs),
        f"found of {COPIES}": found,
    }


def recall(pictures_: int, random: np.random.Generator) -> str:
    """Returns a row of the table of recall by bits that differ."""
    masks, number, cells = list(key_masks(pictures_)), 4000, []
    for bits in (1, 2, 3, 4, 5, 6, 8, 10):
        differ = changed(np.zeros(number, np.uint64), bits, random)
        cells.append(100 * np.any([(differ & mask) == 0 for mask in masks], axis=0).mean())
    return f"| {pictures_:,} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |"


def main() -> None:
    """Prints the tables; each search runs in a process of its own, for its memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[20_000, 103_000])
    parser.add_argument("--words", type=int, nargs="*", default=[100_000])
    parser.add_argument("--faiss_up_to", type=int, default=20_000, help="clips; all pairs take the square of that")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]))))
        return
    jobs = [("pictures", n) for n in given.clips] + [("faiss", n) for n in given.clips if n <= given.faiss_up_to]
    rows = []
    for what, clips in [*jobs, *(("words", n) for n in given.words)]:
        command = [sys.executable, __file__, "--one", what, str(clips)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{v:,}" if isinstance(v, int | float) else str(v) for v in row.values()) + " |")
    print("\n| pictures | 1 bit | 2 | 3 | 4 | 5 | 6 | 8 | 10 |\n|" + "---:|" * 9)
    random = np.random.default_rng(0)
    for number in (10_000, 1_000_000, 8_000_000, 800_000_000):
        print(recall(number, random))


if __name__ == "__main__":
    main()
