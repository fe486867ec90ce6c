"""HTML pages that need no other file and no network: the frame, and the pieces that all of them are put together from.

Texts are escaped here. What is passed as content, or is a :class:`Html`, is HTML already.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Sequence
from html import escape
from importlib.resources import files

#: What a page may load: nothing but the pictures and sounds that it holds itself.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
)


#: Control characters that are no white space, as pictures: a browser shows nothing of them, and a terminal obeys them once copied.
_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n\r"},
    127: "\u2421",
    **dict.fromkeys({*range(128, 160)} - {133}, "\ufffd"),  # 133 begins a new line
}


class Html(str):
    """A text that is HTML already."""


def text(value: str) -> str:
    r"""Returns a text as HTML, set in its own direction: one from right to left does not turn what stands around it.

    >>> text("a < b"), text("\u0634"), text(Html("<b>a</b>"))
    ('a &lt; b', '<bdi>ش</bdi>', '<b>a</b>')
    """
    if isinstance(value, Html):
        return value
    return escape(value) if value.isascii() else f"<bdi>{escape(value)}</bdi>"


def shortened(value: str, limit: int) -> str:
    """Returns a text of at most `limit` characters; a longer one ends in an ellipsis.

    >>> shortened("a dog barks", 6), shortened("a dog", 6)
    ('a dog…', 'a dog')
    """
    return value if len(value) <= limit else f"{value[: limit - 1]}…"


def page(title: str, body: str, *, footer: str, head: str = "", style: str = "", script: str = "") -> str:
    """Returns a whole page; control characters in it are shown as pictures of them.

    Args:
        title: of the page.
        body: what `<main>` holds.
        footer: a sentence.
        head: what stands under the title.
        style: rules that follow those of all pages.
        script: the only one that may run, at the end of the page; "" for none.
    """
    policy, scripts = POLICY, ""
    if script:
        # Nothing that a text of the data says can run: it is not this script.
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        scripts = f"<script>{script}</script>\n"
    whole = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{resource('peav', 'html.css')}{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{text(title)}</h1>\n{head}\n</header>\n<main>\n{body}</main>\n"
        f"<footer>{escape(footer)}</footer>\n{scripts}</body>\n</html>\n"
    )
    return whole.translate(_PICTURES)


def resource(package: str, name: str) -> str:
    """Returns the text of a file that comes with a package, such as a style sheet."""
    return (files(package) / name).read_text(encoding="utf-8")


def navigation(entries: Iterable[tuple[str, str]]) -> str:
    """Returns links to the sections, given (id, heading)."""
    links = "".join(f'<a href="#{escape(name)}">{escape(heading)}</a>' for name, heading in entries)
    return f'<nav aria-label="Sections">{links}</nav>'


def section(name: str, heading: str, content: str) -> str:
    """Returns a section."""
    return f'<section id="{escape(name)}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>\n'


def note(sentence: str) -> str:
    """Returns a sentence in small print."""
    return f'<p class="note">{text(sentence)}</p>'


def number(label: str, value: str, versus: str = "", unit: str = "") -> str:
    """Returns a headline number."""
    shown = f'{escape(value)}<span class="unit"> {escape(unit)}</span>' if unit else escape(value)
    return (
        f'<div class="number"><div class="label">{escape(label)}</div><div class="value">{shown}</div>'
        f'<div class="versus">{escape(versus)}</div></div>'
    )


def numbers(cards: Iterable[str]) -> str:
    """Returns headline numbers beside each other."""
    return f'<div class="numbers">{"".join(cards)}</div>'


def figure(uri: str, alt: str, caption: str = "") -> str:
    """Returns a picture with its caption."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{uri}" alt="{escape(alt)}">{below}</figure>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[str] = ()) -> str:
    """Returns a table.

    Args:
        columns: their headings.
        rows: their cells.
        words: columns that hold words: they begin at the left and wrap, as the first one does; in the others, numbers end at the right.

    >>> table(("stage", "reason", "clips"), [("tags", "a < b", "3")], words=("reason",)).partition("<tbody>")[2]
    '<tr><td>tags</td><td class="words">a &lt; b</td><td>3</td></tr></tbody></table></div>'
    """
    marks = [' class="words"' if place and column in words else "" for place, column in enumerate(columns)]
    head = "".join(f'<th scope="col"{mark}>{text(column)}</th>' for column, mark in zip(columns, marks, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{mark}>{text(value)}</td>' for value, mark in zip(row, marks, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
