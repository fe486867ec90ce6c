"""`--where EXPR`: which clips are wanted, as a condition over what the manifest says of them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from peav.data.manifests.clip import Clip
from peav.suggest import suggest

#: What a condition may speak of.
NAMES: dict[str, Callable[[Clip], Any]] = {
    "id": lambda clip: clip.id,
    "split": lambda clip: clip.split,
    "domain": lambda clip: clip.domain,
    "dataset": lambda clip: clip.dataset,
    "licence": lambda clip: clip.licence,
    "duration": lambda clip: clip.duration,
    "has_audio": lambda clip: clip.has_audio,
    "has_video": lambda clip: clip.has_video,
    "is_still": lambda clip: clip.is_still,
    "transcript": lambda clip: clip.transcript or "",
    "annotated": lambda clip: clip.events is not None,
    "captions": lambda clip: sorted(clip.captions),
    "real_captions": lambda clip: sorted(k for k, v in clip.captions.items() if any(c.origin == "real" for c in v)),
}

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}

_KNOWN: tuple[type[ast.AST], ...] = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
    *_COMPARE,
)

_SAY = (
    "a condition joins comparisons by and, or and not: domain == 'speech' and duration < 10 and 'audio' not in captions"
)


class Condition:
    """A condition over clips. It is read, never run as code.

    Args:
        text: such as `domain == 'speech' and duration < 10 and not has_video`; "" is true of every clip.

    Raises:
        ValueError: if it is no such condition; the message says what it may be.

    >>> from peav.data.manifests.clip import Clip
    >>> Condition("domain in ['music', 'speech'] and 1 < duration <= 3")(Clip("a", 3.0, domain="music"))
    True
    """

    def __init__(self, text: str = "") -> None:
        self.text = text.strip()
        self._tree: ast.expr | None = None
        if self.text:
            try:
                self._tree = ast.parse(self.text, mode="eval").body
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                raise ValueError(f"--where {text!r:.200} cannot be read: {_SAY}") from None
            self._check(self._tree)

    def __call__(self, clip: Clip) -> bool:
        """Returns whether a clip is wanted.

        Raises:
            ValueError: if it compares what cannot be compared.
        """
        if self._tree is None:
            return True
        try:
            return bool(self._value(self._tree, clip))
        except TypeError as error:
            raise ValueError(f"--where {self.text!r}: {error}") from None

    def _check(self, node: ast.AST) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id not in NAMES:
                raise ValueError(f"--where: a clip has no {part.id!r}. {suggest(part.id, NAMES)}")
            if not isinstance(part, _KNOWN):
                raise ValueError(f"--where {self.text!r:.200} holds a {type(part).__name__.lower()}: {_SAY}")

    def _value(self, node: ast.expr, clip: Clip) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return NAMES[node.id](clip)
        if isinstance(node, ast.List | ast.Tuple):
            return [self._value(item, clip) for item in node.elts]
        if isinstance(node, ast.BoolOp):
            values = (bool(self._value(item, clip)) for item in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, clip)
            return not value if isinstance(node.op, ast.Not) else -value
        if not isinstance(node, ast.Compare):
            raise TypeError(f"a {type(node).__name__.lower()} cannot be part of it")
        left = self._value(node.left, clip)
        for kind, item in zip(node.ops, node.comparators, strict=True):
            right = self._value(item, clip)
            if not _COMPARE[type(kind)](left, right):
                return False
            left = right
        return True
