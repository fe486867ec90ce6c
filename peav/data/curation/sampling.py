"""Random numbers that belong to an identity: the same for the same seed, whatever else is sampled, and in whatever order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peav.data.manifests.identities import bytes_group


def uniform(groups: NDArray[np.int64], purpose: str, seed: int) -> NDArray[np.float64]:
    """Returns a number from 0 to below 1 for each identity.

    Args:
        groups: (N,) identities, see `peav.data.manifests.identities`.
        purpose: what the numbers decide. Another one gives numbers independent of these: what one choice left over is no
            biased sample to the next one of the same seed.
        seed: another one gives other numbers.

    >>> ids = np.array([bytes_group(b"rain"), bytes_group(b"wind")])
    >>> numbers = uniform(ids, "split", 0)
    >>> bool((numbers[::-1] == uniform(ids[::-1], "split", 0)).all())
    True
    >>> bool((numbers == uniform(ids, "mix", 0)).any() or (numbers == uniform(ids, "split", 1)).any())
    False
    """
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    bits = groups.astype(np.uint64) ^ np.uint64(bytes_group(f"{purpose} {seed}".encode()))
    bits += np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
