"""The commands of `peav data`: thin functions over `peav.data`, whose docstrings are the help of the command line."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from peav.cli.names import Names, names_of

Split = Literal["train", "validation", "test"]
Splits = Literal["all", "train", "validation", "test"]


class DataError(RuntimeError):
    """Validation found errors."""


def inspect(data: str, *, out: Path | None = None, split: Split = "train", clips: int = 24, seed: int = 0) -> None:
    """Write a page of numbers and clips to look at, and an overview as a PNG beside it.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        out: the HTML file; inspect.html in the folder of the data by default.
        split: `train`, `validation` or `test`.
        clips: how many to show, spread over the domains.
        seed: of which are shown.
    """
    from peav.data.curation.page import inspect_manifest
    from peav.data.stores.remote import is_remote

    if out is None and is_remote(data):
        raise ValueError(f"{data} is an object store: say with --out=FILE.html where to write the page")
    page = inspect_manifest(data, split, out, clips, seed)
    failed = f", {page.failed} of which cannot be decoded" if page.failed else ""
    print(f"wrote {page.html} and {page.png}: {page.clips} clips{failed}")


def validate(
    data: str, *, split: Splits = "all", check_bytes: bool = True, out: Path | None = None, progress: bool = True
) -> None:
    """Read every line of the manifests and every row of the shards, and list all that is wrong.

    The exit status is 1 where there are errors; notes are what may well be meant.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        split: `train`, `validation`, `test`, or `all` that there are.
        check_bytes: read all media and compare their ids and checksums; without it the rows alone are checked.
        out: JSONL file that gets every problem; the terminal shows the first of each kind.
        progress: show how far it is.
    """
    from rich.console import Console

    from peav.data.curation.validate import validate as run

    report = run(data, split, check_bytes, problems_file=out, progress=progress)
    Console().print(report.to_rich())
    if out is not None:
        print(f"wrote {out}")
    if report.errors:
        raise DataError(f"{report.errors:,} errors in {data}")


def stats(data: str, *, split: Splits = "all", out: Path | None = None) -> None:
    """Count hours, modalities, captions, events, and what occurs more than once.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        split: `train`, `validation`, `test`, or `all` that there are, together.
        out: JSON file to write the numbers to as well.
    """
    from rich.console import Console

    from peav.data.curation.stats import manifest_stats
    from peav.data.curation.validate import splits_of
    from peav.data.manifests.manifest import find_manifest, iter_manifest
    from peav.data.stores.shards import write_json

    paths = [find_manifest(data, name) for name in (splits_of(data) if split == "all" else [split])]
    found = manifest_stats(clip for _, clip in chain.from_iterable(iter_manifest(path) for path in paths))
    Console().print(found.to_rich())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, json.loads(json.dumps(found.to_json())))
        print(f"wrote {out}")


def split(
    data: str,
    out: Path,
    *,
    splits: Names = (),
    by: Literal["recording", "id", "dataset"] = "recording",
    validation: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Distribute the clips anew among train, validation and test; the shards stay where they are.

    For example: peav data split DATA DATA-split --validation=0.1

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store; it is not changed.
        out: folder to write.
        splits: whose clips are distributed, such as `[train, validation]`; those of the others stay in theirs. All by default.
        by: what stays together: `recording`, clips of one source file or with the same sound or picture; `dataset`, clips of one
            data set; `id`, nothing but a clip.
        validation: share of the groups.
        test: likewise; the rest is for training.
        seed: of which group falls to which split.
        overwrite: replace what an earlier edit wrote to `out`.
    """
    from peav.data.curation.edit import split_manifest

    _print(split_manifest(data, out, names_of(splits), by, validation, test, seed, overwrite))


