"""The outcome of a blind test in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peav.engine.ab.files import Key
from peav.engine.ab.score import MAJORITY, VERDICTS, Score, Tally, half_width
from peav.engine.ab.statistics import CONFIDENCE, wilson

#: The lost clips that are listed; the file has all of them.
_LISTED = 20

_NAME, _CELL = 16, 26


def lines_of(score: Score) -> Iterator[str]:
    """Yields the lines that say what came out."""
    key, clips = score.key, len(score.key.pairs)
    yield f"new: {printable(key.new)}"
    yield f"old: {printable(key.old)}"
    yield f"{clips} clips, {key.kind} captions; shares with their 95 % intervals (Wilson)"
    yield ""
    shown = [verdict for verdict in VERDICTS if verdict != "divided" or score.majority.count(verdict)]
    yield _row("new is", shown)
    for place, (name, tally) in enumerate(score.tallies):
        # A rater alone is never divided.
        rater = place < len(score.raters)
        cells = ["" if v == "divided" and rater else _cell(tally.count(v), clips) for v in shown]
        yield _row(printable(name), cells)
    yield ""
    yield from _conclusion(score)
    yield from _lost(score)


def _row(name: str, cells: Iterable[str]) -> str:
    return (name[: _NAME - 1].ljust(_NAME) + "".join(cell.ljust(_CELL) for cell in cells)).rstrip()


def _conclusion(score: Score) -> Iterator[str]:
    clips = len(score.key.pairs)
    tally = score.majority
    yield preference(tally)
    yield (
        f"How wide that is: with {clips} clips a share of one half is known to within {100 * half_width(clips):.0f} points to either side; "
        f"200 clips give {100 * half_width(200):.0f}, 1,000 give {100 * half_width(1000):.0f}"
    )
    if score.agreement is not None:
        alpha = "not defined, for all answers are the same" if score.alpha is None else f"{score.alpha:.2f}"
        yield (
            f"The {len(score.raters)} raters: {100 * score.agreement:.0f} % of the pairs of answers to a clip are equal; "
            f"Krippendorff's alpha is {alpha} (1 is full agreement, 0 is chance)"
        )
        yield f"The row {MAJORITY} counts a clip once, by the answer of more than half of the raters"
    first, of = score.left
    if of:
        low, high = wilson(first, of)
        aside = "" if low <= 0.5 <= high else ": raters lean to one side, which the even order of the page evens out"
        yield f"The text that stood first was preferred {first} times of {of}{aside}"


def preference(tally: Tally) -> str:
    """Says which captions are preferred, and whether that is more than chance."""
    won, decided = tally.preferred
    if not decided:
        return "No caption was preferred on any clip"
    low, high = wilson(won, decided)
    told = (
        "new is preferred"
        if low > 0.5
        else "old is preferred"
        if high < 0.5
        else "which of them is better is not told from chance"
    )
    share = f"{100 * won / decided:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"Where one was better, it was new on {won} of {decided} clips, {share}: {told}, at {100 * CONFIDENCE:g} %"


def _lost(score: Score) -> Iterator[str]:
    lost = list(score.lost())
    if not lost:
        return
    yield ""
    yield f"{len(lost)} clips lost:" if len(lost) > 1 else "One clip lost:"
    for pair, _ in lost[:_LISTED]:
        yield f"  {printable(pair.clip)}"
        yield f"    new: {printable(pair.new)}"
        yield f"    old: {printable(pair.old)}"
    if len(lost) > _LISTED:
        yield f"  and {len(lost) - _LISTED} more: all are in the file"


def said_of_draw(key: Key, several: int) -> Iterator[str]:
    """Yields what is to be said of the clips of a page."""
    clips = len(key.pairs)
    if clips < key.asked:
        yield f"only {clips} clips of the {key.asked} asked for have two captions that differ: intervals will be wider"
    for reason, count in key.left_out.items():
        yield f"left out: {count:,} clips {reason}"
    if several:
        yield f"{several} clips have several {key.kind} captions of a source: one of each was drawn"
    yield f"a share of one half will be known to within {100 * half_width(clips):.0f} points to either side (95 %, Wilson)"


def printable(text: str) -> str:
    r"""Returns a text in which no character commands a terminal or turns the direction of what follows.

    >>> printable("a\x1b[31m \u202eb\nc")
    'a\\x1b[31m \\u202eb c'
    """
    joined = " ".join(text.split())
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in joined)


def _cell(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"{count} {100 * count / total:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
