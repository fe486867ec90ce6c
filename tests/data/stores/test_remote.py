import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from peav.data import ClipDataset, StoreError, StoreOptions, TrainingPlan
from peav.data.curation.edit import split_manifest
from peav.data.datamodule import REMOTE_WINDOW_CHUNKS, ClipDataModule
from peav.data.manifests.manifest import open_manifest
from peav.data.stores.reader import SampleError, ShardReader
from peav.data.stores.remote import ChunkCache
from tests.data.streams import content, loader
from tests.data.world import RATE, damage, make_data

KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


class Server:
    """A local S3 server in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = f"from moto.server import main; main(['-p', '{self.port}', '-H', '127.0.0.1'])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError("the S3 server did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def upload(self, data: Path, bucket: str) -> str:
        client = boto3.client("s3", endpoint_url=self.url, **KEYS)
        client.create_bucket(Bucket=bucket)
        for path in sorted(data.rglob("*")):
            if path.is_file() and ".index" not in str(path):
                client.upload_file(str(path), bucket, f"data/{path.relative_to(data)}")
        return f"s3://{bucket}/data"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("source") / "data", clips=120, chunk_bytes=30_000)


@pytest.fixture
def server(source: Path) -> Iterator[Server]:
    server = Server()
    server.start()
    server.upload(source, "clips")
    yield server
    server.kill()


def options(server: Server | None, cache: Path, **changes: Any) -> StoreOptions:
    storage = {"endpoint_url": server.url, **KEYS} if server is not None else {}
    return StoreOptions(**{"cache_dir": str(cache), "storage_options": storage, **changes})


def count_downloads(reader: ShardReader) -> list[str]:
    """Returns a list that grows by the name of each file that the reader fetches."""
    fetched: list[str] = []
    assert reader.cache is not None
    get = reader.cache._get

    def counted(remote: str, path: Path, limit: int | None) -> None:
        fetched.append(remote.rpartition("/")[2])
        get(remote, path, limit)

    reader.cache._get = counted  # type: ignore[method-assign]
    return fetched


def levels(data: str | Path, store: StoreOptions | None = None) -> list[float]:
    """Returns the mean level of each clip."""
    dataset = ClipDataset(data, "train", fields=["audio"], sample_rate=RATE, store=store)
    samples = [dataset[row].samples for row in range(len(dataset))]
    return [float(wave.mean()) for wave in samples if wave is not None]


def held_bytes(cache: Path) -> int:
    total = 0
    for path in cache.rglob("*.bin"):
        with suppress(FileNotFoundError):  # the thread that fetches ahead deletes while we look
            total += path.stat().st_size
    return total


def test_an_object_store_gives_the_same_batches_and_each_chunk_travels_once(
    source: Path, server: Server, tokenize: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    download = ChunkCache._download

    def counted(self: ChunkCache, name: str, path: Path, size: int | None) -> None:
        asked.append(name)
        download(self, name, path, size)

    monkeypatch.setattr(ChunkCache, "_download", counted)
    want = [[content(batch) for batch in epoch] for epoch in [loader(source, tokenize)] * 2]
    remote = loader("s3://clips/data", tokenize, options(server, tmp_path / "cache"))
    assert [[content(batch) for batch in epoch] for epoch in [remote] * 2] == want
    chunks = [name for name in asked if name.endswith(".bin")]
    assert len(set(chunks)) == len(chunks) == len(list((source / "shards" / "train").glob("*.bin"))) > 10
    # What is kept is found by another process; workers give the same.
    asked.clear()
    again = loader("s3://clips/data", tokenize, options(server, tmp_path / "cache"), workers=2)
    assert [content(batch) for batch in again] == want[0] and not any(name.endswith(".bin") for name in asked)


def test_the_cache_is_bounded_and_still_enough(
    source: Path, server: Server, tokenize: Callable, tmp_path: Path
) -> None:
    want = [content(batch) for batch in loader(source, tokenize)]
    cache = tmp_path / "cache"
    size = max(path.stat().st_size for path in (source / "shards" / "train").glob("*.bin"))
    small = options(server, cache, cache_gigabytes=3.5 * size / 1e9)
    held = []
    for batch, expected in zip(loader("s3://clips/data", tokenize, small), want, strict=True):
        assert content(batch) == expected
        held.append(held_bytes(cache))
    # A chunk that is on its way may come on top.
    assert max(held) <= 4.5 * size


def test_a_store_that_goes_away_stops_the_run_and_nothing_is_lost(
    source: Path, server: Server, tokenize: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peav.data.stores.remote.RETRY_SECONDS", (0.1,))
    monkeypatch.setattr("peav.data.loading.loader._AHEAD_BATCHES", 1)
    want = [content(batch) for batch in loader(source, tokenize)]
    store = options(server, tmp_path / "cache")
    store = StoreOptions(store.cache_dir, 100.0, {**store.storage_options})
    first = loader("s3://clips/data", tokenize, store)
    got: list[Any] = []
    state: dict[str, Any] = {}
    with pytest.raises(StoreError, match=r"s3://clips/data/shards/train/chunk-0-\d+.bin cannot be fetched"):
        for batch in first:
            got.append(content(batch))
            state = first.state_dict()
            if len(got) == 5:
                server.kill()
    assert 5 <= len(got) < len(want) and got == want[: len(got)] and not first.replaced
    server.start()
    server.upload(source, "clips")
    resumed = loader("s3://clips/data", tokenize, store)
    resumed.load_state_dict(state)
    assert got + [content(batch) for batch in resumed] == want


def test_what_is_not_in_the_store_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peav.data.stores.remote.RETRY_SECONDS", ())
    with pytest.raises(StoreError, match=r"s3://clips/nothing/manifest/train.jsonl cannot be fetched .*404"):
        open_manifest("s3://clips/nothing", "train", options(server, tmp_path))
    with pytest.raises(ValueError, match="cache_gigabytes must be above 0"):
        StoreOptions(cache_gigabytes=0)


def test_a_manifest_that_was_rewritten_is_fetched_again(source: Path, server: Server, tmp_path: Path) -> None:
    store = options(server, tmp_path / "cache")
    manifest = open_manifest("s3://clips/data", "train", store)
    stamp = manifest.path.stat().st_mtime_ns
    assert open_manifest("s3://clips/data", "train", store).path.stat().st_mtime_ns == stamp
    text = (source / "manifest" / "train.jsonl").read_text().replace("tone 0", "rewritten")
    client = boto3.client("s3", endpoint_url=server.url, **KEYS)
    client.put_object(Bucket="clips", Key="data/manifest/train.jsonl", Body=text.encode())
    again = open_manifest("s3://clips/data", "train", store)
    assert again[0].texts["audio"][0] == "rewritten" and again.index.digest == manifest.index.digest


def test_a_slow_disk_is_copied_chunk_by_chunk(source: Path, tokenize: Callable, tmp_path: Path) -> None:
    want = [content(batch) for batch in loader(source, tokenize)]
    got = [content(batch) for batch in loader(f"local:{source}", tokenize, options(None, tmp_path / "cache"))]
    assert got == want
    assert len(list((tmp_path / "cache").rglob("*.bin"))) == len(list((source / "shards").rglob("*.bin")))


def test_what_a_slow_disks_manifest_names_is_copied_too(source: Path, tmp_path: Path) -> None:
    split_manifest(source, tmp_path / "split", by="id", validation=0.2, test=0)
    store = options(None, tmp_path / "cache")
    assert levels(f"local:{tmp_path / 'split'}", store) == levels(tmp_path / "split")
    assert len(list((tmp_path / "cache").rglob("*.bin"))) == len(list((source / "shards").rglob("*.bin")))


def test_a_damaged_copy_is_noticed(source: Path, tmp_path: Path) -> None:
    reader = ShardReader(f"local:{source}/shards/train", options(None, tmp_path / "cache"))
    reader.read(0)
    name, size = reader.chunk_name(0)
    assert reader.cache is not None
    copy = reader.cache.fetch(name, size)
    copy.write_bytes(copy.read_bytes()[:100])  # cut short: fetched again
    assert reader.read(0).id == "train-0" and copy.stat().st_size == size


def test_a_copy_with_a_flipped_byte_is_fetched_again(source: Path, tmp_path: Path) -> None:
    want = ShardReader(source / "shards" / "train").read(0)
    reader = ShardReader(f"local:{source}/shards/train", options(None, tmp_path / "cache"))
    assert reader.read(0) == want and reader.cache is not None
    copy = reader.cache.fetch(*reader.chunk_name(0))
    whole = copy.read_bytes()
    place = whole.find(want.audio) + len(want.audio) // 2
    copy.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    assert reader.read(0) == want and copy.read_bytes() == whole


def test_damage_in_the_store_itself_is_fetched_once_more_and_then_reported(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", clips=8)
    damage(data, 0)
    reader = ShardReader(f"local:{data}/shards/train", options(None, tmp_path / "cache"))
    fetched = count_downloads(reader)
    for _ in range(3):
        with pytest.raises(SampleError, match="do not match their checksum"):
            reader.read(0)
    assert fetched == ["index.json", "chunk-0-0.bin", "chunk-0-0.bin"]


def test_shards_that_were_packed_anew_replace_the_copies_of_the_old_ones(tmp_path: Path) -> None:
    """The same number of clips, and the same sizes, so that nothing but their content tells them apart."""
    store = options(None, tmp_path / "cache")
    data = make_data(tmp_path / "data", clips=20)
    assert levels(f"local:{data}", store) == levels(data)  # warms the cache
    shutil.rmtree(data)
    make_data(data, clips=20, level=2)
    assert levels(f"local:{data}", store) == levels(data)
    shutil.rmtree(data)
    make_data(data, clips=31, chunk_bytes=5_000)  # other chunks of the same names
    new = ClipDataset(f"local:{data}", "train", fields=["audio"], sample_rate=RATE, store=store)
    assert [new[row].id for row in range(31)] == [f"train-{row}" for row in range(31)]


def test_ranks_that_start_together_share_a_manifest(source: Path, tmp_path: Path) -> None:
    caches = [ChunkCache(f"local:{source}", options(None, tmp_path / "cache")) for _ in range(4)]
    fetched: list[str] = []
    gate = threading.Barrier(4)

    def refresh(cache: ChunkCache) -> Path:
        get = cache._get

        def slow(remote: str, path: Path, limit: int | None) -> None:
            fetched.append(remote)
            time.sleep(0.5)
            get(remote, path, limit)

        cache._get = slow  # type: ignore[method-assign]
        gate.wait()
        return cache.refresh("manifest/train.jsonl")

    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(refresh, caches))
    assert len(paths) == 1 and len(fetched) == 1
    caches[0].refresh("manifest/train.jsonl")
    assert len(fetched) == 2  # later on it is asked again


def test_the_data_module_goes_by_windows_in_a_store(server: Server, tokenize: Callable, tmp_path: Path) -> None:
    module = ClipDataModule(
        "s3://clips/data",
        batch_size=4,
        num_workers=0,
        sample_rate=RATE,
        fields=["audio"],
        store=options(server, tmp_path / "cache"),
    )
    module.setup("fit")
    assert set(module.datasets) == {"train"}  # there is no validation split in the store
    batches = module.train_dataloader()
    assert isinstance(batches.plan, TrainingPlan) and batches.plan.window_chunks == REMOTE_WINDOW_CHUNKS
    assert len(next(iter(batches)).ids) == 4
    assert os.environ.get("AWS_ACCESS_KEY_ID") is None
