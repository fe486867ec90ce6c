"""What `peav serve` answers, asked over HTTP as browsers, scripts and strangers ask."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peav.cli.main import main
from peav.data.media.decode import load_audio, load_frames
from peav.data.media.probing import probe
from peav.search import Index
from tests.cli.embed.helpers import noise
from tests.data.conftest import ffmpeg, write_wav
from tests.disks import small_disk
from tests.serve.serving import ROOT, Served, served


def test_a_search_finds_what_the_index_finds(server: Served, index: Path) -> None:
    with Index.open(index) as opened:
        queries: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({"text": "a bell"}, {"q": "a bell"}),
            (
                {"text": "a bell", "negative": "the red house", "mode": "seen"},
                {"q": "a bell", "not": "the red house", "mode": "seen"},
            ),
            ({"entry": 3, "top": 2}, {"entry": 3, "top": 2}),
        ]
        for arguments, asked in queries:
            found, answer = opened.search(**arguments), server.ask("/api/search", **asked)
            assert answer.status == 200
            assert [card["file"]["path"] for card in answer.json["cards"]] == [card.file.path for card in found.cards]
            assert [card["score"] for card in answer.json["cards"]] == [card.score for card in found.cards]
            assert answer.json["fits"] == found.fits and answer.json["mode"] == found.mode


def test_media_come_whole_and_in_ranges(server: Served, media: Path) -> None:
    data = (media / "clip.mp4").read_bytes()
    path = f"/media/{server.file('clip.mp4')}"
    whole = server.ask(path)
    assert whole.status == 200 and whole.body == data and whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, begin, end in [("0-9", 0, 10), ("100-", 100, None), ("-50", -50, None), ("10-99999999", 10, None)]:
        part = server.ask(path, headers={"Range": f"bytes={asked}"})
        assert part.status == 206 and part.body == data[begin:end]
        first = begin if begin >= 0 else len(data) + begin
        assert part.headers["content-range"] == f"bytes {first}-{first + len(part.body) - 1}/{len(data)}"
    several = server.ask(path, headers={"Range": "bytes=0-4,90-94"})
    assert several.status == 206 and data[:5] in several.body and data[90:95] in several.body
    beyond = server.ask(path, headers={"Range": f"bytes={len(data)}-"})
    assert beyond.status == 416 and beyond.headers["content-range"] == f"bytes */{len(data)}"
    assert server.ask(path, headers={"Range": "bytes=z-a"}).status == 400
    many = ",".join(f"{2 * n}-{2 * n}" for n in range(5000))
    assert server.ask(path, headers={"Range": f"bytes={many}"}).status in (200, 206, 400, 416)
    old = server.ask(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert old.status == 200 and old.body == data
    head = server.ask(path, method="HEAD")
    assert head.status == 200 and not head.body and head.headers["content-length"] == str(len(data))


def test_what_browsers_do_not_play_is_a_rendition_of_the_span(server: Served, tmp_path: Path) -> None:
    kinds = {"clip.mp4": "original", "tone.wav": "original", "alac.mp4": "rendition", "film.avi": "rendition"}
    for name, plays in {**kinds, "still.png": "picture"}.items():
        number = server.file(name)
        assert server.ask(f"/api/file/{number}").json["plays"] == plays
        if plays == "original":
            continue
        assert server.ask(f"/media/{number}").status == 400
        if plays == "rendition":
            made = server.ask(f"/rendition/{number}", start=2, seconds=1.5)
            assert made.status == 200, made.body
            (tmp_path / "made.mp4").write_bytes(made.body)
            info = probe(str(tmp_path / "made.mp4"))
            assert info.audio is not None and info.audio.codec == "aac"
            assert info.video is not None and info.video.codec == "h264"
            assert info.duration == pytest.approx(1.5, abs=0.15)
            # The index is before the media, so that playing begins at once, and parts of it come alone.
            assert made.body.index(b"moov") < made.body.index(b"mdat")
            part = server.ask(f"/rendition/{number}", headers={"Range": "bytes=5-9"}, start=2, seconds=1.5)
            assert part.status == 206 and part.body == made.body[5:10]
    # A last part is cut at the end of the file.
    number = server.file("film.avi")
    (tmp_path / "end.mp4").write_bytes(server.ask(f"/rendition/{number}", start=5, seconds=50).body)
    assert probe(str(tmp_path / "end.mp4")).duration == pytest.approx(1.0, abs=0.2)


def test_a_rendition_shows_the_span_that_was_asked_for(server: Served, tmp_path: Path) -> None:
    """By its pictures, which count frames."""
    number = server.file("alac.mp4")
    (tmp_path / "a.mp4").write_bytes(server.ask(f"/rendition/{number}", start=3, seconds=1).body)
    with Index.open(server.index) as opened:
        path = next(file.path for file in opened.store.catalog.files() if file.id == number)
    shown = load_frames(str(tmp_path / "a.mp4"), num_frames=4)[0].float()
    errors = []
    for start in np.arange(0.0, 5.05, 0.1):
        span = load_frames(path, num_frames=4, start=float(start), duration=1.0)[0].float()
        errors.append(float((span - shown).abs().mean()))
    assert abs(np.argmin(errors) * 0.1 - 3.0) < 0.15


def test_a_thumbnail_is_not_black(server: Served) -> None:
    for name, start in [("clip.mp4", 0.0), ("film.avi", 0.0), ("clip.mp4", 3.0)]:
        answer = server.ask(f"/thumbnail/{server.file(name)}", start=start, seconds=2)
        assert answer.status == 200 and answer.headers["content-type"] == "image/webp"
        assert np.asarray(Image.open(io.BytesIO(answer.body)).convert("L")).mean() > 60
        assert "max-age" in answer.headers["cache-control"]
    # All of the span is black: the rest of the file has something to show.
    dark = server.ask(f"/thumbnail/{server.file('clip.mp4')}", start=0, seconds=0.5)
    assert np.asarray(Image.open(io.BytesIO(dark.body)).convert("L")).mean() > 60
    still = server.ask(f"/thumbnail/{server.file('still.png')}")
    assert Image.open(io.BytesIO(still.body)).size == (200, 100)
    assert server.ask(f"/thumbnail/{server.file('tone.wav')}").status == 400


def test_a_waveform_has_the_outline_of_the_sound(server: Served) -> None:
    answer = server.ask(f"/api/peaks/{server.file('tone.wav')}", start=4, seconds=2).json
    peaks = np.array(answer["peaks"])
    assert answer["seconds"] == pytest.approx(1.0) and len(peaks) == 400
    assert 0.25 < np.median(peaks) < 0.35
    assert server.ask(f"/api/peaks/{server.file('still.png')}").json["peaks"] == []


@pytest.mark.parametrize(
    "path",
    [
        *("/media/../../etc/passwd", "/media/..%2f..%2fetc%2fpasswd", "/static/../app.py", "/static/..%2f..%2fapp.py"),
        *("/static/%2e%2e/%2e%2e/app.py", "/static//etc/passwd", "/media/%00", "/media//etc/passwd", "/media/1/../2"),
        *(
            "/media/-1",
            "/media/0",
            "/media/999",
            "/media/1.5",
            "/media/1%20or%201=1",
            "/thumbnail/x",
            "/reports/..%2fx",
        ),
        *("/media/99999999999999999999999999", "/api/file/123456", "/rendition/77?start=0&seconds=1", "/nothing"),
    ],
)
def test_nothing_is_reached_but_by_the_number_of_a_file(server: Served, path: str) -> None:
    data = server.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = int(data.split()[1])
    assert status in (400, 404), data[:500]
    assert b"root:" not in data and b"import" not in data


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"start": 99, "seconds": 1}, "there is nothing at 99 s"),
        ({"start": "nan"}, "start must be a number"),
        ({"start": -1}, "start must be a number"),
        ({"start": "1e400"}, "start must be a number"),
        ({"start": 0, "seconds": 0}, "seconds must be above 0"),
        ({"start": 0, "seconds": 1000}, "at most 120"),
        ({"start": "x"}, "start must be a number"),
    ],
)
def test_spans_that_are_not_there_are_refused(server: Served, query: dict[str, Any], message: str) -> None:
    for what in ("rendition", "thumbnail"):
        answer = server.ask(f"/{what}/{server.file('clip.mp4')}", **query)
        assert answer.status == 400 and message in answer.error


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({}, 400, "nothing is sought"),
        ({"q": "   "}, 400, "nothing is sought"),
        ({"q": "dog", "mode": "smelled"}, 400, "mode='smelled'"),
        ({"q": "dog", "top": 0}, 400, "top must be from 1 to 100"),
        ({"q": "dog", "top": 10**9}, 400, "top must be from 1 to 100"),
        ({"q": "dog", "kind": "smell"}, 400, "kind='smell'"),
        ({"q": "dog", "after": "soon"}, 400, "after must be a day"),
        ({"q": "dog", "min_seconds": "many"}, 400, "min_seconds must be a number"),
        ({"q": ["dog"] * 30}, 400, "16 terms"),
        ({"entry": 999}, 404, "no window 999"),
        ({"entry": "1; DROP TABLE files"}, 400, "entry must be a whole number"),
        ({"like": "0" * 32}, 404, "not remembered any more"),
        ({"q": "dog", "transcript": '" OR 1 NEAR('}, 200, ""),
    ],
)
def test_what_cannot_be_asked_is_said(server: Served, query: dict[str, Any], status: int, message: str) -> None:
    answer = server.ask("/api/search", **query)
    assert answer.status == status and (not message or message in answer.error)


def test_ten_thousand_words_are_refused(server: Served) -> None:
    answer = server.ask("/api/search", q=" ".join(["dog"] * 10_000))
    assert answer.status == 400 and "2,000 characters" in answer.error
    # More than the head of a request may hold.
    assert b" 400 " in server.raw(b"GET /api/search?q=" + b"dog+" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert server.ask("/api/search", q="dog " * 400).status == 200
    assert server.alive()


def test_a_file_that_is_searched_by_finds_itself(server: Served, media: Path) -> None:
    for name in ("clip.mp4", "still.png", "film.avi"):
        answer = server.ask("/api/upload", "POST", body=(media / name).read_bytes(), name=f"/some/where/{name}")
        assert answer.status == 200 and answer.json["name"] == name
        found = server.ask("/api/search", like=answer.json["like"], fold=0).json
        assert found["examples"] == {answer.json["like"]: name}
        with Index.open(server.index) as opened:
            direct = opened.search(like=media / name, fold=False)
        assert [card["file"]["path"] for card in found["cards"]] == [card.file.path for card in direct.cards[:20]]


def test_uploads_are_bounded_and_leave_nothing_behind(server: Served, media: Path) -> None:
    # By its header, and by what comes without one.
    head = b"POST /api/upload?name=a.wav HTTP/1.1\r\nHost: localhost\r\n"
    assert b" 413 " in server.raw(head + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 1000)
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    assert b" 413 " in server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 5)
    for name, body, message in [
        ("garbage.mp4", np.random.default_rng(0).bytes(20000), "cannot be"),
        ("text.wav", b"not a sound", "text.wav: "),
        ("list.m3u8", b"#EXTM3U\nfile:///etc/passwd\n", "playlist"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "x.svg"),
        ("cut.mp4", (media / "clip.mp4").read_bytes()[:3000], "cut.mp4: "),
    ]:
        answer = server.ask("/api/upload", "POST", body=body, name=name)
        assert answer.status in (400, 422) and message in answer.error, answer.body
        assert "peav-upload" not in answer.error and "root:" not in answer.error
    assert server.ask("/api/upload", "POST", body=b"", name="a.wav").status == 400
    assert server.alive()
    assert server.scratch is not None and not list(server.scratch.glob("peav-upload-*"))


def test_a_picture_that_unpacks_to_gigabytes_is_refused(server: Served) -> None:
    """A PNG of 30,000 x 30,000 points in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = 30_000
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(size * 3 + 1)) for _ in range(size // 100)) + packer.flush()
    header = size.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    answer = server.ask("/api/upload", "POST", body=bomb, name="bomb.png")
    assert answer.status == 422 and "bomb.png" in answer.error
    assert server.alive()


@pytest.mark.slow
def test_a_film_of_many_large_frames_is_given_up_in_time(server: Served, tmp_path: Path) -> None:
    """A few seconds of 4096 x 4096 points, named again and again: minutes of decoding in less than 5 MB."""
    once, bomb = tmp_path / "once.mp4", tmp_path / "bomb.mp4"
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "240"]
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=4096x4096:r=30:d=8", *x264, str(once))
    again = min(30, 4_900_000 // once.stat().st_size) - 1
    ffmpeg("-stream_loop", str(again), "-i", str(once), "-c", "copy", str(bomb))
    assert probe(str(bomb)).duration > 60
    begun = time.monotonic()
    answer = server.ask("/api/upload", "POST", body=bomb.read_bytes(), name="bomb.mp4")
    assert time.monotonic() - begun < 80
    assert answer.status == 422 and "bomb.mp4: took longer than 30 s" in answer.error, answer.body
    assert server.alive()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:80"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:9"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
    ids=str,
)
def test_pages_of_others_are_turned_away(server: Served, headers: dict[str, str], status: int) -> None:
    answer = server.ask("/", headers=headers)
    assert answer.status == status
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_other_methods_are_refused(server: Served) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        assert server.ask("/", method=method).status == 405
    assert server.ask("/api/search", method="POST", q="dog").status == 405


