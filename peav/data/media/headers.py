"""What the first bytes of a file say about its sound, read without FFmpeg: whether header and samples are bound to agree.

Ordinary wav, flac, mp4, mp3 and ogg whose pages are alike are known for what they are within a millisecond or two. All other files are
asked by `ffprobe`, which takes a process and a look at every packet (`peav.data.media.tracks`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

#: `exact`: any span of the sound is what the whole has there. `whole`: the whole is right, spans may not be. `odd`: torchcodec
#: errs. None: the header does not tell.
Sound = Literal["exact", "whole", "odd"]

#: Lengths from here on are what writers to a pipe leave in a wav: 0x7FFFF000 is SoX's, 0xFFFFFFFF FFmpeg's.
UNKNOWN_LENGTH = 0x7FFF0000

#: Format tags of wav that hold one sample after another: PCM, floating point, A-law and mu-law, and "see further down".
_PLAIN_TAGS = (1, 3, 6, 7)
_EXTENSIBLE = 0xFFFE

#: What stands behind the sound of an mp3 that is one file: nothing, or tags.
_MP3_ENDS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")

#: ID3v2 (name, version, flags, a length of seven bits a byte) and ID3v1.
_TAGS = re.compile(rb"ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}|TAG", re.DOTALL)

#: Bit rates of layer III by their numbers, of MPEG 1 and of MPEG 2.
_KILOBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KILOBITS_HALF = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)

#: What a table of an mp4 may take, bytes: that of a day of sound has a quarter of it.
_MOOV_BYTES = 1 << 26


def container(source: str | Path | bytes) -> str:
    """Returns what a file is by its first bytes: `wav`, `flac`, `mp3`, `ogg`, `mp4`, `avi`, `flv`, `mpeg` or `other`."""
    if isinstance(source, bytes):
        head = source[:400]
    else:
        with open(source, "rb") as stream:
            head = stream.read(400)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] in (b"fLaC", b"OggS"):
        return {b"fLaC": "flac", b"OggS": "ogg"}[head[:4]]
    if head[:3] == b"FLV":
        return "flv"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mp4"
    # TS has packets of 188 bytes that begin with 0x47, before each of which Blu-ray and AVCHD put 4 bytes.
    if b"\x47\x47" in (head[:189:188], head[4:197:192]) or head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    if head[:3] == b"ID3" or (len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "mp3"
    return "other"


def judge_sound(path: str | Path, kind: str) -> Sound | None:
    """Judges the sound of a file by its header.

    Args:
        path: the file.
        kind: what `container` calls it.
    """
    with open(path, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        judge = {"wav": _wav, "flac": _flac, "mp3": _mp3, "mp4": _mp4, "ogg": _ogg}.get(kind)
        return judge(stream, size) if judge is not None else None


def wav_data(stream: BinaryIO) -> tuple[int, int, int] | None:
    """Finds the samples of a wav; the stream stands behind the first twelve bytes, or anywhere before its chunks.

    Returns:
        The format tag, the length that is announced and the place of the first sample, bytes; None where there is no data chunk.
    """
    stream.seek(12)
    tag = long = 0
    while len(chunk := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        at = stream.tell()
        if name == b"fmt ":
            body = stream.read(min(length, 40))
            tag = struct.unpack_from("<H", body)[0] if len(body) > 1 else 0
            if tag == _EXTENSIBLE and len(body) >= 26:
                tag = struct.unpack_from("<H", body, 24)[0]
        elif name == b"ds64":
            long = struct.unpack("<8xQ8x", stream.read(24))[0]
        elif name == b"data":
            return tag, long if length == 0xFFFFFFFF and long else length, at
        stream.seek(at + length + length % 2)
    return None


def _wav(stream: BinaryIO, size: int) -> Sound:
    found = wav_data(stream)
    if found is None:
        return "exact"  # torchcodec says what is wrong
    tag, length, begin = found
    # Where there is nothing, nothing need be known.
    known = 0 < length < UNKNOWN_LENGTH or 0 < length <= size - begin or begin >= size
    return "exact" if tag in _PLAIN_TAGS and known else "odd"


def _flac(stream: BinaryIO, size: int) -> Sound:
    # Of STREAMINFO: 20 bits of sample rate, 3 of channels, 5 of width, 36 of the number of samples.
    fields = int.from_bytes(stream.read(26)[18:26], "big")
    return "exact" if fields & ((1 << 36) - 1) else "odd"


def _ogg(stream: BinaryIO, size: int) -> Sound | None:
    """A stream that begins after another is a second file behind the first; a page that lasts long for its packets hides a gap.

    Packets of Vorbis are long and short ones, and a gap may hide among short ones: where pages are not alike, all packets are asked.
    """
    begun, serials = False, set()
    before, pages = 0, []
    while len(head := stream.read(27)) == 27 and head[:4] == b"OggS":
        table = stream.read(head[26])
        stream.seek(sum(table), 1)
        first = bool(head[5] & 2)
        if first and begun:
            return "odd"
        begun = begun or not first
        serials.add(head[14:18])
        granule, packets = struct.unpack_from("<q", head, 6)[0], sum(length < 255 for length in table)
        if granule > 0 and packets:
            pages.append((granule - before, packets))
            before = granule
    if len(serials) != 1 or not pages:
        return None
    middle = sorted(lasts / packets for lasts, packets in pages)[len(pages) // 2]
    return "whole" if all(abs(lasts - packets * middle) <= middle for lasts, packets in pages) else None


def _mp3(stream: BinaryIO, size: int) -> Sound | None:
    """An mp3 is what its Xing, Info or VBRI header says if that counts all of its bytes."""
    begin = 0
    while (tag := stream.read(10))[:3] == b"ID3" and len(tag) == 10:
        begin += 10 + _seven_bits(tag[6:10])
        begin += 10 if tag[5] & 0x10 else 0
        stream.seek(begin)
    stream.seek(begin)
    frame = stream.read(4096)
    # Padding may lie between the tag and the first frame.
    start = next((at for at in range(len(frame) - 1) if frame[at] == 0xFF and frame[at + 1] & 0xE0 == 0xE0), None)
    if start is None or frame[start + 1] & 0x06 != 0x02:
        return None  # not of layer III, or no mp3
    for name in (b"Xing", b"Info"):
        at = frame.find(name, start, start + 64)
        if at >= 0:
            flags = int.from_bytes(frame[at + 4 : at + 8], "big")
            counted = int.from_bytes(frame[at + 12 : at + 16], "big") if flags & 3 == 3 else 0
            # Where bytes are missing, that is seen when it is decoded.
            stream.seek(begin + start + counted)
            after = stream.read(4096).lstrip(b"\0")
            return "whole" if counted and (not after or after.startswith(_MP3_ENDS)) else "odd"
    return "odd"


def _seven_bits(length: bytes) -> int:
    """Returns a length of ID3v2: four bytes of seven bits."""
    return sum((byte & 0x7F) << shift for byte, shift in zip(length, (21, 14, 7, 0), strict=True))


def _mp4(stream: BinaryIO, size: int) -> Sound | None:
    """The table of an mp4 has the duration of every packet of sound: equal ones leave no gap."""
    moov = None
    for name, at, length in _boxes(stream, 0, size):
        if name == b"moof":
            return "odd"  # torchcodec 0.11 loses what the first fragments begin with
        if name == b"moov" and length <= _MOOV_BYTES:
            stream.seek(at)
            moov = stream.read(length)
    if moov is None:
        return None
    sounds = [track for track in map(_track, _children(moov, b"trak")) if track is not None]
    return "exact" if sounds and all(sounds) else None


def count_videos(path: str | Path) -> int:
    """Returns the tracks of pictures that the table of an mp4 lists; 0 where it has none."""
    with open(path, "rb") as stream:
        size = stream.seek(0, 2)
        for name, at, length in _boxes(stream, 0, size):
            if name == b"moov" and length <= _MOOV_BYTES:
                stream.seek(at)
                return sum(_handler(track) == b"vide" for track in _children(stream.read(length), b"trak"))
    return 0


def _boxes(stream: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the boxes of an mp4: name, place and length of what they hold, bytes."""
    while at + 8 <= end:
        stream.seek(at)
        length, name = struct.unpack(">I4s", stream.read(8))
        head = 8
        if length == 1:
            head, length = 16, int.from_bytes(stream.read(8), "big")
        elif length == 0:
            length = end - at
        if length < head:
            return
        yield name, at + head, length - head
        at += length


