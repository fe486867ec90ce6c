"""What people have, on every way to a model, held against FFmpeg's own command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.media.formats import FORMATS, Format
from tests.data.media.ways import WAYS, compare

#: One of each kind that went wrong once; the rest take minutes.
_EVERY_TIME = (
    "surround.wav",
    "adpcm_ima.wav",
    "endless.wav",
    "piped.flac",
    "joined.mp3",
    "joined.ogg",
    "gap.mkv",
    "bframes.avi",
    "second.mkv",
    "cover_first.mkv",
    "resized.mkv",
    "variable.mp4",
)

_CASES = [
    pytest.param(form, id=form.name, marks=() if form.name in _EVERY_TIME else pytest.mark.slow) for form in FORMATS
]


@pytest.mark.parametrize("form", _CASES)
def test_every_way_is_ffmpegs(form: Format, tmp_path: Path) -> None:
    path = tmp_path / form.name
    form.make(path)
    faults = {}
    for way in WAYS:
        scratch = tmp_path / way
        scratch.mkdir()
        faults[way] = compare(path, form, way, scratch)
    assert faults == {way: [] for way in WAYS}
