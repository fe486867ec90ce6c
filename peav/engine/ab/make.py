"""A blind test, from two sources to the page and its key."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from peav.atomic import replacing
from peav.data.curation.gallery import ShownClip, TileMaker
from peav.data.manifests.clip import Clip
from peav.engine.ab.draw import draw
from peav.engine.ab.files import Key
from peav.engine.ab.page import render
from peav.engine.ab.sources import open_source, parted

#: Frames of a clip on the page: a caption of what happens cannot be judged by one.
FRAMES = 6


@dataclass(frozen=True)
class BlindTest:
    """What a blind test compares.

    Attributes:
        old: the first source, see `peav.engine.ab.sources.open_source`.
        new: the second one, which is better or worse.
        kind: the caption type.
        clips: how many.
        seed: of the choice of clips and the order of texts.
        split: of the clips.
        data: the prepared folder of a job whose work is not in it.
    """

    old: str
    new: str
    kind: str = "audio"
    clips: int = 50
    seed: int = 0
    split: str = "train"
    data: str | None = None

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ValueError(f"clips must be at least 1, got {self.clips}")
        first, second = ((Path(folder).resolve(), origin) for folder, origin in map(parted, (self.old, self.new)))
        if first == second:
            raise ValueError(
                f"both sources are {self.old}: compare two folders, FOLDER:real with FOLDER:synthetic, or two works"
            )


@dataclass(frozen=True)
class Made:
    """What was written.

    Attributes:
        page: for the raters.
        key_path: of the key, which they must not see.
        key: itself.
        several: clips of which a source has several captions: one of them was drawn.
    """

    page: Path
    key_path: Path
    key: Key
    several: int


def make_test(
    spec: BlindTest,
    out: Path,
    overwrite: bool = False,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda total: nullcontext(
        lambda n: None
    ),
) -> Made:
    """Writes the page of a blind test, and its key beside it.

    Args:
        spec: what it compares.
        out: the page, NAME.html; the key is NAME.key.json.
        overwrite: whether a page that is there gives way: answers to it cannot be scored any more.
        progress: shows how far it is.

    Raises:
        EngineError: if the work of a job cannot be read.
        FileExistsError: if there is a page or a key already.
        FileNotFoundError: if a source or its split is not there.
        ManifestError: if a manifest cannot be read.
        ValueError: if a setting cannot be, or no clip has two captions that differ.
    """
    if out.suffix != ".html":
        raise ValueError(f"the page must be called NAME.html, not {out.name!r}")
    key_path = out.with_suffix(".key.json")
    for path in () if overwrite else (out, key_path):
        if path.exists():
            raise FileExistsError(
                f"there is {path} already, and raters may be at it: give another --out, or --overwrite"
            )
    old, new = (open_source(name, spec.kind, spec.split, spec.data) for name in (spec.old, spec.new))
    maker = TileMaker(old.data, frames=FRAMES)

    def show(clip: Clip) -> ShownClip:
        # Who wrote the events, people or a model, may have written one of the captions.
        return maker.make(replace(clip, events=None))

    with progress(spec.clips) as tell:
        drawn = draw(old, new, spec.clips, spec.seed, show, tell)
    key = Key(
        spec.old, spec.new, spec.kind, spec.split, spec.seed, spec.clips, tuple(drawn.pairs), dict(drawn.left_out)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        partial.write_text(render(key, drawn.tiles), encoding="utf-8", errors="replace")
    key.write(key_path)
    return Made(out, key_path, key, drawn.several)
