"""The commands of `peav ab`: a blind test of captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make(
    old: str,
    new: str,
    *,
    out: Path = Path("ab.html"),
    type: str = "audio",
    clips: int = 50,
    seed: int = 0,
    split: str = "train",
    data: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a page on which people choose between two captions of a clip, not knowing where each comes from.

    The page is one file that needs no network; raters open it, answer by click or key, and save a file of answers. The key, which says
    which text is which, is written beside it: keep it from them. A source is a folder that `peav prepare` wrote, FOLDER:real or
    FOLDER:synthetic, which are its captions by people or by models alone, or the work folder of a job of `peav caption`.

    For example: peav ab make my_data:real my_data:synthetic --type audio

    Args:
        old: the captions that there were.
        new: those of which is asked whether they are better.
        out: the page, NAME.html; the key is NAME.key.json.
        type: of the captions, such as `audio`, `video` or `audio_video`.
        clips: how many; clips that have only one of both, or the same text twice, are passed over and counted.
        seed: of the choice of clips and the order of the texts.
        split: of the clips.
        data: the prepared folder of the clips, for a work folder that is not in it.
        overwrite: let a page that is there give way; answers to it are then without a key.
    """
    from peav.cli.clip_progress import clip_progress
    from peav.data.manifests.records import SPLITS
    from peav.engine.ab.make import BlindTest, make_test
    from peav.engine.ab.report import said_of_draw
    from peav.suggest import suggest

    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}. {suggest(split, SPLITS)}")
    spec = BlindTest(old, new, type, clips, seed, split, data)
    made = make_test(spec, out, overwrite, lambda total: clip_progress("clips", total))
    print(f"wrote {made.page} for the raters: {len(made.key.pairs)} clips, and {made.key_path}, the key, for you alone")
    for line in said_of_draw(made.key, made.several):
        print(line)


def score(key: Path, answers: Sequence[Path] = (), *, out: Path | None = None) -> None:
    """Say how often new captions were better, the same or worse, from the answers of raters.

    Shares have 95 % intervals; of several raters it says how far they agree. The clips that lost are listed.

    For example: peav ab score ab.key.json answers-anna.json answers-ben.json

    Args:
        key: that was written beside the page.
        answers: files that the page saved, one a rater.
        out: JSON file of the outcome; NAME.score.json beside the key by default.
    """
    from peav.engine.ab.files import Key, read_answers, write_json
    from peav.engine.ab.report import lines_of
    from peav.engine.ab.score import score as run

    path = (
        out if out is not None else key.with_name(f"{key.name.removesuffix('.json').removesuffix('.key')}.score.json")
    )
    for given in (key, *answers):
        if given.resolve() == path.resolve():
            raise ValueError(f"--out {path} would replace {given}, which cannot be made again: give another file")
    held = Key.read(key)
    found = run(held, read_answers(answers, held))
    write_json(path, found.to_json())
    for line in lines_of(found):
        print(line)
    print(f"wrote {path}")