def test_fifty_clients_at_once_all_get_an_answer(server: Served) -> None:
    numbers = [server.file(name) for name in ("clip.mp4", "film.avi", "alac.mp4")]
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def client(number: int) -> None:
        answers = [
            server.ask("/api/search", q=f"bell {number}", top=3),
            server.ask(f"/media/{numbers[0]}", headers={"Range": "bytes=0-999"}),
            server.ask(f"/thumbnail/{numbers[number % 3]}", start=number % 5, seconds=1),
        ]
        with lock:
            statuses.update(answer.status for answer in answers)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(client, range(50)))
    assert statuses == {200: 100, 206: 50}


def test_beyond_this_machine_a_token_is_needed(index: Path, tmp_path: Path) -> None:
    with served(index, tmp_path, "0.0.0.0", hosts=["box.example"]) as server:
        token = server.address.split("token=")[1]
        assert len(token) >= 32
        for path in ("/", "/api/index", "/static/app.js", "/media/1", "/api/search?q=a"):
            assert server.ask(path).status == 401
            assert server.ask(path, headers={"Cookie": "peav_token=wrong"}).status == 401
        moved = server.ask("/", token=token, q="a dog")
        assert moved.status == 303 and moved.headers["location"] == "/?q=a+dog"
        cookie = moved.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        assert server.ask("/api/index", headers={"Cookie": cookie.split(";")[0]}).status == 200
        about = server.ask("/api/index", headers={"Authorization": f"Bearer {token}"})
        assert about.status == 200
        assert server.ask("/", headers={"Host": "box.example", "Cookie": cookie.split(";")[0]}).status == 200
        assert server.ask("/", headers={"Host": "evil.example", "Cookie": cookie.split(";")[0]}).status == 403
        # Where files lie on the machine is nobody else's business.
        file = server.ask("/api/file/1", headers={"Authorization": f"Bearer {token}"}).json
        assert file["place"].startswith("media/") and file["path"] is None


