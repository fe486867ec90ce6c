"""A small lower-cased byte-level BPE tokenizer, trained on the texts of the data, for text encoders that start from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFKC, Lowercase, Sequence
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

#: Special tokens, in the order of their ids; the padding is 0.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """Trains a byte-level BPE tokenizer, lower case, that frames each text as [CLS] ... [SEP]; no text has an unknown token.

    The same texts give the same tokenizer, which the WordPiece trainer of `tokenizers` does not promise.

    Args:
        texts: training texts; their order does not matter.
        vocab_size: largest number of tokens; the special ones and the 256 bytes are among them.

    Raises:
        ValueError: if `vocab_size` leaves no room for a token beyond those.

    >>> tokenizer = train_tokenizer(["a dog barks", "a dog runs"], vocab_size=300)
    >>> tokenizer.decode(tokenizer.encode("A dog barks").ids)
    ' a dog barks'
    """
    smallest = len(SPECIAL_TOKENS) + len(ByteLevel.alphabet())
    if vocab_size <= smallest:
        raise ValueError(f"vocab_size must exceed {smallest} (special tokens and bytes), got {vocab_size}")
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = Sequence([NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, SPECIAL_TOKENS.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes a tokenizer as `tokenizer.json`."""
    tokenizer.save(str(path))
