"""What holds for every reader."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from peav.data import readers
from peav.data.manifests.records import SPLITS, Record, Reject
from peav.data.readers import READERS, Reader
from tests.data.readers import (
    miniatures,
    test_archives,
    test_captioned,
    test_events,
    test_labels,
    test_own,
    test_speech,
)

#: A miniature of the data set of each reader, with the default choices of its reader.
MINIATURES: dict[str, Callable[[Path], Path]] = {
    "AudioCaps": test_captioned.audiocaps,
    "AudioSetStrong": test_events.audioset,
    "Clotho": test_captioned.clotho,
    "DESED": test_events.desed,
    "FineLAP": test_events.finelap,
    "Folder": test_own.folder,
    "HuggingFaceDataset": test_archives.hub,
    "JSONLines": test_own.jsonl,
    "LabelTable": test_labels.label_table,
    "LibriSpeech": test_speech.librispeech,
    "MAESTROReal": test_labels.maestro,
    "MSRVTT": test_captioned.msrvtt,
    "Table": test_own.table,
    "URBANSED": test_events.urbansed,
    "VALOR": test_captioned.valor,
    "VCTK": test_speech.vctk,
    "VGGSound": test_events.vggsound,
    "WebDatasetTars": test_archives.tars,
    **miniatures.EVALUATION_SETS,
}


def test_every_reader_has_a_miniature() -> None:
    assert set(MINIATURES) == set(READERS)
    assert {name for name in readers.__all__ if name not in ("READERS", "Reader", "Classified")} == set(READERS)


@pytest.fixture(params=sorted(READERS))
def reader(request: pytest.FixtureRequest) -> type[Reader]:
    return READERS[request.param]


def test_reading_twice_gives_the_same_in_the_same_order(reader: type[Reader], tmp_path: Path) -> None:
    source, scratch = MINIATURES[reader.__name__](tmp_path / "set"), tmp_path / "scratch"
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    made = reader()
    first = list(made.read(source, scratch, lambda _: False))
    assert (
        first
        == list(made.read(source, scratch, lambda _: False))
        == list(reader().read(source, scratch, lambda _: True))
    )
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before, "the data set was changed"
    records = [item for item in first if isinstance(item, Record)]
    assert records and all(isinstance(item, Record | Reject) for item in first)
    assert len({record.id for record in records}) == len(records)
    for record in records:
        assert record.split in SPLITS and record.files
        assert record.temporary == (record.root == scratch)
        assert all(((record.root or source) / path).is_file() for path in record.files.values())


# The clips of the others are the files that are there.
@pytest.mark.parametrize("name", sorted(set(READERS) - {"Folder", "GTZAN", "WebDatasetTars"}))
def test_files_that_are_not_there_are_reported(name: str, tmp_path: Path) -> None:
    source = MINIATURES[name](tmp_path / "set")
    missing = [
        item
        for item in READERS[name]().read(source, tmp_path / "scratch", lambda _: False)
        if isinstance(item, Reject) and item.missing
    ]
    assert missing
    for item in missing:
        assert item.file and item.reason.startswith("no ")


def test_a_folder_without_the_data_set_is_an_error_that_names_it(reader: type[Reader], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        list(reader().read(tmp_path, tmp_path / "scratch", lambda _: False))


def test_docstrings_explain_every_choice(reader: type[Reader]) -> None:
    text = inspect.getdoc(reader) or ""
    assert "\nArgs:\n" in text
    for name, parameter in inspect.signature(reader).parameters.items():
        assert f"    {name}: " in text, f"{reader.__name__} does not explain {name}"
        assert parameter.default is not inspect.Parameter.empty, "a reader can be made by its name alone"
        assert parameter.annotation is not inspect.Parameter.empty
