"""Parts of the server that are best asked alone: the bounds of work apart, the cache, and turns."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import numpy as np
import pytest

from peav.data.media.errors import MediaError
from peav.serve import renditions
from peav.serve.apart import TooMuch, run_apart
from peav.serve.cache import DiskCache
from peav.serve.renditions import choose_picture
from peav.serve.turns import Busy, Turns
from tests.serve.serving import ROOT

#: So long no other process sleeps, not even that of another run of these tests.
SECONDS = 271 + os.getpid() / 1e7


def sleep(seconds: float) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)


def fill(count: int) -> int:
    return len(bytearray(count))


def write(size: int) -> str:
    import tempfile

    folder = tempfile.mkdtemp()
    (Path(folder) / "left").write_bytes(b"x" * size)
    return folder


def refuse() -> None:
    raise MediaError("a.wav", "is none")


def die() -> None:
    os.abort()


def test_work_apart_returns_raises_and_is_bounded() -> None:
    assert run_apart(fill, (1000,), 30, 1 << 30) == 1000
    with pytest.raises(MediaError, match=r"a\.wav: is none"):
        run_apart(refuse, (), 30, 1 << 30)
    with pytest.raises(TooMuch, match="too much memory"):
        run_apart(fill, (3 << 30,), 30, 1 << 30)
    with pytest.raises(TooMuch, match="ended the process"):
        run_apart(die, (), 30, 1 << 30)
    begun = time.monotonic()
    with pytest.raises(TooMuch, match=r"longer than 0\.5 s"):
        run_apart(sleep, (SECONDS,), 0.5, 1 << 30)
    assert time.monotonic() - begun < 10
    # What it started ends with it, and what it wrote goes.
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"sleep {SECONDS}" not in running
    assert not Path(run_apart(write, (1000,), 30, 1 << 30)).exists()


def test_the_cache_makes_a_file_once_and_keeps_within_its_bound(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 10_000)
    made: list[str] = []

    def get(key: str) -> bytes:
        def make(path: Path) -> None:
            made.append(key)
            time.sleep(0.05)
            path.write_bytes(key.encode() * 1000)

        return cache.get(key, ".x", make).read_bytes()

    threads = [threading.Thread(target=get, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["a"] and get("a") == b"a" * 1000
    for key in "bcdefghijklmnopqrstuvwxyz":
        get(key)
        for path in (tmp_path / "cache").iterdir():  # as if a minute had passed
            os.utime(path, (path.stat().st_atime - 60, path.stat().st_mtime - 60))
    held = list((tmp_path / "cache").iterdir())
    assert sum(path.stat().st_size for path in held) <= 10_000 and len(held) == 10
    assert get("z") == b"z" * 1000 and made[-1] == "z" and made.count("z") == 1
    get("a")
    assert made.count("a") == 2

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise MediaError("x", "broken")

    with pytest.raises(MediaError):
        cache.get("bad", ".x", fail)
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_turns_are_taken_in_order_and_the_queue_has_an_end() -> None:
    order: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.02)
        order.append(number)

    async def main() -> int:
        turns, busy = Turns(1, 4), 0

        async def ask(number: int) -> None:
            nonlocal busy
            try:
                await turns.run(work, number)
            except Busy:
                busy += 1

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(ask, number)
        await turns.run(work, 99)
        return busy

    assert anyio.run(main) == 3
    assert order == [0, 1, 2, 3, 4, 99]


def test_of_pictures_the_one_most_like_the_others_is_chosen_and_no_black_one() -> None:
    pictures = np.zeros((5, 32, 32, 3), np.uint8)
    pictures[1:4] = 120
    pictures[3, :4] = 130
    pictures[4] = 250
    assert choose_picture(pictures) is not None
    assert np.array_equal(choose_picture(pictures), pictures[1])  # type: ignore[arg-type]
    assert choose_picture(pictures[:0]) is None
    assert np.array_equal(choose_picture(pictures[:1]), pictures[0])  # type: ignore[arg-type]


def test_a_server_that_is_killed_takes_its_decoder_along(tmp_path: Path) -> None:
    code = (
        "from peav.serve.apart import run_apart; from tests.serve.test_parts import sleep\n"
        f"if __name__ == '__main__': print('go', flush=True); run_apart(sleep, ({SECONDS},), 300, 1 << 30)"
    )
    (tmp_path / "work.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(tmp_path / "work.py")], env=environment, stdout=subprocess.PIPE)

    def sleeps() -> bool:
        return f"sleep {SECONDS}" in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout

    deadline = time.monotonic() + 240
    while not sleeps() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sleeps()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while sleeps() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not sleeps()


def test_all_the_tries_of_a_thumbnail_share_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a film that is black throughout every place is tried, each with what is left of the time of all."""
    limits: list[float] = []

    def black(
        path: str, medium: object, start: float, seconds: float, limit: float, decoder: object = ()
    ) -> np.ndarray:
        limits.append(limit)
        return np.zeros((1, 4, 4, 3), np.uint8)

    monkeypatch.setattr(renditions, "_pictures", black)
    ticks = iter(range(100))
    monkeypatch.setattr(renditions.time, "monotonic", lambda: float(next(ticks)))
    with pytest.raises(MediaError, match="all of one colour"):
        renditions.make_thumbnail("film.mp4", None, 0.0, 1.0, 60.0, tmp_path / "x.webp", 5.5)  # type: ignore[arg-type]
    assert limits == [4.5, 3.5, 2.5, 1.5, 0.5]  # and then none was left
