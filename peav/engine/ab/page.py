"""The page of a blind test: clips, two captions of each, and what the rater says; nothing on it tells which caption is which."""

from __future__ import annotations

from collections.abc import Sequence

from peav import html
from peav.data.curation.gallery import ShownClip, media_of
from peav.engine.ab.files import Key, Pair

_ABOUT = {
    "audio": "what is heard",
    "video": "what is seen",
    "audio_video": "what is seen and heard",
}

_CHOICES = (("A", "A is better"), ("same", "About the same"), ("B", "B is better"))


def render(key: Key, tiles: Sequence[ShownClip]) -> str:
    """Returns the page; every text of the data is escaped.

    Args:
        key: of the page. Neither its sources nor the ids of clips are on the page.
        tiles: what is seen and heard of each clip, without events: who wrote them may have written a caption, too.
    """
    question = f"Which text says better {_ABOUT.get(key.kind, 'what is in the clip')}?"
    about = (
        "<p>A text is better if it names what is there, leaves nothing important out and invents nothing; its style does not count. "
        '<span class="keys">Keys: <kbd>1</kbd> <kbd>2</kbd> <kbd>3</kbd> answer, <kbd>←</kbd> <kbd>→</kbd> lead to other clips, the space '
        "bar plays.</span></p>"
    )
    pairs = "".join(
        _pair(number, pair, tile) for number, (pair, tile) in enumerate(zip(key.pairs, tiles, strict=True), 1)
    )
    asked = f'<h2 id="question">{html.text(question)}</h2>\n'
    body = f'<div id="test" data-page="{key.page}">\n{_STATUS}{asked}{pairs}{_controls()}</div>\n{_SAVE}'
    return html.page(
        "Blind test of captions",
        body,
        footer="Made by peav ab make. This page needs no network; answers stay in this browser until you save them.",
        head=about + '<noscript><p class="warning">This page needs JavaScript, of its own alone.</p></noscript>',
        style=html.resource("peav.engine.ab", "page.css"),
        script=html.resource("peav.engine.ab", "page.js"),
    )


def _pair(number: int, pair: Pair, tile: ShownClip) -> str:
    texts = "".join(
        f'<div class="text"><h3>{letter}</h3><p dir="auto">{html.text(text)}</p></div>'
        for letter, text in zip("AB", pair.shown, strict=True)
    )
    return (
        f'<section class="pair" aria-label="Clip {number}">\n<div class="media">{media_of(tile, str(number))}</div>\n'
        f'<div class="texts">{texts}</div>\n</section>\n'
    )


def _controls() -> str:
    choices = "".join(
        f'<button type="button" data-choice="{choice}" aria-pressed="false"><kbd>{place}</kbd> {label}</button>'
        for place, (choice, label) in enumerate(_CHOICES, 1)
    )
    return (
        '<div class="ask" role="group" aria-labelledby="question">'
        '<button type="button" id="back" aria-label="Back">←</button>'
        f"{choices}"
        '<button type="button" id="next" aria-label="Next">→</button></div>\n'
    )


_STATUS = (
    '<div class="status"><p id="place" role="status"></p>'
    '<progress id="progress" value="0" aria-label="Clips answered"></progress></div>\n'
)

_SAVE = (
    '<section id="save" aria-label="Save"><p id="left" role="status"></p>\n'
    '<p><label for="rater">Your name, or any other word that tells you from other raters</label> '
    '<input id="rater" autocomplete="off" maxlength="60"></p>\n'
    '<p><button type="button" id="write">Save the answers</button> <button type="button" id="anew">Begin anew</button></p>\n'
    '<p class="note" id="kept"></p></section>\n'
)
