"""The store: what is committed is there, whatever kills the writer, fills the disk or damages a file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from peav.data.locks import FolderInUse
from peav.search import store as store_module
from peav.search.catalog import FileEntry
from peav.search.reference import draw_reference, keep_reference, read_reference
from peav.search.store import NewFile, Store, StoreError
from tests.disks import small_disk

DIM = 8
SETTINGS = {"names": ["audio", "video"], "dim": DIM, "model": "m", "digest": "d"}
ROOT = Path(__file__).parents[2]


def new_file(path: str, windows: int = 2, seed: int = 0, names: Sequence[str] = ("audio",), size: int = 1) -> NewFile:
    random = np.random.default_rng([seed, *path.encode()])
    vectors = [{name: random.normal(size=DIM).astype(np.float32) for name in names} for _ in range(windows)]
    entry = FileEntry(path, "/", size, 2, 3, "sound", 10.0)
    return NewFile(entry, [(8.0 * number, 10.0) for number in range(windows)], vectors)


def windows_of(store: Store) -> dict[str, list[float]]:
    """Start of each window that can be found, by path."""
    files = {file.id: file.path for file in store.catalog.files()}
    found: dict[str, list[float]] = {path: [] for path in files.values()}
    for segment in store.segments.values():
        for window in segment.windows:
            if int(window["file"]) in files:
                found[files[int(window["file"])]].append(float(window["start"]))
    return {path: sorted(starts) for path, starts in found.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "index", SETTINGS)


def test_what_was_added_is_there_for_others_and_a_file_of_the_same_path_is_replaced(store: Store) -> None:
    other = Store(store.folder)
    with store.writing():
        store.add([new_file("/a"), new_file("/b", 3, names=("audio", "video"))])
        assert other.refresh() and not other.refresh()
        assert windows_of(other) == {"/a": [0.0, 8.0], "/b": [0.0, 8.0, 16.0]}
        store.add([new_file("/a", 1, seed=9)])
    other.refresh()
    assert windows_of(other) == windows_of(store) == {"/a": [0.0], "/b": [0.0, 8.0, 16.0]}
    segment = list(other.segments.values())[-1]
    np.testing.assert_allclose(
        segment.take("audio", np.array([0]))[0], new_file("/a", 1, 9).vectors[0]["audio"], atol=2e-3
    )
    ids = np.concatenate([segment.windows["id"] for segment in other.segments.values()])
    assert len(set(ids.tolist())) == len(ids) == 6


def test_compact_joins_segments_leaves_the_deleted_out_and_keeps_numbers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SEGMENT_WINDOWS", 4)
    reader = Store(store.folder)
    with store.writing():
        for number in range(7):
            names = ("audio", "video") if number % 2 else ("audio",)
            store.add([new_file(f"/{number}", 2, names=names)])
        before = {}
        for segment in store.segments.values():
            for row, window in enumerate(segment.windows):
                vector = segment.take("audio", np.array([row]))[0]
                before[int(window["id"])] = (int(window["file"]), vector.tolist())
        with store.catalog.transaction():
            store.catalog.drop_files("path IN ('/2', '/5')")
        reader.refresh()
        old = dict(reader.segments)
        store.compact()
    alive = {file.id for file in store.catalog.files()}
    after = {}
    for segment in store.segments.values():
        assert len(segment) <= 4
        for row, window in enumerate(segment.windows):
            vector = segment.take("audio", np.array([row]))[0]
            after[int(window["id"])] = (int(window["file"]), vector.tolist())
            path = next(file.path for file in store.catalog.files() if file.id == int(window["file"]))
            assert (row in segment.rows.get("video", [])) == (int(path[1:]) % 2 == 1)
    assert after == {number: value for number, value in before.items() if value[0] in alive} and len(after) == 10
    # A reader that has the old segments open reads on; then it sees the new ones.
    assert len(next(iter(old.values())).take("audio", np.array([0, 1]))) == 2
    reader.refresh()
    assert windows_of(reader) == windows_of(store)
    assert {path.name for path in (store.folder / "segments").iterdir()} == set(store.segments)
    with store.writing():
        store.add([new_file("/new")])
    assert set(windows_of(Store(store.folder))) == {"/0", "/1", "/3", "/4", "/6", "/new"}


_WRITER = """
    import os, signal, sys
    import peav.search.segment as segment, peav.search.store as store_module
    from peav.search.store import Store
    from tests.search.test_store import new_file

    kill_at = int(sys.argv[2])
    steps = 0

    def dying(function):
        def call(*arguments, **options):
            global steps
            for after in (False, True):
                if after:
                    result = function(*arguments, **options)
                steps += 1
                if steps == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call

    segment._save = dying(segment._save)
    segment.Vectors.write = staticmethod(dying(segment.Vectors.write))
    segment.sync = dying(segment.sync)
    store_module.write_segment = dying(store_module.write_segment)
    store_module.Catalog.add_segment = dying(store_module.Catalog.add_segment)
    store_module.Catalog.add_file = dying(store_module.Catalog.add_file)
    store_module.shutil.rmtree = dying(store_module.shutil.rmtree)
    store = Store(sys.argv[1])
    with store.writing():
        for path in ("/a", "/b", "/c"):
            if path not in {file.path for file in store.catalog.files()}:
                store.add([new_file(path)])
        store.compact(everything=True)
    print("done", steps)