def _children(body: bytes, *names: bytes) -> list[bytes]:
    """Returns the boxes of a name in a box; of several names, those within those within it."""
    found, at = [], 0
    while at + 8 <= len(body):
        length, name = struct.unpack_from(">I4s", body, at)
        head = 8
        if length == 1 and at + 16 <= len(body):
            head, length = 16, int.from_bytes(body[at + 8 : at + 16], "big")
        if length < head:
            break
        if name == names[0]:
            found.append(body[at + head : at + length])
        at += length
    return found if len(names) == 1 else [inner for one in found for inner in _children(one, *names[1:])]


def _handler(track: bytes) -> bytes:
    return next((body[8:12] for body in _children(track, b"mdia", b"hdlr")), b"")


def _track(track: bytes) -> bool | None:
    """Returns whether a track of sound is even; None for another track."""
    if _handler(track) != b"soun":
        return None
    times = next(iter(_children(track, b"mdia", b"minf", b"stbl", b"stts")), b"")
    kinds = next(iter(_children(track, b"mdia", b"minf", b"stbl", b"stsd")), b"")
    edits = next(iter(_children(track, b"edts", b"elst")), b"")
    if len(times) < 8 or len(kinds) < 8 or int.from_bytes(kinds[4:8], "big") != 1:
        return False
    entries = int.from_bytes(times[4:8], "big")
    if entries > 2 or len(times) < 8 + 8 * entries:
        return False
    runs = [struct.unpack_from(">II", times, 8 + 8 * index) for index in range(entries)]
    # The last packet may be shorter.
    even = len(runs) < 2 or (runs[1][0] == 1 and runs[1][1] <= runs[0][1]) or runs[0][1] == runs[1][1]
    return even and _listed(edits) <= 1


