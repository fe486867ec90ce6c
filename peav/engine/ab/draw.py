"""Which clips a blind test shows, and in which order their captions stand: by the seed and the ids alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from peav.data.curation.gallery import ShownClip
from peav.data.curation.sampling import uniform
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import normalize_text
from peav.engine.ab.files import Pair
from peav.engine.ab.sources import Source
from peav.engine.survey import media_group


@dataclass
class Drawn:
    """The clips of a page.

    Attributes:
        pairs: two captions of each.
        tiles: what is seen and heard of each.
        left_out: clips by the reason for which they were passed over.
        several: clips of which a source has several captions: one of them was drawn.
    """

    pairs: list[Pair] = field(default_factory=list)
    tiles: list[ShownClip] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    several: int = 0


def draw(
    old: Source,
    new: Source,
    number: int,
    seed: int,
    show: Callable[[Clip], ShownClip],
    on_clip: Callable[[int], None] = lambda clips: None,
) -> Drawn:
    """Draws clips of which both sources have a caption, and not the same one, until there are enough.

    Args:
        old: the first source.
        new: the second one.
        number: of clips, at least one.
        seed: of the draw.
        show: decodes a clip.
        on_clip: is told of each that was taken.

    Raises:
        ValueError: if no clip is left.
    """
    common = np.intersect1d(old.ids, new.ids)
    drawn = Drawn()
    for name, source in (("old", old), ("new", new)):
        if alone := len(source.ids) - len(common):
            drawn.left_out[f"in the {name} folder alone"] = alone
    taken: list[int] = []
    texts: list[tuple[str, str]] = []
    for group in common[np.argsort(uniform(common, "ab clips", seed), kind="stable")].tolist():
        found = _texts(old, new, group, seed)
        if isinstance(found, str):
            drawn.left_out[found] += 1
            continue
        clip, first, second, several = found
        tile = show(clip)
        if tile.errors:
            drawn.left_out["cannot be decoded"] += 1
            continue
        taken.append(group)
        texts.append((first, second))
        drawn.tiles.append(tile)
        drawn.several += several
        on_clip(1)
        if len(taken) == number:
            break
    if not taken:
        why = ", ".join(f"{count:,} {reason}" for reason, count in drawn.left_out.items()) or "both are empty"
        raise ValueError(f"no clip has two different captions in {old.name} and {new.name}: {why}")
    # As many of each order as there can be, so that who always prefers the left text changes nothing.
    order = np.argsort(uniform(np.array(taken), "ab order", seed), kind="stable")
    left = set(order[: (len(taken) + seed % 2) // 2].tolist())
    for place, (tile, (first, second)) in enumerate(zip(drawn.tiles, texts, strict=True)):
        drawn.pairs.append(Pair(tile.clip.id, first, second, "A" if place in left else "B"))
    return drawn


def _texts(old: Source, new: Source, group: int, seed: int) -> tuple[Clip, str, str, bool] | str:
    """Returns a clip with a caption of each source, and whether one was drawn among several; or why it is passed over."""
    clip, first = old.read(group)
    other, second = new.read(group)
    if media_group(clip) != media_group(other):
        return "with other media in the two folders"
    if not first or not second:
        return "without a caption in " + ("both" if not first and not second else "old" if not first else "new")
    several = len(first) > 1 or len(second) > 1
    one, two = (
        texts[int(uniform(np.array([group]), f"ab {name}", seed)[0] * len(texts))]
        for name, texts in (("old", first), ("new", second))
    )
    if normalize_text(one) == normalize_text(two):
        return "with the same text in both"
    return clip, one.strip(), two.strip(), several
