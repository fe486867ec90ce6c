"""Identities: 63-bit numbers that are equal for equal inputs, on every machine and in every process."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

#: The group of what is absent.
ABSENT = -1

_PUNCTUATION = " .,;:!?…"


def normalize_text(text: str) -> str:
    r"""Returns a text as it is compared: lower case, single spaces, no punctuation at its end, letters composed (NFC).

    >>> normalize_text("  A dog   barks. "), normalize_text("Cafe\u0301") == normalize_text("caf\u00e9")
    ('a dog barks', True)
    """
    return " ".join(unicodedata.normalize("NFC", text).lower().split()).rstrip(_PUNCTUATION)


def distinct_texts(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """Tells which texts are the same after normalisation: in training and in evaluation they are one.

    Args:
        texts: N texts.

    Returns:
        the K distinct ones, each as it was first written, and the place among them of each of the N.

    >>> distinct_texts(["Dog bark", "rain", "dog bark."])
    (['Dog bark', 'rain'], [0, 1, 0])
    """
    place: dict[str, int] = {}
    found: list[str] = []
    places: list[int] = []
    for text in texts:
        key = normalize_text(text)
        if key not in place:
            place[key] = len(found)
            found.append(text)
        places.append(place[key])
    return found, places


def bytes_group(data: bytes) -> int:
    """Returns the identity of some bytes, from 0 to 2**63 - 1.

    >>> bytes_group(b"rain") == bytes_group(b"rain"), 0 <= bytes_group(b"") < 2**63
    (True, True)
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def text_group(text: str) -> int:
    """Returns the identity of a text after normalisation.

    >>> text_group("A dog barks.") == text_group("a dog  barks")
    True
    """
    return bytes_group(normalize_text(text).encode())