def test_files_that_vanish_move_or_turn_into_links(own: Path) -> None:
    media = own / "media"
    secret = own / "secret.txt"
    secret.write_text("root:x")
    with served(own / "index", own / "cache") as server:
        number = server.file("tone.wav")
        data = (media / "tone.wav").read_bytes()
        assert server.ask(f"/media/{number}").body == data
        (media / "tone.wav").rename(own / "aside.wav")
        for what in ("media", "rendition", "api/file", "api/peaks"):
            answer = server.ask(f"/{what}/{number}", start=0, seconds=1)
            assert answer.status == 410 and "peav index update" in answer.error and str(own) not in answer.error
        for target in (secret, Path("/etc/passwd")):
            (media / "tone.wav").symlink_to(target)
            assert server.ask(f"/media/{number}").status == 410
            (media / "tone.wav").unlink()
        (media / "tone.wav").write_text("root:x, not a sound")
        assert server.ask(f"/media/{number}").status == 422
        (media / "tone.wav").unlink()
        # The folder moves, and a link stands in its place.
        (own / "aside.wav").rename(media / "tone.wav")
        media.rename(own / "elsewhere")
        media.symlink_to(own / "elsewhere")
        assert server.ask(f"/media/{number}").status == 410
        media.unlink()
        assert main(["index", "update", str(own / "index"), str(own / "elsewhere")]) == 0
        assert server.ask(f"/media/{number}").body == data
        found = server.ask("/api/search", q="a bell", mode="heard", fold=0).json["cards"]
        assert {card["file"]["path"] for card in found} >= {str(own / "elsewhere" / "tone.wav")}


