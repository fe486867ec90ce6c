"""Labels of classes, and the captions that a template makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from peav.data.manifests.identities import distinct_texts, normalize_text
from peav.data.manifests.texts import CLASS
from peav.data.readers.rows import Row

#: How a caption is made of a label by default.
TEMPLATE = "the sound of {label}"


def check_template(template: str) -> str:
    """Returns a template that is empty or says where the label goes.

    Raises:
        ValueError: if it does not.
    """
    if template and "{label}" not in template:
        raise ValueError(f"a template says by {{label}} where the label goes, as {TEMPLATE!r} does, got {template!r}")
    return template


def label_captions(
    template: str, labels: Sequence[str], caption_type: str = "audio"
) -> dict[str, list[dict[str, str]]] | None:
    """Returns the caption that a template makes of the labels of a clip, marked as synthetic.

    A label is not what somebody wrote of the clip, hence the mark. None where the template is empty or there is no label.

    >>> label_captions("the sound of {label}", ["rain", "wind", "speech"])
    {'audio': [{'text': 'the sound of rain, wind and speech', 'origin': 'synthetic'}]}
    """
    if not template or not labels:
        return None
    listed = " and ".join(part for part in (", ".join(labels[:-1]), labels[-1]) if part)
    return {caption_type: [{"text": template.replace("{label}", listed), "origin": "synthetic"}]}


def class_captions(classes: Sequence[str], template: str = "", caption_type: str = "audio") -> dict[str, list[Any]]:
    """Returns the captions of a clip of these classes: their names, and the caption that a template makes of them.

    >>> class_captions(["rain"], "the sound of {label}")
    {'class': ['rain'], 'audio': [{'text': 'the sound of rain', 'origin': 'synthetic'}]}
    """
    return {CLASS: list(classes), **(label_captions(template, classes, caption_type) or {})}


def spaced(label: str) -> str:
    """Returns a label as words: class names join theirs by underscores.

    >>> spaced("Alarm_bell_ringing")
    'Alarm bell ringing'
    """
    return " ".join(label.replace("_", " ").split())


def words_of(label: str) -> str:
    """Returns a label as words that are joined by their capitals.

    >>> words_of("ApplyEyeMakeup"), words_of("YoYo"), words_of("Archery")
    ('Apply Eye Makeup', 'Yo Yo', 'Archery')
    """
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).split())


def sorted_labels(rows: Iterable[Row], column: str) -> tuple[str, ...]:
    """Returns the labels that occur in a column, words apart: each once, as it is first spelt, in the order of the alphabet."""
    spelt = (spaced(row.values.get(column, "")) for row in rows if not row.problem)
    return tuple(sorted(distinct_texts(label for label in spelt if label)[0], key=normalize_text))
