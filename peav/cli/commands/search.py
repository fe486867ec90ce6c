"""`peav search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def search(
    index: Path,
    words: Sequence[str] = (),
    *,
    mode: Literal["heard", "seen", "both"] | None = None,
    not_: Sequence[str] = (),
    like: Sequence[str] = (),
    entry: Sequence[int] = (),
    weights: Sequence[float] = (),
    top: int = 10,
    moments: int = 3,
    folder: str | None = None,
    kind: Literal["sound", "video", "picture"] | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    after: str | None = None,
    before: str | None = None,
    domain: str | None = None,
    name: str | None = None,
    transcript: str | None = None,
    fold: bool = True,
    when: bool = True,
    json: bool = False,
    out: Path | None = None,
    model: str | None = None,
    device: str = "auto",
    trust: bool = False,
) -> None:
    """Search an index by words, sounds, pictures and clips, and say where in which file it is.

    Of a file the moments are listed that fit, the best first. `window N` is what --entry takes: more like that. The exit status is 3
    where nothing is found, or nothing fits as far as the model can say.

    For example: peav search my_index "a dog barks" --not music --min_seconds 5

    Args:
        index: folder of the index.
        words: what is sought; several in quotes of their own are all sought.
        mode: what is compared: what is `heard`, `seen`, or `both` together. By default for words what is heard, if the index holds sound.
        not_: words for what must not fit; half their score is subtracted.
        like: a file of sound, pictures or video, or a clip of one, as in film.mp4#t=12,20.
        entry: number of a window: more like that.
        weights: of words, --like and --entry, in this order.
        top: files at most.
        moments: of each file at most.
        folder: only files in this folder, at any depth.
        kind: only `sound`, `video` or `picture`.
        min_seconds: only files at least so long.
        max_seconds: only files at most so long.
        after: only files last written on this day or later, such as 2026-03-01.
        before: only files last written before this day.
        domain: only files of this domain.
        name: only files whose path holds these words.
        transcript: only files in whose transcript these words are said.
        fold: leave out files that are nearly the same as one that is shown.
        when: ask the frames of what is shown when it begins and ends, if the model has them.
        json: write JSON.
        out: folder for the moments that are shown, cut out as clips.
        model: where the model of the index lies now, if it has moved.
        device: `cpu`, `cuda`, ... or `auto`.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.cli.search import as_json, as_text, cut_clips
    from peav.search.filters import Filters
    from peav.search.index import Index

    filters = Filters(
        folder=folder,
        kind=kind,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        after=after,
        before=before,
        domain=domain,
        name=name,
        transcript=transcript,
    )
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already: delete it, or choose another folder")
    with Index.open(index, model, device, trust) as opened:
        found = opened.search(
            words,
            like=like,
            entry=entry,
            negative=not_,
            mode=mode,
            weights=weights or None,
            filters=filters,
            top=top,
            moments=moments,
            fold=fold,
            when=when,
        )
    print(as_json(found) if json else as_text(found))
    if out is not None and found.cards:
        count, failed = cut_clips(found, out)
        if not json:
            print(f"wrote {count} clips into {out}" + "".join(f"\nnot cut: {reason}" for reason in failed))
    if not found.cards or found.fits is False:
        raise SystemExit(3)
