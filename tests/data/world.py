"""Small prepared data without media files: tones that tell which clip they are, packed in as many chunks as a test wants."""

import io
import json
import wave
from pathlib import Path

import numpy as np

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.manifest import write_manifest
from peav.data.manifests.texts import Caption
from peav.data.stores.samples import Sample
from peav.data.stores.shards import ShardWriter

RATE = 8000


def tone(number: int, seconds: float, level: float = 1.0) -> bytes:
    """A wav whose level is the number of its clip."""
    samples = np.full(round(seconds * RATE), level * (number + 1) / 1000)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return stream.getvalue()


def make_data(
    data: Path,
    clips: int = 60,
    chunk_bytes: int = 20_000,
    domains: tuple[str, ...] = ("a", "b"),
    split: str = "train",
    level: float = 1.0,
    seconds: float = 0.1,
    origins: tuple[tuple[str, ...], ...] = (("real", "synthetic"),),
) -> Path:
    """Writes `clips` clips of `seconds` to five times as many; clip i is in domain i modulo the domains.

    It has a caption of each of the origins i modulo their number.
    """
    texts = {"real": "tone", "synthetic": "made"}
    store = f"shards/{split}"
    writer = ShardWriter(data / store, chunk_bytes)
    made = []
    for number in range(clips):
        duration = seconds + seconds * (number * 7 % 5)
        sample = Sample(f"{split}-{number}", audio=tone(number, duration, level))
        made.append(
            Clip(
                sample.id,
                duration,
                captions={
                    "audio": tuple(
                        Caption(f"{texts[origin]} {number}", origin) for origin in origins[number % len(origins)]
                    )
                },
                domain=domains[number % len(domains)],
                split=split,
                has_audio=True,
                origins={"audio": 0.0},
                store=store,
                row=number,
                crc32=sample.crc32,
                media_duration=duration,
                audio_group=bytes_group(sample.audio),
            )
        )
        writer.add(sample)
    writer.close()
    write_manifest(data / "manifest" / f"{split}.jsonl", made)
    (data / "prepare.json").write_text(json.dumps({"report": {"clips": {split: clips}}}))
    return data


def damage(data: Path, row: int, split: str = "train") -> None:
    """Flips a byte in the sound of a row."""
    from peav.data.stores.reader import ShardReader

    media = ShardReader(data / "shards" / split).read(row).audio
    for chunk in (data / "shards" / split).glob("*.bin"):
        held = bytearray(chunk.read_bytes())
        place = held.find(media)
        if place >= 0:
            held[place + len(media) // 2] ^= 255
            chunk.write_bytes(held)
            return
    raise AssertionError(f"row {row} is in no chunk")
