"""The tokenizer is a function of its texts, in any process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peav.data.packing.tokenizer import SPECIAL_TOKENS, train_tokenizer

CODE = """
from peav.data.synthetic import sample_world
from peav.data.packing.tokenizer import train_tokenizer
words = [f"a {t.colour} {t.look} that is {t.size}" for s in sample_world(300) for t in s.things]
print(train_tokenizer(words, 600).to_str())
"""


def test_every_process_trains_the_same_tokenizer() -> None:
    made = {subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(made) == 1


def test_any_text_is_encoded_and_framed() -> None:
    tokenizer = train_tokenizer(["a dog barks"], 300)
    encoding = tokenizer.encode("Ein Löwe 🦁")
    assert encoding.tokens[0] == "[CLS]" and encoding.tokens[-1] == "[SEP]"
    assert "[UNK]" not in encoding.tokens
    assert tokenizer.decode(encoding.ids).strip() == "ein löwe 🦁"
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="must exceed 261"):
        train_tokenizer(["a"], 100)