"""


def write(folder: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(_WRITER), str(folder), str(kill_at)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("kill_at", [2, 11, 13, 15, 18, 47, 53, 55])
def test_a_writer_killed_at_a_step_loses_nothing_and_doubles_nothing(tmp_path: Path, kill_at: int) -> None:
    """Twice in a row, then once to the end; between them a reader sees whole files or none."""
    folder = tmp_path / "index"
    Store.create(folder, SETTINGS).close()
    whole = [0.0, 8.0]
    for _ in range(2):
        killed = write(folder, kill_at)
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr[-2000:]
        with Store(folder) as reader:
            assert all(starts == whole for starts in windows_of(reader).values())
    done = write(folder, 0)
    assert done.returncode == 0, done.stderr[-2000:]
    with Store(folder) as reader:
        assert windows_of(reader) == {"/a": whole, "/b": whole, "/c": whole}
        assert {path.name for path in (folder / "segments").iterdir()} == set(reader.segments)


def test_every_kill_of_those_tests_happens(tmp_path: Path) -> None:
    """There are as many steps as the tests kill at, so that none of them is a run to the end."""
    folder = tmp_path / "index"
    Store.create(folder, SETTINGS).close()
    done = write(folder, 0)
    assert int(done.stdout.split()[-1]) >= 55


def test_a_disk_that_is_full_leaves_the_index_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.writing():
        store.add([new_file("/a")])
        real = os.fsync

        def full(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith("audio.faiss"):
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                store.add([new_file("/b")])
        assert {path.name for path in (store.folder / "segments").iterdir()} == set(store.segments)
        assert set(windows_of(Store(store.folder))) == {"/a"}
        store.add([new_file("/b")])
    assert set(windows_of(Store(store.folder))) == {"/a", "/b"}


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        store = Store.create(disk / "index", SETTINGS)
        with store.writing():
            held = []
            with pytest.raises(OSError):
                for number in range(1000):
                    store.add([new_file(f"/{number}", 40)])
                    held.append(f"/{number}")
        store.close()
        assert held
        with Store(disk / "index") as again:
            assert set(windows_of(again)) == set(held)
            assert all(len(starts) == 40 for starts in windows_of(again).values())


@pytest.mark.parametrize("name", ["audio.faiss", "windows.npy", "audio.rows.npy"])
@pytest.mark.parametrize("damage", ["short", "missing", "garbage"])
def test_a_damaged_segment_is_said(store: Store, name: str, damage: str) -> None:
    with store.writing():
        store.add([new_file("/a")])
    path = next((store.folder / "segments").iterdir()) / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-3] if damage == "short" else bytes(len(data)))
    with pytest.raises(StoreError, match=r"is damaged .*run peav index update again"):
        Store(store.folder)


def test_a_damaged_catalogue_is_said_and_another_version_refused(store: Store) -> None:
    store.close()
    path = store.folder / "catalog.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET value = '99' WHERE key = 'version'")
    with pytest.raises(ValueError, match="of version 99, and this peav reads 1"):
        Store(store.folder)
    path.write_bytes(b"nothing of the kind" * 100)
    assert Store.is_one(store.folder)
    with pytest.raises(StoreError, match="is damaged"):
        Store(store.folder)


def test_a_second_writer_is_kept_out_and_a_stranger_s_folder_left_alone(store: Store, tmp_path: Path) -> None:
    with (
        store.writing(),
        pytest.raises(FolderInUse, match="another process is at work"),
        Store(store.folder).writing(),
    ):
        pass
    with pytest.raises(FileNotFoundError, match="there is no index at"):
        Store(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no index"):
        Store.create(tmp_path / "full", SETTINGS)


def test_vectors_beyond_fp16_are_refused(store: Store) -> None:
    for value in (np.nan, np.inf, 1e5):
        with store.writing(), pytest.raises(ValueError, match="finite and at most 65504"):
            store.add([NewFile(new_file("/x", 1).entry, [(0.0, 1.0)], [{"audio": np.full(DIM, value, np.float32)}])])
    assert windows_of(store) == {} and not list((store.folder / "segments").iterdir())


def test_the_reference_is_a_draw_that_depends_on_the_windows_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peav.search.reference.REFERENCE_WINDOWS", 12)
    with store.writing():
        for number in range(20):
            store.add([new_file(f"/{number}", 2)])
        keep_reference(store)
        kept = read_reference(store)["audio"]
        alive = np.array(store.catalog.file_ids())
        assert kept.shape == (12, DIM) and kept.dtype == np.float16
        store.compact(everything=True)
        again = draw_reference(list(store.segments.values()), ["audio", "video"], alive)
        assert list(again) == ["audio"]
        assert sorted(again["audio"].tolist()) == sorted(kept.tolist())
        # Of files that are gone nothing is drawn, whatever was kept.
        with store.catalog.transaction():
            store.catalog.drop_files("id > 2")
        assert read_reference(store)["audio"].shape == (4, DIM)
        (store.folder / "reference.npz").write_bytes(b"damaged")
        assert read_reference(store)["audio"].shape == (4, DIM)
