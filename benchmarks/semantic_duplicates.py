"""Time, memory and recall of semantic duplicates (peav/data/curation/semdedup.py), by `peav data dedup`'s own code on planted ones.

    OMP_NUM_THREADS=1 python benchmarks/semantic_duplicates.py --count 1000000 --dim 128 --overlap 1 2

N vectors in fp16 lie on the disk as `peav embed` writes them. A share of them are copies of others, moved by noise: their similarity to
the original is `--similarity` on average. `random`: vectors of the unit sphere, which have no clusters, the hardest case for k-means.
`mixed`: around 10,000 centres of spread sizes, as embeddings of media rather lie.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from peav.data.curation.semdedup import SemDedup, semantic_duplicates
from peav.data.curation.vector_table import UnitRows, VectorTable


def planted(path: Path, count: int, dim: int, share: float, similarity: float, kind: str, seed: int) -> np.ndarray:
    """Writes vectors; returns (P, 2) which rows are copies of which."""
    random = np.random.default_rng(seed)
    originals = count - round(share * count)
    centres = random.normal(size=(10_000, dim)).astype(np.float32)
    weights = random.pareto(1.5, 10_000) + 0.1
    held = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.float16, (count, dim))
    for begin in range(0, originals, 65536):
        size = min(65536, originals - begin)
        block = random.normal(size=(size, dim)).astype(np.float32)
        if kind == "mixed":
            block += 1.5 * centres[random.choice(10_000, size, p=weights / weights.sum())]
        held[begin : begin + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    copies = np.sort(random.choice(originals, count - originals, replace=False))
    spread = np.sqrt(1 / similarity**2 - 1)
    for begin in range(0, len(copies), 65536):
        some = copies[begin : begin + 65536]
        noise = random.normal(size=(len(some), dim)).astype(np.float32)
        block = held[some].astype(np.float32) + spread * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        held[originals + begin : originals + begin + len(some)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    order = random.permutation(count)
    shuffled = np.lib.format.open_memmap(path.with_suffix(".shuffled.npy"), "w+", np.float16, (count, dim))
    for begin in range(0, count, 65536):
        shuffled[begin : begin + 65536] = held[order[begin : begin + 65536]]
    place = np.argsort(order)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in (("ids", np.arange(count).astype("U9")), ("audio.present", np.ones(count, bool))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, values)
        shuffled.flush()
        archive.write(path.with_suffix(".shuffled.npy"), "audio.npy")
    for one in (".npy", ".shuffled.npy"):
        path.with_suffix(one).unlink()
    return np.stack([place[originals:], place[copies]], axis=1)


def main() -> None:
    """Measures, and prints a line of JSON a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.2, help="of the vectors that are copies")
    parser.add_argument("--similarity", type=float, default=0.995, help="of a copy to its original")
    parser.add_argument("--eps", type=float, default=0.01)
    parser.add_argument("--clusters", type=int, nargs="+", default=[0])
    parser.add_argument("--overlap", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kind", choices=("random", "mixed"), default="random")
    parser.add_argument("--folder", type=Path, default=Path("runs/semantic_duplicates"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / f"{given.kind}-{given.count}-{given.dim}-{given.similarity}.npz"
    pairs_path = path.with_suffix(".pairs.npy")
    if not pairs_path.exists():
        np.save(
            pairs_path, planted(path, given.count, given.dim, given.share, given.similarity, given.kind, given.seed)
        )
    pairs = np.load(pairs_path)
    table = VectorTable(path)
    vectors = UnitRows(table, "audio", np.arange(len(table)))
    rows = [pairs[begin : begin + 65536] for begin in range(0, len(pairs), 65536)]
    within = np.concatenate(
        [np.einsum("nd,nd->n", vectors.take(some[:, 0]), vectors.take(some[:, 1])) >= 1 - given.eps for some in rows]
    )
    for clusters in given.clusters:
        for overlap in given.overlap:
            settings = SemDedup(given.eps, clusters=clusters, overlap=overlap, seed=given.seed)
            work = given.folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            begin, used = time.perf_counter(), time.process_time()
            left = semantic_duplicates(vectors, settings, work, table.stamp)
            seconds, cpu = time.perf_counter() - begin, time.process_time() - used
            found = (left.by[pairs] >= 0).any(axis=1) & within
            gone = np.flatnonzero(left.by >= 0)
            some = np.random.default_rng(0).choice(gone, min(10_000, len(gone)), replace=False)
            holds = np.einsum("nd,nd->n", vectors.take(some), vectors.take(left.by[some])) >= 1 - given.eps
            line = {
                "kind": given.kind,
                "vectors": f"{given.count:,} x {given.dim}",
                "clusters": settings.clusters_of(len(table)),
                "overlap": overlap,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "planted_within_eps": int(within.sum()),
                "recall": round(float(found.sum() / within.sum()), 4),
                "left_out": left.count,
                "named_one_stays": bool((left.by[left.by[gone]] < 0).all()),
                "named_one_within_eps": bool(holds.all()),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
