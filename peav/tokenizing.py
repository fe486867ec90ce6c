"""How the texts of a batch become token ids, where each encoder of a model may have a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from peav.types import TextInput, TokenizeTexts, Tokens


class Tokenizers:
    """The tokenizers of a model, by the batch field that holds the texts and the encoder that reads them; picklable if they are.

    Args:
        fields: for each field (`captions.TYPE`, `events`), the tokenizers by encoder. Encoders whose tokenizers are equal share the ids.

    >>> def letters(texts):
    ...     ids = torch.tensor([[ord(text[0])] for text in texts])
    ...     return ids, torch.ones_like(ids, dtype=torch.bool)
    >>> Tokenizers({"captions.audio": {"text": letters}}).tokenize("captions.audio", ["a dog", None]).input_ids.tolist()
    [[97], [0]]
    """

    def __init__(self, fields: Mapping[str, Mapping[str, TokenizeTexts]]) -> None:
        self.fields = {field: dict(encoders) for field, encoders in fields.items()}

    def __bool__(self) -> bool:
        return any(self.fields.values())

    def tokenize(self, field: str, texts: Sequence[str | None], groups: Sequence[int] | None = None) -> TextInput:
        """Tokenizes N texts of a field, None where one is absent.

        Args:
            field: `captions.TYPE` or `events`.
            texts: the texts.
            groups: identity of each text; its number by default.

        Raises:
            ValueError: if no encoder has a tokenizer for the field, or one returns something else than ids and mask for each text.
        """
        tokenizers = self.fields.get(field) or {}
        if not tokenizers:
            raise ValueError(
                f"{field} is read, but there is no tokenizer for it: the encoder that reads it has none (`Encoder.tokenize`). Give it one, "
                "or read no text"
            )
        first, *others = tokenizers.items()
        tokens = _tokens(texts, first[1])
        different = {name: _tokens(texts, other) for name, other in others if other != first[1]}
        present = torch.tensor([text is not None for text in texts], dtype=torch.bool)
        group = torch.arange(len(texts)) if groups is None else torch.tensor(groups, dtype=torch.int64)
        strings = tuple(text or "" for text in texts)
        return TextInput(tokens.input_ids, tokens.mask, present, group, strings, different)


class OneTokenizer(Tokenizers):
    """One tokenizer for the texts of every field.

    Args:
        tokenize: texts to ids and mask.
    """

    def __init__(self, tokenize: TokenizeTexts) -> None:
        super().__init__({})
        self._tokenize = tokenize

    def __bool__(self) -> bool:
        return True

    def tokenize(self, field: str, texts: Sequence[str | None], groups: Sequence[int] | None = None) -> TextInput:
        """As for `Tokenizers`."""
        return Tokenizers({field: {"": self._tokenize}}).tokenize(field, texts, groups)


def _tokens(texts: Sequence[str | None], tokenize: TokenizeTexts) -> Tokens:
    rows = [row for row, text in enumerate(texts) if text is not None]
    found = [text for text in texts if text is not None]
    ids, mask = tokenize(found) if found else (torch.zeros(0, 1), torch.zeros(0, 1))
    ids, mask = torch.as_tensor(ids).long(), torch.as_tensor(mask).bool()
    if ids.shape != mask.shape or len(ids) != len(found) or ids.ndim != 2:
        raise ValueError(
            f"the tokenizer made ids of shape {tuple(ids.shape)} and a mask of shape {tuple(mask.shape)} from {len(found)} texts; it must "
            "return ids (N, L) and a mask (N, L)"
        )
    return Tokens(_spread(ids.masked_fill(~mask, 0), rows, len(texts)), _spread(mask, rows, len(texts)))


def _spread(values: Tensor, rows: Sequence[int], number: int) -> Tensor:
    """Puts rows of values (n, L) where they belong among `number` rows."""
    spread = values.new_zeros(number, values.shape[1])
    spread[list(rows)] = values
    return spread
