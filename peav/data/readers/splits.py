"""Which split a file belongs to, and which splits of a data set are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from peav.data.manifests.fields import hint
from peav.data.manifests.records import SPLIT_WORDS, SPLITS

_NAMES = {**{split: split for split in SPLITS}, **SPLIT_WORDS}


def split_of_name(name: str) -> str | None:
    """Returns the split that a word means, in any of its usual forms; None where it means none.

    >>> split_of_name("val"), split_of_name("Evaluation"), split_of_name("unbalanced")
    ('validation', 'test', None)
    """
    return _NAMES.get(name.lower())


def split_by_folder(path: str) -> str | None:
    """Returns the split that a file belongs to by the names of its folders, the nearest first; None where none names one.

    >>> split_by_folder("audio/valid/a.wav"), split_by_folder("test.wav")
    ('validation', None)
    """
    found = (split_of_name(name) for name in reversed(PurePosixPath(path).parts[:-1]))
    return next((split for split in found if split), None)


def split_by_name(path: str) -> str | None:
    """Returns the split that an archive belongs to by the words of its name, else by its folders.

    >>> split_by_name("data/train-00000-of-00002.parquet"), split_by_name("eval/0.tar")
    ('train', 'test')
    """
    words = "".join(char if char.isalnum() else " " for char in PurePosixPath(path).stem).split()
    found = (split_of_name(word) for word in words)
    return next((split for split in found if split), None) or split_by_folder(path)


def check_split(split: str | None) -> str | None:
    """Returns a split, or None.

    Raises:
        ValueError: if it is no split.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}, got {split!r}{hint(split, SPLITS)}")
    return split


def check_splits(splits: Iterable[str] | None) -> tuple[str, ...] | None:
    """Returns splits, or None.

    Raises:
        ValueError: if one is no split, or there is none.
    """
    if splits is None:
        return None
    splits = (splits,) if isinstance(splits, str) else tuple(splits)
    if not splits:
        raise ValueError(f"give at least one of the splits {', '.join(SPLITS)}, or leave the choice out")
    for split in splits:
        check_split(split)
    return splits


def choose_splits(source: Path, tables: Mapping[str, str], splits: tuple[str, ...] | None) -> dict[str, str]:
    """Returns the files to read by split.

    Args:
        source: folder of the data set.
        tables: the file of each split, relative to it.
        splits: those to read, whether or not their file is there; by default those whose file is there.

    Raises:
        FileNotFoundError: if by default none is there.
        ValueError: if the data set has no such split.
    """
    if splits is not None:
        if unknown := [split for split in splits if split not in tables]:
            raise ValueError(f"the data set has the splits {', '.join(tables)}, not {', '.join(unknown)}")
        return {split: tables[split] for split in splits}
    found = {split: table for split, table in tables.items() if (source / table).is_file()}
    if not found:
        raise FileNotFoundError(
            f"none of the files {', '.join(tables.values())} is in {source}: one at least must be there"
        )
    return found
