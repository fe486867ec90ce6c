"""The words that mean a split."""

from __future__ import annotations

import pytest

from peav.data.readers.splits import split_by_folder, split_by_name


@pytest.mark.parametrize(
    ("path", "by_folder", "by_name"),
    [
        ("a.tar", None, None),
        ("train/a.tar", "train", "train"),
        ("Dev/0.tar", "validation", "validation"),
        ("test/val/a.tar", "validation", "validation"),
        ("train/x/shard-eval_00.tar", "train", "test"),
        ("data/validation-00000-of-00001.parquet", None, "validation"),
        ("trainer/testament.tar", None, None),
    ],
)
def test_the_nearest_word_says_the_split(path: str, by_folder: str | None, by_name: str | None) -> None:
    assert (split_by_folder(path), split_by_name(path)) == (by_folder, by_name)
