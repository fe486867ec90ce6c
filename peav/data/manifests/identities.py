"""Identities: 63-bit numbers that are equal for equal inputs, on every machine and in every process."""

from __future__ import annotations

import hashlib

#: The group of what is absent.
ABSENT = -1

_PUNCTUATION = " .,;:!?…"


def normalize_text(text: str) -> str:
    """Returns a text as it is compared: lower case, single spaces, no punctuation at its end.

    >>> normalize_text("  A dog   barks. ")
    'a dog barks'
    """
    return " ".join(text.lower().split()).rstrip(_PUNCTUATION)


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