def mix(
    sources: list[str],
    *,
    out: Path,
    domains: Names = (),
    datasets: Names = (),
    licences: Names = (),
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    has_audio: bool | None = None,
    has_video: bool | None = None,
    with_captions: Names = (),
    shares: dict[str, float | str] | None = None,
    tokenizer: Literal["train", "copy"] = "train",
    vocab_size: int = 2048,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Put the clips of several prepared folders into one; the shards stay where they are.

    Clips of equal ids become NAME/ID. No clip is written twice: how often a domain is seen in training is the loader's to decide, see
    `domain_weights` of the data module.

    For example: peav data mix talks=/data/a songs=s3://bucket/b --out=mixed --domains='[speech, music]' --min_seconds=2

    Args:
        sources: prepared folders or addresses, each as ADDRESS or NAME=ADDRESS; clips without a data set get the name as theirs.
        out: folder to write.
        domains: only clips of this domain, or of one of these: `music` or `[music, speech]`.
        datasets: likewise of these data sets.
        licences: likewise of these licences.
        min_seconds: only clips of this duration at least.
        max_seconds: at most.
        has_audio: only clips with sound (true), or without (false).
        has_video: only clips with a picture, or without.
        with_captions: only clips with a caption of this type, or of each of these types.
        shares: by name, how much of the training clips of a source: a factor up to 1, or hours such as `10h`; all by default.
        tokenizer: `train` one on the training texts of the mix, or `copy` that of the first source.
        vocab_size: tokens of one that is trained.
        seed: of which clips a share takes.
        overwrite: replace what an earlier edit wrote to `out`.
    """
    from peav.data.curation.edit import mix as run
    from peav.data.curation.where import Where

    where = Where(
        names_of(domains),
        names_of(datasets),
        names_of(licences),
        min_seconds,
        max_seconds,
        has_audio,
        has_video,
        names_of(with_captions),
    )
    _print(run(out, sources, where, shares, tokenizer, vocab_size, seed, overwrite))


def dedup(
    data: str,
    out: Path,
    *,
    vectors: Path,
    splits: Names = ("train",),
    eps: float = 0.01,
    keep: Literal["hard", "easy", "random"] = "hard",
    clusters: int = 0,
    missing: Literal["error", "stay"] = "error",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Leave out clips whose vectors are nearly those of others (SemDeDup); the shards stay where they are.

    The clips are clustered by k-means, and compared inside clusters. Each clip that is left out stands in OUT/duplicates.jsonl with one
    that stays and is within `eps`, and their similarity. Vectors are read from the disk as they are wanted, and need not fit the memory.
    What was computed is kept in OUT/semantic: another `eps` with --overwrite clusters nothing anew.

    For example: peav data dedup DATA DATA-unique --vectors=vectors.npz --eps=0.02

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store; it is not changed.
        out: folder to write.
        vectors: the .npz of `peav embed` over the files of the clips, or the folder of `peav predict` over the clips.
        splits: whose clips are compared, all with each other; those of other splits stay as they are.
        eps: cosine distance up to which a clip is a duplicate of one that stays.
        keep: which of them stays: the one farthest from the centroid of its cluster (`hard`), the nearest (`easy`), or any (`random`).
        clusters: of k-means; 0 for as many as fit the number of clips.
        missing: clips without a vector are an `error`, or they all `stay`.
        seed: of k-means and of `random`.
        overwrite: replace what an earlier edit wrote to `out`.
    """
    from peav.data.curation.clip_duplicates import SemanticOptions
    from peav.data.curation.dedup import dedup_manifest
    from peav.data.curation.semdedup import SemDedup

    options = SemanticOptions(str(vectors), SemDedup(eps, keep, clusters, seed=seed), missing)
    _print(dedup_manifest(data, out, options, names_of(splits), overwrite))


def trust(data: str) -> None:
    """Say once that the manifests of a folder may name stores outside of it; lists them.

    `peav data split` and `mix` say it of what they write. A folder that was written elsewhere, or moved, asks for it.

    Args:
        data: folder whose manifests name shards by their full path, or its address in an object store.
    """
    from peav.data.curation.validate import splits_of
    from peav.data.manifests.manifest import open_manifest
    from peav.data.stores.outside import remember, remembered_at

    stores = dict.fromkeys(chain.from_iterable(open_manifest(data, split).index.stores for split in splits_of(data)))
    outside = remember(data, stores)
    for store in outside:
        print(store)
    said = (
        f"{len(outside)} stores outside of it may be read, as {remembered_at()} says"
        if outside
        else "all its stores lie in it"
    )
    print(f"{data}: {said}")


def _print(report: Any) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in report.clips.items())
    print(f"wrote {report.out}: {counts} clips, {report.hours:.2f} h")
    for note in report.notes:
        print(note)
