"""A result as JSON, with everything that decides a number in it; and the sidecar with what became of each query."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from peav.evaluation.collect import PassOptions, Split
from peav.evaluation.intervals import HOW, Queries, share_intervals
from peav.evaluation.models import EvaluatedModel

#: Packages whose version may change a number.
PACKAGES = ("peav", "torch", "torchcodec", "torchmetrics", "transformers", "timm", "numpy")

RESULT, TABLE, QUERIES = "evaluation.json", "evaluation.md", "evaluation.queries.npz"


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Returns the versions of Python and of packages, those that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_protocol(model: EvaluatedModel, options: PassOptions) -> dict[str, Any]:
    """Returns what was done to a clip before it was scored, which two results must share to be compared."""
    return {
        **asdict(model.settings),
        "frame_size": list(model.settings.frame_size),
        "window_seconds": options.window_seconds,
        "overlap_seconds": options.overlap_seconds,
        "frame_windows": list(model.frame_windows) if model.frame_scale is not None else None,
        "precision": model.precision,
        "kept": options.kept,
    }


def describe_data(split: Split, undecodable: Mapping[str, str]) -> dict[str, Any]:
    """Returns what was evaluated: the digest of the split, and the clips that could not be decoded."""
    return {
        "split": split.split,
        "fingerprint": split.fingerprint(),
        "num_clips": len(split),
        "undecodable": dict(sorted(undecodable.items())),
    }


def recall_intervals(queries: Mapping[str, Queries], ks: Sequence[int] = (1,)) -> dict[str, dict[str, list[float]]]:
    """Returns the intervals of R@k by direction, of plain scores and after the dual softmax."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, query in queries.items():
        shares = {f"R@{k}": query.hits(k, False) for k in ks} | {f"dual_softmax_R@{k}": query.hits(k, True) for k in ks}
        found[name] = share_intervals(shares)
    return found


def write_result(
    folder: Path, results: Mapping[str, Any], queries: Mapping[str, Queries], ids: Mapping[str, Sequence[str]]
) -> None:
    """Writes a result and what became of its queries.

    Args:
        folder: to write.
        results: the JSON.
        queries: by task or direction.
        ids: the clips' ids by the same names.
    """
    (folder / RESULT).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    arrays: dict[str, Any] = {}
    for name, query in queries.items():
        arrays |= {f"{name}/ranks": query.ranks, f"{name}/dual_ranks": query.dual_ranks, f"{name}/clips": query.clips}
        arrays[f"{name}/ids"] = np.array(list(ids[name]), np.str_)
    np.savez_compressed(folder / QUERIES, **arrays)


def read_queries(path: Path) -> tuple[dict[str, Queries], dict[str, list[str]]]:
    """Reads the sidecar of a result.

    Args:
        path: of the result's JSON.

    Raises:
        FileNotFoundError: if it is not there.
    """
    beside = path.with_name(QUERIES)
    if not beside.is_file():
        raise FileNotFoundError(
            f"{beside} is not there: it lies beside {path.name}, and says what became of each query"
        )
    with np.load(beside) as held:
        names = [key.removesuffix("/ranks") for key in held.files if key.endswith("/ranks")]
        queries = {n: Queries(held[f"{n}/clips"], held[f"{n}/ranks"], held[f"{n}/dual_ranks"]) for n in names}
        ids = {name: held[f"{name}/ids"].tolist() for name in names}
    return queries, ids


def interval_settings() -> dict[str, Any]:
    """Returns how intervals are made."""
    return dict(HOW)
