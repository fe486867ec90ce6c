"""The ontology of AudioSet: which class of sounds is a kind of which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peav.data.manifests.identities import normalize_text
from peav.data.manifests.labels import Labels, LabelsError
from peav.opening import read_json


def read_ontology(path: Path, names: Mapping[str, str] | None = None) -> Labels:
    """Reads ontology.json of https://github.com/audioset/ontology: a list of classes with `id`, `name` and `child_ids`.

    Args:
        path: the file.
        names: phrases by id, in place of the names in the file: other files of AudioSet call some classes otherwise.

    Returns:
        the parents of each phrase, and each id with its phrase as its parent.

    Raises:
        LabelsError: if the file is something else, names a child that it does not have, or the classes form a circle.
    """
    form = 'a list of {"id", "name", "child_ids": [ids]}'
    try:
        classes: Any = read_json(path)
    except ValueError as error:
        raise LabelsError(f"{path} is no JSON: {error}") from None
    if not isinstance(classes, list) or not all(isinstance(one, dict) for one in classes):
        raise LabelsError(f"{path} must hold {form}, as ontology.json of AudioSet does")
    phrases: dict[str, str] = {}
    for one in classes:
        if not isinstance(one.get("id"), str) or not isinstance(one.get("name"), str):
            raise LabelsError(f"{path} must hold {form}, got {one!s:.100}")
        phrases[one["id"]] = (names or {}).get(one["id"]) or one["name"]
    parents: dict[str, list[str]] = {}
    for one in classes:
        children = one.get("child_ids") or []
        if not isinstance(children, list):
            raise LabelsError(f"{path}: the child_ids of {one['id']!r} must be a list of ids, got {children!s:.100}")
        for child in children:
            if not isinstance(child, str) or child not in phrases:
                raise LabelsError(f"{path}: {one['id']!r} has the child {child!r}, which the file does not have")
            above = parents.setdefault(phrases[child], [])
            if phrases[one["id"]] not in above:
                above.append(phrases[one["id"]])
    return with_ids(phrases, Labels(parents={phrase: tuple(above) for phrase, above in parents.items()}))


def with_ids(phrases: Mapping[str, str], labels: Labels) -> Labels:
    """Returns labels in which each id has its phrase as a parent, so that events are related by their ids too.

    Args:
        phrases: by id.
        labels: parents of the phrases.
    """
    own = {label: (phrase,) for label, phrase in phrases.items() if normalize_text(label) != normalize_text(phrase)}
    return Labels(labels.vocabularies, {**labels.parents, **own})
