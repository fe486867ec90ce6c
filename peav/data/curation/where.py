"""Which clips of a manifest are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peav.data.manifests.clip import Clip
from peav.data.manifests.fields import hint
from peav.fields import check_caption_type, order_caption_types
from peav.types import CAPTION_TYPES, Seconds


@dataclass(frozen=True)
class Where:
    """A filter; what is not given is not asked for.

    Attributes:
        domains: clips of one of these.
        datasets: likewise.
        licences: likewise.
        min_seconds: of this duration at least.
        max_seconds: at most.
        has_audio: with sound (true), or without (false).
        has_video: with a picture, or without.
        with_captions: with a caption of each of these types.
    """

    domains: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    min_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    has_audio: bool | None = None
    has_video: bool | None = None
    with_captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in self.with_captions:
            check_caption_type(kind)
        if self.min_seconds is not None and self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise ValueError(
                f"min_seconds={self.min_seconds:g} is above max_seconds={self.max_seconds:g}: no clip is left"
            )

    def keeps(self, clip: Clip) -> bool:
        """Returns whether a clip is wanted.

        >>> Where(domains=("music",), min_seconds=2).keeps(Clip("a", 3.0, domain="music"))
        True
        """
        return (
            (not self.domains or clip.domain in self.domains)
            and (not self.datasets or clip.dataset in self.datasets)
            and (not self.licences or clip.licence in self.licences)
            and (self.min_seconds is None or clip.duration >= self.min_seconds)
            and (self.max_seconds is None or clip.duration <= self.max_seconds)
            and (self.has_audio is None or clip.has_audio == self.has_audio)
            and (self.has_video is None or clip.has_video == self.has_video)
            and all(clip.captions.get(kind) for kind in self.with_captions)
        )


class SeenLabels:
    """Notices labels and caption types that a filter asks for and no clip has: they are misspelt, most likely."""

    def __init__(self, where: Where) -> None:
        self._wanted = {"domain": where.domains, "dataset": where.datasets, "licence": where.licences}
        self._seen: dict[str, set[str]] = {name: set() for name in self._wanted}
        self._kinds = [kind for kind in where.with_captions if kind not in CAPTION_TYPES]
        self._seen_kinds: set[str] = set()

    def add(self, clip: Clip) -> None:
        """Notices the labels of a clip."""
        for name, wanted in self._wanted.items():
            if wanted:
                self._seen[name].add(getattr(clip, name))
        if self._kinds:
            self._seen_kinds.update(clip.captions)

    def check(self) -> None:
        """Compares them with what was asked for.

        Raises:
            ValueError: if no clip has one of them.
        """
        for name, wanted in self._wanted.items():
            for label in wanted:
                if label not in self._seen[name]:
                    known = tuple(sorted(self._seen[name]))
                    raise ValueError(f"no clip has the {name} {label!r}{hint(label, known)} There are {_listed(known)}")
        for kind in self._kinds:
            if kind not in self._seen_kinds:
                known = tuple(order_caption_types(self._seen_kinds))
                raise ValueError(
                    f"no clip has captions of the type {kind!r}{hint(kind, known)} The types are {', '.join(known)}"
                )


def _listed(labels: Iterable[str], most: int = 20) -> str:
    named = [repr(label) for label in labels]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")
