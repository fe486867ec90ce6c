"""Prompts: what a class is called by in words, several times, and the embedding that stands for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.data.manifests.identities import normalize_text


@dataclass(frozen=True)
class Prompts:
    """Templates by set of classes.

    Attributes:
        sets: (classes, templates) of each set by name; classes None for those that no other set names.
    """

    sets: Mapping[str, tuple[tuple[str, ...] | None, tuple[str, ...]]]

    def of(self, classes: Sequence[str]) -> list[list[str]]:
        """Returns the prompts of each class.

        Raises:
            ValueError: if a class is in no set, or two classes give one prompt.
        """
        named = {normalize_text(c): name for name, (own, _) in self.sets.items() for c in own or ()}
        rest = next((name for name, (own, _) in self.sets.items() if own is None), None)
        found: list[list[str]] = []
        owner: dict[str, str] = {}
        for label in classes:
            name = named.get(normalize_text(label), rest)
            if name is None:
                raise ValueError(f"the class {label!r} is in none of the prompt sets {', '.join(self.sets)}")
            prompts = [template.replace("{label}", label) for template in self.sets[name][1]]
            for prompt in prompts:
                other = owner.setdefault(normalize_text(prompt), label)
                if other != label:
                    raise ValueError(
                        f"the classes {other!r} and {label!r} have one prompt, {prompt!r}: nothing tells them apart"
                    )
            found.append(prompts)
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns the sets as plain data."""
        return {name: {"classes": c and list(c), "templates": list(t)} for name, (c, t) in self.sets.items()}


def parse_prompts(data: Any) -> Prompts:
    """Reads templates for all classes, or sets: `NAME: {classes: [...], templates: [...]}`.

    Raises:
        ValueError: if it is neither, a template does not say where the label goes, or a class is in two sets.

    >>> parse_prompts(["a {label}", "{label}"]).of(["dog"])
    [['a dog', 'dog']]
    """
    if isinstance(data, list):
        data = {"all": {"templates": data}}
    if not isinstance(data, Mapping) or not data:
        raise ValueError(f"prompts are a list of templates, or sets by name, not {data!r:.80}")
    sets: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...]]] = {}
    seen: dict[str, str] = {}
    for name, one in data.items():
        templates = one.get("templates") if isinstance(one, Mapping) else None
        if (
            not isinstance(templates, list)
            or not templates
            or not all(isinstance(t, str) and "{label}" in t for t in templates)
        ):
            raise ValueError(
                f"prompt set {name!r} needs templates that say by {{label}} where the label goes, got {one!r:.80}"
            )
        classes = one.get("classes")
        for label in classes or ():
            other = seen.setdefault(normalize_text(str(label)), str(name))
            if other != name:
                raise ValueError(f"the class {label!r} is in two prompt sets, {other!r} and {name!r}: leave it in one")
        sets[str(name)] = (None if classes is None else tuple(map(str, classes)), tuple(templates))
    if sum(own is None for own, _ in sets.values()) > 1:
        raise ValueError("two prompt sets name no classes: only one can hold the rest")
    return Prompts(sets)


def class_embeddings(prompts: Tensor, owner: Tensor, num_classes: int, normalize: bool) -> Tensor:
    """Averages the prompts of each class, as CLIP does (Radford et al., 2021, section 3.1.4).

    Args:
        prompts: (P, D).
        owner: (P,) int64, the class of each.
        num_classes: C.
        normalize: whether the mean gets unit length, as the embeddings of the model have.

    Returns:
        (C, D).

    >>> class_embeddings(torch.eye(2), torch.tensor([0, 0]), 1, normalize=False).tolist()
    [[0.5, 0.5]]
    """
    total = torch.zeros(num_classes, prompts.shape[1], dtype=torch.float64).index_add_(0, owner, prompts.double())
    mean = total / torch.bincount(owner, minlength=num_classes).clamp(min=1).unsqueeze(1)
    return (F.normalize(mean, dim=1) if normalize else mean).float()
