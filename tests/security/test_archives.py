"""Archives and media from elsewhere, through `peav prepare` and `peav embed`."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from peav.cli.main import main
from peav.data.media.playlists import refusal
from peav.data.media.probing import MediaError, probe
from tests.data.world import tone
from tests.security.hostile import Scene, refused_by_command

WAV = tone(3, 1.0)


def member(name: str, data: bytes = WAV, **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def caption(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, json.dumps({"text": "a tone"}).encode())


def sparse(name: str) -> bytes:
    """A member of a tebibyte that has no byte in the archive, as GNU tar writes files with holes."""
    info = tarfile.TarInfo(name)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[257:265] = b"ustar  \0"
    header[124:136] = b"00000000000\0"
    size = (1 << 40).to_bytes(11, "big")
    header[386:410] = b"\0" * 24
    header[386 : 386 + 12] = b"\x80" + size
    header[386 + 12 : 386 + 24] = b"00000000000\0"
    header[482] = 0
    header[483:495] = b"\x80" + size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def headers_without_end() -> bytes:
    """An extended header that says it has a tebibyte."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16)


MEMBERS: dict[str, tuple[object, str]] = {
    "above": (member("../outside.wav"), "leads out of the archive"),
    "far above": (member("a/b/../../../../outside.wav"), "leads out of the archive"),
    "absolute": (member("/tmp/outside.wav"), "leads out of the archive"),
    "by backslashes": (member("x\\..\\outside.wav"), "backslash"),
    "a link": (member("x.wav", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link or a device"),
    "a hard link": (member("x.wav", b"", type=tarfile.LNKTYPE, linkname="../secret.json"), "is a link or a device"),
    "a device": (member("x.wav", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "is a link or a device"),
    "a pipe": (member("x.wav", b"", type=tarfile.FIFOTYPE), "is a link or a device"),
    "holes": (sparse("x.wav"), "has holes"),
    "a header without end": (headers_without_end(), "cut short or damaged"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_tar(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad, said = MEMBERS[name]
    source, out = scene.folder / "tars", scene.folder / "out"
    source.mkdir()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in (member("good.wav"), caption("good.json"), member("last.wav"), caption("last.json")):
            archive.addfile(info, io.BytesIO(data))
        if isinstance(bad, tuple):
            archive.addfile(bad[0], io.BytesIO(bad[1]))
        length = archive.offset
    raw = bytes(bad) if isinstance(bad, bytes) else b""
    (source / "clips.tar").write_bytes(stream.getvalue()[:length] + raw + bytes(10240))
    status = main(
        ["prepare", str(source), str(out), "--reader", "WebDatasetTars", "--workers", "1", "--vocab_size", "300"]
    )
    assert status == 0, capsys.readouterr().err
    rejects = (out / "rejects.jsonl").read_text()
    assert said in rejects and rejects.count("\n") == 1
    assert not [path for path in scene.folder.rglob("outside*")]
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) < 1 << 20


@pytest.mark.parametrize("path", ["../secret.json", "/etc/passwd", "http://example.org/x.wav", "a\0.wav"])
def test_a_listing(scene: Scene, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = scene.folder / "media", scene.folder / "out"
    source.mkdir()
    (source / "good.wav").write_bytes(WAV)
    records = [{"id": "good", "audio": "good.wav", "captions": {"audio": "a tone"}}, {"id": "bad", "audio": path}]
    (source / "clips.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["prepare", str(source), str(out), "--workers", "1", "--vocab_size", "300"]) == 0
    reject = json.loads((out / "rejects.jsonl").read_text())
    assert reject["id"] == "bad" and "\n" not in reject["reason"]


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
PLAYLISTS: dict[str, tuple[str, bytes]] = {
    "HLS called mp3": ("song.mp3", HLS.encode()),
    "HLS of addresses": ("song.wav", b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n"),
    "ffconcat": ("film.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
    "DASH": ("film.mkv", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'),
    "DASH in UTF-16": ("film.mkv", '<?xml version="1.0"?><MPD></MPD>'.encode("utf-16")),
    "SDP": ("call.mp4", b"\x01junk\nm=audio 5004 RTP/AVP 0\nc=IN IP4 127.0.0.1\n"),
    "SDP behind an mp3's tag": ("call.mp3", b"ID3\x03\0\0\0\0\0\0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n"),
    "a script": ("film.avs", b"LoadPlugin(evil)"),
    "a script of Python": ("film.vpy", b"x = 1"),
    "a list by its name": ("song.m3u8", WAV),
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file, data = PLAYLISTS[name]
    path = scene.folder / file
    path.write_bytes(data)
    with pytest.raises(MediaError) as error:
        probe(path)
    message = str(error.value)
    assert ("is a playlist" in message) or ("takes it for a playlist or a script" in message), message
    if not path.suffix.startswith((".avs", ".vpy", ".m3u")):
        with pytest.raises(MediaError, match="is a playlist"):
            probe(data)
    words = ["embed", str(path), "--model", str(scene.model), "--out", str(scene.folder / "o.npz"), "--workers", "0"]
    assert "none of the 1 files could be embedded" in refused_by_command([*words, "--device", "cpu"], capsys)


def test_a_relative_path_is_never_an_address(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scene.folder / "http:" / "127.0.0.1:9"
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(WAV)
    monkeypatch.chdir(scene.folder)
    assert probe(Path("http:/127.0.0.1:9/a.wav")).audio is not None


def test_media_of_every_kind_are_let_through(tmp_path: Path) -> None:
    kinds: dict[str, list[str]] = {
        **{f"a.{kind}": [] for kind in ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "ac3", "mka", "m4a", "aac")},
        **{
            f"v.{kind}": ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=25:d=1"]
            for kind in ("mp4", "mkv", "avi", "mpg", "ts", "flv")
        },
    }
    for name, video in kinds.items():
        sound = ["-f", "lavfi", "-i", "sine=d=1:r=44100"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *video, *sound, str(tmp_path / name)], check=True)
        assert refusal(tmp_path / name) is None, name
        assert refusal((tmp_path / name).read_bytes()) is None, name


def test_pictures_without_end(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture of a few kilobytes that unfolds to gigabytes is refused by its header."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")
    path = scene.folder / "large.png"
    path.write_bytes(png)
    with pytest.raises(MediaError, match=r"pixels|cannot be opened"):
        probe(path)
