"""What is wrong with a medium, in words for its owner."""

from __future__ import annotations


class MediaError(RuntimeError):
    """A file that cannot be decoded or does not hold what it says; carries its path and the reason.

    >>> str(MediaError("a.mp4", "zero bytes"))
    'a.mp4: zero bytes'
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else path)
        self.path = path
        self.reason = reason
