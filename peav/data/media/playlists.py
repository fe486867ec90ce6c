"""Refusing files that make FFmpeg open others: playlists, scripts and stream descriptions, whatever their names say.

FFmpeg finds the kind of a file by its first bytes, and a playlist of HLS, a list of ffconcat, a DASH manifest or an SDP description that
is called `song.mp3` would make it open whatever other files and addresses it lists. A medium is one file; these are none.
"""

from __future__ import annotations

from pathlib import Path

from peav.opening import is_regular

#: Bytes that FFmpeg looks at before it decides what a file is.
_PROBED = 1 << 20

#: What playlists and scripts begin with, once spaces, marks of byte order and NULs are left out.
_BEGINNINGS = (
    b"#extm3u",
    b"ffconcat",
    b"<",  # DASH, SMIL, XSPF, IMF and SVG are XML
    b"[playlist]",
    b"[reference]",
    b"# vobsub",
    b"rtsptext",
    b"v=0",
    b"import ",
)

#: What web pages begin with, which servers send in place of media that they do not have.
_WEB_PAGES = (b"<!doctype html", b"<html")

#: A description of streams on the network is known by this line, wherever it stands.
_STREAMS = b"c=IN IP"

#: Extensions by which FFmpeg takes a file for a script or a list without a look at its bytes.
_EXTENSIONS = (
    *(".m3u", ".m3u8", ".pls", ".asx", ".xspf", ".smil", ".ram", ".mpd", ".sdp", ".ffconcat", ".concat", ".cue"),
    *(".avs", ".avsi", ".vpy", ".rtsp", ".imf"),
)


def refusal(source: str | Path | bytes) -> str | None:
    r"""Says why a file must not be handed to FFmpeg; None where it may.

    Args:
        source: path or bytes.

    >>> refusal(b"#EXTM3U\nhttp://example.org/a.ts"), refusal(b"RIFF....WAVEfmt ")
    ('is a playlist, which would make FFmpeg open other files', None)
    """
    if isinstance(source, bytes):
        head = source[:_PROBED]
    else:
        path = Path(source)
        if path.suffix.lower() in _EXTENSIONS:
            return f"is called {path.suffix}, by which FFmpeg takes it for a playlist or a script"
        if "%" in path.name and not path.is_file():
            return "is a pattern of names, not a file"
        if not is_regular(path):
            return "is no plain file"
        with path.open("rb") as stream:
            head = stream.read(64)
            if not _is_medium(head):
                head += stream.read(_PROBED - len(head))
    if _is_medium(head):
        return None
    begin = head[:2048].lower().replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    if begin.startswith(_WEB_PAGES):
        return "is a web page, not a medium: what was to be downloaded was not"
    if begin.startswith(_BEGINNINGS) or _STREAMS in head:
        return "is a playlist, which would make FFmpeg open other files"
    return None


def _is_medium(head: bytes) -> bool:
    """Returns whether bytes begin as a container that FFmpeg takes for nothing else, so that no further ones need be looked at."""
    riff = head[:4] in (b"RIFF", b"RF64") and head[8:12] in (b"WAVE", b"AVI ")
    matroska = head[:4] == b"\x1aE\xdf\xa3" and (b"webm" in head[:64] or b"matroska" in head[:64])
    mp4 = head[:2] == b"\0\0" and head[4:8] == b"ftyp"
    return riff or matroska or mp4 or head[:5] == b"OggS\0" or _is_flac(head)


def _is_flac(head: bytes) -> bool:
    """Returns whether bytes begin as a FLAC stream with all that FFmpeg asks of one to be sure (`flac_probe` in libavformat/flacdec.c)."""
    if len(head) < 21 or head[:4] != b"fLaC" or head[4] & 0x7F or head[5:8] != b"\0\0\x22":
        return False
    shortest, longest = int.from_bytes(head[8:10]), int.from_bytes(head[10:12])
    return 16 <= shortest <= longest and 0 < int.from_bytes(head[18:21]) >> 4 <= 655350
