"""Errors that a user can mend, and the sentence that says what they are."""

from __future__ import annotations

#: They are said in one line. All others are faults of the program, or of a plugin, and keep their traceback.
MENDABLE = (OSError, ImportError, ValueError, KeyError, RuntimeError)


def sentence_of(error: BaseException) -> str:
    """Returns what an error says: `str` of a KeyError puts its message in quotation marks.

    >>> sentence_of(KeyError("there is no stage 'x'")), sentence_of(ValueError("too few"))
    ("there is no stage 'x'", 'too few')
    """
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
