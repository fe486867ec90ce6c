"""The files of a blind test: the key, which says where each text comes from, and the answers of a rater."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peav.atomic import replacing
from peav.opening import read_json

#: The form of both files.
VERSION = 1

#: What a rater may answer: the first text is better, both are as good, the second is better.
CHOICES = ("A", "same", "B")

_KEY, _ANSWERS = "key of a blind test", "answers of a blind test"


@dataclass(frozen=True)
class Pair:
    """Two captions of a clip.

    Attributes:
        clip: its id.
        old: the caption of the first source.
        new: that of the second one.
        new_is: under which letter the page shows the second one, `A` or `B`.
    """

    clip: str
    old: str
    new: str
    new_is: str

    @property
    def shown(self) -> tuple[str, str]:
        """The texts as the page has them, A and B."""
        return (self.new, self.old) if self.new_is == "A" else (self.old, self.new)

    def judged(self, answer: str) -> str:
        """Returns what an answer says of the new caption: `better`, `same` or `worse`."""
        if answer == "same":
            return "same"
        return "better" if answer == self.new_is else "worse"


@dataclass(frozen=True)
class Key:
    """What a page hides.

    Attributes:
        old: the first source, as it was named.
        new: the second one.
        kind: the caption type.
        split: of the clips.
        seed: of the choice of clips and the order of texts.
        asked: how many clips were asked for.
        pairs: in the order of the page.
        left_out: clips by the reason for which they are not on the page.
    """

    old: str
    new: str
    kind: str
    split: str
    seed: int
    asked: int
    pairs: tuple[Pair, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """What tells the page from others: a digest of its texts in their order, and of the clips."""
        held = json.dumps([self.kind, [[pair.clip, *pair.shown] for pair in self.pairs]])
        return hashlib.blake2b(held.encode(), digest_size=12).hexdigest()

    def write(self, path: Path) -> None:
        """Writes the file.

        Raises:
            OSError: if it cannot be written.
        """
        write_json(path, {"peav": _KEY, "version": VERSION, "page": self.page, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Key:
        """Reads the file.

        Raises:
            ValueError: if it is no key, or was changed since it was written.
            OSError: if it cannot be read.
        """
        data = _read(path, _KEY)
        try:
            pairs = tuple(
                Pair(**{name: _text(item, name) for name in ("clip", "old", "new", "new_is")}) for item in data["pairs"]
            )
            named = {name: _text(data, name) for name in ("old", "new", "kind", "split")}
            key = cls(
                **named, seed=int(data["seed"]), asked=int(data["asked"]), pairs=pairs, left_out=dict(data["left_out"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is a damaged key ({type(error).__name__}: {error})") from None
        if not pairs or any(pair.new_is not in ("A", "B") for pair in pairs) or key.page != data["page"]:
            raise ValueError(f"{path} was changed since `peav ab make` wrote it: its texts are not those of its page")
        return key


@dataclass(frozen=True)
class Answers:
    """What a rater chose.

    Attributes:
        rater: a name.
        page: of which page.
        choices: one of `CHOICES` for each pair, in the order of the page.
    """

    rater: str
    page: str
    choices: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, key: Key) -> Answers:
        """Reads the file that the page saved.

        Args:
            path: of the file.
            key: of the page.

        Raises:
            ValueError: if it holds no answers, those of another page, or not all of them.
            OSError: if it cannot be read.
        """
        data = _read(path, _ANSWERS)
        if data.get("page") != key.page:
            raise ValueError(
                f"{path} holds answers of another page than the key: give the key that was written beside that page"
            )
        choices = data.get("answers")
        if not isinstance(choices, list) or len(choices) != len(key.pairs):
            raise ValueError(f"{path} must hold a list of {len(key.pairs)} answers")
        wrong = [(place, one) for place, one in enumerate(choices, 1) if one is not None and one not in CHOICES]
        if wrong:
            raise ValueError(f"{path}: answer {wrong[0][0]} is {wrong[0][1]!r:.40}, not one of {', '.join(CHOICES)}")
        missing = [str(place) for place, one in enumerate(choices, 1) if one is None]
        if missing:
            which = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
            raise ValueError(
                f"{path} is unfinished: {len(missing)} of {len(choices)} clips are not answered ({which}). The page goes on where it was "
                "in the browser of the rater"
            )
        rater = data.get("rater", "")
        if not isinstance(rater, str):
            raise ValueError(f"{path}: the rater must be a name, got {rater!r:.40}")
        return cls(rater.strip()[:100] or path.stem, key.page, tuple(choices))


def read_answers(paths: Sequence[Path], key: Key) -> list[Answers]:
    """Reads the files of several raters.

    Raises:
        ValueError: if one cannot be used, or two are of the same rater.
        OSError: if one cannot be read.
    """
    read: dict[str, Path] = {}
    answers = []
    for path in paths:
        one = Answers.read(path, key)
        if one.rater in read:
            raise ValueError(
                f"{read[one.rater]} and {path} are both by {one.rater!r}: give one of them or, where two people have one name, change "
                '"rater" in a file'
            )
        read[one.rater] = path
        answers.append(one)
    return answers


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a file of JSON, all of it or nothing; characters beyond ASCII are escaped, so that no terminal or editor obeys one.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        data = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON that can be read: {error}") from None
    said = data.get("peav") if isinstance(data, dict) else None
    if said != what:
        other = said if said in (_KEY, _ANSWERS) else "something else"
        raise ValueError(f"{path} must hold the {what}, and holds {'the ' if other == said else ''}{other}")
    if data.get("version") != VERSION:
        raise ValueError(f"{path} has the version {data.get('version')!r:.20}; this peav reads {VERSION}")
    return dict(data)


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data[name]
    if not isinstance(value, str):
        raise TypeError(f"{name!r} must be a text, got {value!r:.40}")
    return value
