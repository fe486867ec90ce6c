"""Small changes of source code, one at a time: what a slip of the hand, or of a merge, could do to it."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass

#: What each operator becomes.
COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
BOOLEAN = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "amin": "amax", "amax": "amin"}


@dataclass(frozen=True, order=True)
class Change:
    """A change of one place of a file.

    Attributes:
        line: from 1.
        column: in characters, from 0.
        before: text that stands there.
        after: text in its place.
    """

    line: int
    column: int
    before: str
    after: str

    @property
    def is_operator(self) -> bool:
        """Whether it is no number and no flag."""
        return not (self.before[0].isdigit() or self.before[0] == "." or self.before in ("True", "False"))

    def __str__(self) -> str:
        return f"{self.line}:{self.column} {self.before!r} -> {self.after!r}"

    def apply(self, source: str) -> str:
        """Returns the changed source.

        Raises:
            ValueError: if something else stands in its place.
        """
        lines = source.splitlines(keepends=True)
        text = lines[self.line - 1]
        end = self.column + len(self.before)
        if text[self.column : end] != self.before:
            raise ValueError(f"line {self.line} has {text[self.column : end]!r} in the place of {self.before!r}")
        lines[self.line - 1] = text[: self.column] + self.after + text[end:]
        return "".join(lines)

    def diff(self, source: str, name: str) -> str:
        """Returns the change as a diff without context."""
        lines = difflib.unified_diff(source.splitlines(), self.apply(source).splitlines(), name, name, lineterm="", n=0)
        return "\n".join(list(lines)[2:])


def find_changes(source: str) -> list[Change]:
    """Returns all changes of a source file, in order.

    Comparisons, arithmetic, `and` and `or`, a `not` or a minus that is lost, numbers by one, True for False, and `min` for `max`.
    Left out is what does not run (annotations, docstrings, blocks under TYPE_CHECKING), what only guards against slips (`strict=` of
    `zip`, the settings of a dataclass), and what stands inside f-strings, of whose places Python 3.11 does not know.
    """
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.lines = source.splitlines(keepends=True)
        self.found: list[Change] = []

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for child in (*node.decorator_list, node.args, *node.body):
            self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for child in node.body:
            self.visit(child)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            self._between(left, right, *COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC and not _is_text(node.left):
            self._between(node.left, node.right, *ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in ARITHMETIC and not _is_text(node.value):
            before, after = ARITHMETIC[type(node.op)]
            self._between(node.target, node.value, f"{before}=", f"{after}=")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, *BOOLEAN[type(node.op)])
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add(node.lineno, node.col_offset, "not ", "")
        elif isinstance(node.op, ast.USub):
            self._add(node.lineno, node.col_offset, "-", "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        # Texts may have several lines; numbers and flags have one.
        text = self.lines[node.lineno - 1].encode()[node.col_offset : node.end_col_offset].decode(errors="ignore")
        if isinstance(node.value, bool):
            self._add(node.lineno, node.col_offset, text, str(not node.value))
        elif isinstance(node.value, int | float):
            self._add(node.lineno, node.col_offset, text, str(node.value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        end = node.func.end_col_offset
        if name in FUNCTIONS and end is not None and node.func.end_lineno is not None:
            line = self.lines[node.func.end_lineno - 1].encode()[:end].decode()
            self._add(node.func.end_lineno, len(line[: -len(name)].encode()), name, FUNCTIONS[name])
        self.generic_visit(node)

    def _between(self, left: ast.expr, right: ast.expr, before: str, after: str) -> None:
        """Adds the change of an operator, which stands between its operands, beside brackets and comments."""
        line, column = left.end_lineno or 0, left.end_col_offset or 0
        while (line, column) < (right.lineno, right.col_offset):
            text = self.lines[line - 1].encode()
            end = right.col_offset if line == right.lineno else len(text)
            code = text[column:end].decode().split("#")[0]
            if before in code:
                self._add(line, column + len(code[: code.index(before)].encode()), before, after)
                return
            line, column = line + 1, 0

    def _add(self, line: int, offset: int, before: str, after: str) -> None:
        """Adds a change at an offset in bytes, as `ast` counts."""
        text = self.lines[line - 1]
        column = len(text.encode()[:offset].decode())
        if text[column : column + len(before)] == before:
            self.found.append(Change(line, column, before, after))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
