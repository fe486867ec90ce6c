"""VCTK and LibriSpeech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from peav.data.readers import VCTK, LibriSpeech
from tests.data.readers.helpers import lines, read, wav_bytes, write


def vctk(root: Path) -> Path:
    return write(
        root,
        {
            "txt/p225/p225_001.txt": "Please call Stella.\n",
            "txt/p226/p226_001.txt": "Ask her.",
            "txt/p226/p226_002.txt": "Gone.",
            "txt/p226/p226_003.txt": b"\xff",
            "txt/p227/p227_001.txt": "\n",
            "wav48_silence_trimmed/p225/p225_001_mic1.flac": b"x",
            "wav48_silence_trimmed/p225/p225_001_mic2.flac": b"x",
            "wav48_silence_trimmed/p226/p226_001_mic1.flac": b"x",
            "wav48_silence_trimmed/p227/p227_001_mic1.flac": b"x",
        },
    )


def test_vctk(tmp_path: Path) -> None:
    source = vctk(tmp_path / "set")
    records, rejects = read(VCTK(test_speakers=["p226"]), source)
    assert {
        clip_id: (record.audio, [item.text for item in record.transcript], record.split)
        for clip_id, record in records.items()
    } == {
        "p225_001": ("wav48_silence_trimmed/p225/p225_001_mic1.flac", ["Please call Stella."], "train"),
        "p226_001": ("wav48_silence_trimmed/p226/p226_001_mic1.flac", ["Ask her."], "test"),
        "p227_001": ("wav48_silence_trimmed/p227/p227_001_mic1.flac", [], "train"),
    }
    assert records["p227_001"].notes == ("empty transcript dropped",) and records["p225_001"].domain == "speech"
    assert [(reject.id, reject.file, reject.missing) for reject in rejects] == [
        ("p226_002", "wav48_silence_trimmed/p226/p226_002_mic1.flac", True),
        ("p226_003", "txt/p226/p226_003.txt", False),
    ]
    records, rejects = read(VCTK("mic2"), source)
    assert [record.audio for record in records.values()] == ["wav48_silence_trimmed/p225/p225_001_mic2.flac"]


def test_vctk_before_its_version_0_92(tmp_path: Path) -> None:
    source = write(tmp_path, {"txt/p225/p225_001.txt": "Please.", "wav48/p225/p225_001.wav": wav_bytes()})
    assert read(VCTK(), source)[0]["p225_001"].audio == "wav48/p225/p225_001.wav"
    with pytest.raises(ValueError, match="mic1 and mic2, got 'mic3'"):
        VCTK("mic3")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no folder 'txt'"):
        read(VCTK(), source / "wav48")
    with pytest.raises(FileNotFoundError, match="no folder wav48_silence_trimmed or wav48"):
        read(VCTK(), write(tmp_path / "other", {"txt/a": ""}))


def librispeech(root: Path) -> Path:
    write(
        root,
        {
            "train-clean-5/1/2/1-2.trans.txt": lines("1-2-0001 HELLO THERE", "1-2-0000 FIRST"),
            "dev-clean-2/3/4/3-4.trans.txt": lines("3-4-0000 GONE", "3-4-0001 DAMAGED", "3-4-0002", "3-4-0003 GOOD"),
            "dev-clean-2/3/4/3-4-0001.flac": b"no flac",
            "test-clean/5/6/5-6.trans.txt": b"5-6-0000 \xff\n",
        },
    )
    for name in ("train-clean-5/1/2/1-2-0000", "train-clean-5/1/2/1-2-0001", "dev-clean-2/3/4/3-4-0003"):
        soundfile.write(root / f"{name}.flac", np.zeros(1600, np.float32), 16000)
    return root


def test_librispeech(tmp_path: Path) -> None:
    source = librispeech(tmp_path / "set")
    records, rejects = read(LibriSpeech(), source)
    assert [
        (clip_id, record.audio, [item.text for item in record.transcript], record.split)
        for clip_id, record in records.items()
    ] == [
        ("3-4-0003", "dev-clean-2/3/4/3-4-0003.flac", ["GOOD"], "validation"),
        ("1-2-0001", "train-clean-5/1/2/1-2-0001.flac", ["HELLO THERE"], "train"),
        ("1-2-0000", "train-clean-5/1/2/1-2-0000.flac", ["FIRST"], "train"),
    ]
    assert [(reject.id, reject.file, reject.line, reject.missing) for reject in rejects] == [
        ("3-4-0000", "dev-clean-2/3/4/3-4-0000.flac", 1, True),
        ("3-4-0001", "dev-clean-2/3/4/3-4.trans.txt", 2, False),
        ("3-4-0002", "dev-clean-2/3/4/3-4.trans.txt", 3, False),
        (None, "test-clean/5/6/5-6.trans.txt", 1, False),
    ]
    assert "Lhotse cannot read it" in rejects[1].reason
    records, _ = read(LibriSpeech(parts=["train-clean-5"], normalize_text="lower"), source)
    assert [record.transcript[0].text for record in records.values()] == ["hello there", "first"]


def test_the_parts_of_librispeech(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not dev-dirty"):
        LibriSpeech(parts=["dev-dirty"])
    with pytest.raises(ValueError, match="must be none or lower, got 'upper'"):
        LibriSpeech(normalize_text="upper")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no part of LibriSpeech"):
        read(LibriSpeech(), tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder 'dev-clean'"):
        read(LibriSpeech(parts=["dev-clean"]), tmp_path)