@pytest.mark.slow
def test_adding_and_deleting_beside_the_server(own: Path, checkpoint: Path) -> None:
    media = own / "media"
    with served(own / "index", own / "cache") as server:

        def names() -> set[str]:
            answer = server.ask("/api/search", q="a bell", mode="heard", fold=0)
            assert answer.status == 200, answer.body
            return {card["file"]["name"] for card in answer.json["cards"]}

        assert names() == {"clip.mp4", "tone.wav"}
        for number in range(5):
            write_wav(media / f"{number}.wav", noise(1.0 + 0.1 * number, number))
        (media / "tone.wav").unlink()
        words = ["index", "update", str(own / "index"), "--workers=0"]
        code = (
            "from peav.cli import embed_pieces; embed_pieces._FILES_A_PIECE = 1\n"
            f"from peav.cli.main import main; raise SystemExit(main({words}))"
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
        seen = set()
        while process.poll() is None:
            seen.add(frozenset(names()))
        assert process.returncode == 0
        assert names() == {"clip.mp4", *(f"{number}.wav" for number in range(5))}
        # Every state that was seen is one that was committed: files come in their order, after what is gone went.
        order = [f"{number}.wav" for number in range(5)]
        assert seen <= {
            frozenset({"clip.mp4", "tone.wav"}),
            *(frozenset({"clip.mp4", *order[:count]}) for count in range(6)),
        }


def test_a_damaged_index_is_said_and_the_server_lives(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(own / "index", own / "cache") as server:
        assert server.ask("/api/search", q="a bell").status == 200
        catalog = own / "index/catalog.sqlite"
        whole = catalog.read_bytes()
        # In place, as a failing disk does it; the time stamp in the header makes readers look again.
        with catalog.open("r+b") as stream:
            stream.seek(24)
            stream.write(b"\xff" * 4)
            stream.seek(200)
            stream.write(b"\x5a" * (len(whole) - 200))
        answer = server.ask("/api/search", q="a bell")
        assert answer.status == 503 and "damaged" in answer.error
        assert server.ask("/media/1").status == 503
        assert server.ask("/").status == 200
    assert main(["serve", str(own / "index"), "--port=0"]) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_full_disk_under_the_cache(own: Path) -> None:
    with small_disk(own / "cache", 8) as cache, served(own / "index", cache) as server:
        number = server.file("clip.mp4")
        for _ in range(2):
            answer = server.ask(f"/rendition/{number}", start=0, seconds=4)
            assert answer.status == 507 and "disk of the server is full" in answer.error
        assert not list(cache.iterdir())
        assert server.ask(f"/media/{number}").status == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no index at"),
        (["{index}", "--port=99999"], "--port must be from 0 to 65535"),
        (["{index}", "--host=no.such.host.example"], "is no address"),
        (["{index}", "--cache_mb=0"], "cache_mb must be at least 1"),
        (["{index}", "--reports=nowhere"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_served_is_said(
    index: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(word.format(index=index) for word in words)]) == 1
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(server.index), f"--port={server.port}"]) == 1
    assert "Give another with --port" in capsys.readouterr().err


def test_reports_are_opened_without_rights(index: Path, tmp_path: Path) -> None:
    footer = "<footer>Written by peav.evaluation.report. This file needs no network.</footer>"
    page = f"<title>A run &amp; more</title><script>1</script>{footer}"
    (tmp_path / "run/deep").mkdir(parents=True)
    (tmp_path / "run/deep/report.html").write_text(page)
    (tmp_path / "run/other.html").write_text("<title>Not of peav</title>")
    (tmp_path / "run/link.html").symlink_to("/etc/passwd")
    with served(index, tmp_path / "cache", reports=[tmp_path / "run"]) as server:
        (report,) = server.ask("/api/reports").json
        assert report["title"] == "A run & more" and report["place"] == "run/deep/report.html"
        answer = server.ask(f"/reports/{report['id']}")
        assert answer.body.decode() == page and answer.headers["content-security-policy"].startswith("sandbox")
        assert "allow-same-origin" not in answer.headers["content-security-policy"]
        assert server.ask("/reports/0123").status == 404


def test_when_it_is_heard_is_asked_of_what_is_opened(framewise_index: tuple[Path, Path], tmp_path: Path) -> None:
    """By a model that has frames, whose spans are those of `PEAV.detect` on the same samples, on the clock of the file."""
    path, sound = framewise_index
    with served(path, tmp_path / "cache") as server, Index.open(path) as opened:
        number = server.file(sound.name)
        assert opened.has_frames
        samples = load_audio(str(sound), opened.model.media.sample_rate, 1.0, 2.0).numpy()
        spans = opened.model.detect([samples], ["a bell"], sample_rate=opened.model.media.sample_rate)[0][0]
        answer = server.ask(f"/api/when/{number}", start=1, seconds=2, q="a bell").json
        assert spans, "the phrase must be heard for the test to say anything"
        best = max(spans, key=lambda span: span.score)
        assert answer == pytest.approx({"begin": 1 + best.onset, "end": 1 + best.offset, "frame_score": best.score})
        assert server.ask(f"/api/when/{number}", start=1, seconds=2).json["begin"] is None
        assert server.ask(f"/api/when/{number}", start=90, seconds=2, q="a bell").status == 400


def test_a_model_without_frames_says_nothing_of_when(server: Served) -> None:
    answer = server.ask(f"/api/when/{server.file('tone.wav')}", start=0, seconds=2, q="a bell")
    assert answer.json == {"begin": None, "end": None, "frame_score": None}
