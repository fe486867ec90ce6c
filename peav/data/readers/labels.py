"""Labels of classes, and the captions that a template makes of them."""

from __future__ import annotations

from collections.abc import Sequence

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


def label_captions(template: str, labels: Sequence[str]) -> dict[str, list[dict[str, str]]] | None:
    """Returns the audio caption that a template makes of the labels of a clip, marked as synthetic.

    A label is not what somebody wrote of the clip, hence the mark. None where the template is empty or there is no label.

    >>> label_captions("the sound of {label}", ["rain", "wind", "speech"])
    {'audio': [{'text': 'the sound of rain, wind and speech', 'origin': 'synthetic'}]}
    """
    if not template or not labels:
        return None
    listed = " and ".join(part for part in (", ".join(labels[:-1]), labels[-1]) if part)
    return {"audio": [{"text": template.replace("{label}", listed), "origin": "synthetic"}]}


def spaced(label: str) -> str:
    """Returns a label as words: class names join theirs by underscores.

    >>> spaced("Alarm_bell_ringing")
    'Alarm bell ringing'
    """
    return " ".join(label.replace("_", " ").split())