def _listed(edits: bytes) -> int:
    """Returns how many spans of the track an edit list shows."""
    if len(edits) < 8:
        return 0
    wide, count = edits[0] == 1, int.from_bytes(edits[4:8], "big")
    step = 20 if wide else 12
    starts = [
        struct.unpack_from(">q" if wide else ">i", edits, 8 + step * index + (8 if wide else 4))[0]
        for index in range(min(count, (len(edits) - 8) // step))
    ]
    return sum(start >= 0 for start in starts)


def _header_frame(frame: bytes) -> int:
    """Returns how long the frame is that holds the header of an mp3 in place of sound, bytes; 0 where it is none."""
    if len(frame) < 64 or frame[0] != 0xFF or not any(name in frame[:64] for name in (b"Xing", b"Info")):
        return 0
    first = frame[1] >> 3 & 3 == 3  # MPEG 1; else 2 or 2.5
    rate = (44100, 48000, 32000, 0)[frame[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(frame[1] >> 3 & 3, 0)
    kilobits = (_KILOBITS if first else _KILOBITS_HALF)[frame[2] >> 4]
    return (144 if first else 72) * kilobits * 1000 // rate + (frame[2] >> 1 & 1) if rate else 0


def without_tags(path: Path, output: Path) -> bool:
    """Writes an mp3 without the tags that `cat` left between its parts, which FFmpeg takes for damage; returns whether there were any.

    Args:
        path: the mp3.
        output: the file to write.
    """
    data = path.read_bytes()
    kept, at = [], 0
    for match in _TAGS.finditer(data):
        begin = match.start()
        if begin < at:
            continue
        length = 128
        if match[0][:3] == b"ID3":
            length = 10 + _seven_bits(match[0][6:10])
        elif not (data[begin + 128 : begin + 131] == b"ID3" or data[begin + 128 : begin + 129] in (b"", b"\xff")):
            continue  # letters in the sound
        kept.append(data[at:begin])
        at = begin + length
        if at < len(data) and begin > 0:
            at += _header_frame(data[at : at + 4096])
    kept.append(data[at:])
    output.write_bytes(b"".join(kept))
    return len(kept) > 1
