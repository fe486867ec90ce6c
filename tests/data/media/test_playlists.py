"""Media are told from playlists by how they begin, whatever they hold further on."""

import pytest

from peav.data.media.playlists import refusal

#: Text in a tag or in samples, which alone would be a description of streams on a network.
STREAMS = b" comment=c=IN IP4 224.2.17.12 "


#: A FLAC stream's first 21 bytes: block sizes of 4096, 48 kHz.
FLAC = b"fLaC\0\0\0\x22\x10\0\x10\0" + bytes(6) + b"\x0b\xb8\x02"


@pytest.mark.parametrize(
    "head",
    [
        FLAC,
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"RF64\xff\xff\xff\xffWAVEds64",
        b"RIFF\x24\x00\x00\x00AVI LIST",
        b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm",
        b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska",
        b"OggS\0\x02",
        b"\0\0\0\x20ftypisom",
    ],
)
def test_a_medium_may_hold_any_text(head: bytes) -> None:
    assert refusal(head + STREAMS) is None
    assert "is a playlist" in str(refusal(b"x" + head + STREAMS))


@pytest.mark.parametrize(
    "head",
    [
        b"RIFF\x24\x00\x00\x00FAKE",
        b"ABCD\x24\x00\x00\x00WAVE",
        b"OggX\0",
        b"\0\0\0\x20free",
        *(FLAC[:at] + byte + FLAC[at + 1 :] for at, byte in ((0, b"F"), (4, b"\x01"), (7, b"\x21"), (8, b"\x20"))),
        FLAC[:8] + bytes(4) + FLAC[12:],
        FLAC[:18] + bytes(3),
    ],
)
def test_what_only_looks_like_a_medium_is_looked_at(head: bytes) -> None:
    assert "is a playlist" in str(refusal(head + STREAMS)) and refusal(head) is None
