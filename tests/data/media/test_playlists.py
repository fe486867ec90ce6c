"""Media are told from playlists by how they begin, whatever they hold further on."""

import pytest

from peav.data.media.playlists import refusal

#: Text in a tag or in samples, which alone would be a description of streams on a network.
STREAMS = b" comment=c=IN IP4 224.2.17.12 "


@pytest.mark.parametrize(
    "head",
    [
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
    "head", [b"RIFF\x24\x00\x00\x00FAKE", b"ABCD\x24\x00\x00\x00WAVE", b"OggX\0", b"\0\0\0\x20free"]
)
def test_what_only_looks_like_a_medium_is_looked_at(head: bytes) -> None:
    assert "is a playlist" in str(refusal(head + STREAMS)) and refusal(head) is None
