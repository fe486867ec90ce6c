"""What people have, on every way to a model, held against FFmpeg's own command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from peav.data import load_audio, open_manifest, prepare
from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.data.readers import Folder
from tests.data.conftest import RATE, cut_bytes, ffmpeg, write_float_wav
from tests.data.media.formats import FORMATS, Format
from tests.data.media.ways import WAYS, compare

#: One of each kind that went wrong once; the rest take minutes.
_EVERY_TIME = (
    "adpcm_ima.wav",
    "joined.mp3",
    "gap.mp4",
    "variable.mp4",
)

#: Only what is embedded of these is held against FFmpeg every time: a first packet that does not say how long it lasts, a time stamp
#: before 0, a gap that a page of Ogg hides.
_EMBEDDED = ("alac.mka", "speex.spx", "gap.ogg")

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


@pytest.mark.parametrize("form", [form for form in FORMATS if form.name in _EMBEDDED], ids=lambda form: form.name)
def test_what_is_embedded_is_ffmpegs(form: Format, tmp_path: Path) -> None:
    form.make(tmp_path / form.name)
    assert compare(tmp_path / form.name, form, "embed", tmp_path) == []


@pytest.mark.parametrize(("name", "codec"), [("gap.mkv", "flac"), ("gap.mp4", "aac")])
def test_a_click_behind_a_gap_is_heard_when_it_is(tmp_path: Path, name: str, codec: str) -> None:
    """Two seconds of sound are missing; what comes after them stays where it is, on every way."""
    root = tmp_path / "source"
    root.mkdir()
    click = "aevalsrc='if(between(t,4.5,4.51),0.9,0)':s=16000:d=5"
    picture = "testsrc=s=64x64:r=25:d=5"
    drop = ["-af", "aselect='not(between(t,2,3.999))'", "-c:v", "libx264", "-threads", "1", "-c:a", codec]
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", click, *drop, str(root / name))
    assert load_audio(root / name, RATE).argmax() / RATE == pytest.approx(4.5, abs=0.01)
    for seconds in (0, 2):
        out = tmp_path / f"out-{seconds}"
        prepare(root, out, reader=Folder(), chunk_seconds=seconds, workers=0, progress=False)
        clip = list(open_manifest(out, "train"))[-1]
        samples = ClipReader(str(out), DecodeSettings(RATE)).samples(clip)
        assert clip.start + samples.argmax() / RATE == pytest.approx(4.5, abs=0.01)


@pytest.mark.parametrize("name", ["sound.aac", "sound.ogg", "sound.mkv", "sound.mp3", "video.avi", "video.ts"])
def test_half_a_file_is_whole_or_refused_in_words(tmp_path: Path, name: str) -> None:
    """A download that broke off: what the file does not announce it need not hold; no message of a library reaches the user."""
    root = tmp_path / "source"
    root.mkdir()
    tone, picture = "sine=f=440:d=6", "testsrc=s=64x64:r=25:d=6"
    pictures = ["-f", "lavfi", "-i", picture, "-c:v", "mpeg4"] if name.startswith("video") else []
    ffmpeg("-f", "lavfi", "-i", tone, *pictures, "-threads", "1", str(tmp_path / name))
    cut_bytes(tmp_path / name, root / name, 0.5)
    ffmpeg("-f", "lavfi", "-i", tone, str(root / "whole.wav"))
    report = prepare(root, tmp_path / "out", reader=Folder(), workers=0, progress=False)
    clips = {clip.files["media"]: clip for clip in open_manifest(tmp_path / "out", "train")}
    reasons = {reject.file: reject.reason for reject in report.rejects}
    assert {*clips, *reasons} == {name, "whole.wav"}
    if name in clips:
        assert 2 < clips[name].duration < 4
    else:
        assert "truncated" in reasons[name] or "damaged" in reasons[name] or "decoded" in reasons[name]
        assert "report" not in reasons[name] and "torchcodec" not in reasons[name]


def test_a_chunk_of_a_float_wav_that_holds_nan_is_refused_alone(tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    samples = np.full(5 * RATE, 1.5, np.float32)
    samples[RATE // 2] = np.nan
    write_float_wav(root / "a.wav", samples)
    report = prepare(root, tmp_path / "out", reader=Folder(), chunk_seconds=2, workers=0, progress=False)
    assert [reject.reason for reject in report.rejects] == ["the audio holds NaN or infinite samples"]
    clips = list(open_manifest(tmp_path / "out", "train"))
    assert [clip.start for clip in clips] == [2.0, 4.0]
    # Beyond full scale nothing is clipped.
    assert float(ClipReader(str(tmp_path / "out"), DecodeSettings(RATE)).samples(clips[0]).max()) == 1.5
