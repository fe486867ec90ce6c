"""Which recordings an instrument of a sound font plays: two that share one are no strangers to each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NAME = ("name", "S20")

#: The tables of the chunk `pdta`, as the SoundFont Technical Specification 2.04, section 7, lays them out.
_TABLES = {
    "phdr": np.dtype([_NAME, ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("rest", "V12")]),
    "pbag": np.dtype([("generator", "<u2"), ("modulator", "<u2")]),
    "pgen": np.dtype([("kind", "<u2"), ("amount", "<u2")]),
    "inst": np.dtype([_NAME, ("bag", "<u2")]),
    "ibag": np.dtype([("generator", "<u2"), ("modulator", "<u2")]),
    "igen": np.dtype([("kind", "<u2"), ("amount", "<u2")]),
    "shdr": np.dtype([_NAME, ("start", "<u4"), ("end", "<u4"), ("rest", "V18")]),
}
#: Kinds of generators that point on: to an instrument, and to a sample.
_INSTRUMENT, _SAMPLE = 41, 53


def chunks(data: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yields the chunks of a RIFF file, or of a list in it: name and content."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8].tobytes(), "little")
        yield data[at : at + 4].tobytes().decode("ascii"), data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def recordings(path: Path) -> dict[int, set[int]]:
    """Returns the recordings of each program of bank 0, by where they begin in the font.

    Raises:
        ValueError: if the file is no sound font.
    """
    data = np.memmap(path, np.uint8, "r")
    if data[:4].tobytes() != b"RIFF" or data[8:12].tobytes() != b"sfbk":
        raise ValueError(f"{path} is no sound font (RIFF, sfbk)")
    lists = {content[:4].tobytes(): content[4:] for name, content in chunks(data[12:]) if name == "LIST"}
    tables = {
        name: np.frombuffer(content.tobytes(), _TABLES[name])
        for name, content in chunks(lists[b"pdta"])
        if name in _TABLES
    }

    def pointed(bags: str, generators: str, first: int, last: int, kind: int) -> list[int]:
        part = tables[generators][tables[bags]["generator"][first] : tables[bags]["generator"][last]]
        amounts: list[int] = part["amount"][part["kind"] == kind].tolist()
        return amounts

    found: dict[int, set[int]] = {}
    presets, instruments, samples = tables["phdr"], tables["inst"], tables["shdr"]
    for row in np.flatnonzero(presets["bank"][:-1] == 0):
        played = found.setdefault(int(presets["program"][row]), set())
        for one in pointed("pbag", "pgen", presets["bag"][row], presets["bag"][row + 1], _INSTRUMENT):
            for sample in pointed("ibag", "igen", instruments["bag"][one], instruments["bag"][one + 1], _SAMPLE):
                played.add(int(samples["start"][sample]))
    return found
