"""Each encoder of a model reads its own ids: the same in a batch of training, in evaluation and in embed."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peav import PEAV
from peav.data.loading.collate import collate
from peav.data.loading.decoding import DecodedClip
from peav.encoders import Encoder, TextEncoder
from peav.inputs import embed_texts
from peav.tokenizing import OneTokenizer, Tokenizers
from peav.training.virtual import join_rows
from peav.types import Features, TextInput
from tests.helpers import small_tokenizer

TEXTS = ["a bell rings", "the red house", "rings"]
OPTIONS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def letters(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    ids = nn.utils.rnn.pad_sequence([torch.tensor([ord(c) for c in text]) for text in texts], batch_first=True)
    return ids, ids > 0


class Letters(Encoder):
    """Reads the field that another encoder reads too, by ids of its own."""

    provides: Mapping[str, tuple[str, ...]] = {"text_letters": ("captions.audio",)}

    def __init__(self) -> None:
        super().__init__()
        self.dims, self.tokenize, self.vocab_size = {"text_letters": 16}, letters, 128
        self.embedding = nn.Embedding(128, 16)
        self.seen: list[Tensor] = []

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        text: TextInput = inputs["captions.audio"]
        self.seen.append(text.input_ids)
        pooled = torch.where(text.mask[..., None], self.embedding(text.input_ids), 0).sum(1)
        return {"text_letters": Features(pooled, text.present, text.group)}


def model() -> PEAV:
    torch.manual_seed(0)
    words = TextEncoder(small_tokenizer(), options=OPTIONS, captions=["audio"], phrases=False)
    return PEAV({"words": words, "letters": Letters()}, embedding_dim=8).eval()


def clips(texts: Sequence[str | None]) -> list[DecodedClip]:
    return [DecodedClip(str(row), 1.0, 16000, captions={"audio": text}) for row, text in enumerate(texts)]


def test_a_batch_and_embed_give_every_encoder_its_own_ids() -> None:
    net = model()
    tokenizers = pickle.loads(pickle.dumps(net.tokenizers()))
    batch = collate(clips(TEXTS), tokenizers)
    with torch.no_grad():
        trained = net.embed_batch(batch)
    encoder = net.encoders["letters"]
    assert isinstance(encoder, Letters)
    assert torch.equal(encoder.seen[-1], letters(TEXTS)[0])
    assert int(batch.captions["audio"].input_ids.max()) < 40  # those of the words' tokenizer
    embedded = embed_texts(net, TEXTS, ["text_audio", "text_letters"])
    for name, tensor in embedded.items():
        torch.testing.assert_close(trained[name].pooled, tensor)
        alone = embed_texts(net, TEXTS[1:2], [name])[name]
        torch.testing.assert_close(tensor[1:2], alone)


def test_equal_tokenizers_share_their_ids() -> None:
    tokenizer = small_tokenizer()
    one, two = (TextEncoder(tokenizer, options=OPTIONS).tokenize for _ in range(2))
    assert one is not None and two is not None
    text = Tokenizers({"events": {"a": one, "b": two, "c": letters}}).tokenize("events", TEXTS)
    assert list(text.others) == ["c"] and text.read_by("b").input_ids is text.input_ids
    assert torch.equal(text.read_by("c").input_ids, letters(TEXTS)[0])


def test_absent_texts_are_zero_for_every_tokenizer_and_chunks_of_a_virtual_batch_join() -> None:
    tokenizers = model().tokenizers()
    parts = [
        collate(clips(texts), tokenizers).captions["audio"] for texts in (["a bell", None], [None, "the red house"])
    ]
    joined: TextInput = join_rows(parts)
    assert joined.present.tolist() == [True, False, False, True]
    own = joined.read_by("letters")
    assert own.mask.sum(1).tolist() == [6, 0, 0, 13] and not own.input_ids[~own.mask].any()


def test_what_a_tokenizer_must_give() -> None:
    def flat(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(texts)), torch.ones(len(texts))

    with pytest.raises(ValueError, match=r"ids of shape \(3,\) and a mask of shape \(3,\) from 3 texts"):
        OneTokenizer(flat).tokenize("events", TEXTS)
    with pytest.raises(ValueError, match="no tokenizer for it"):
        Tokenizers({}).tokenize("captions.audio", TEXTS)
    empty = OneTokenizer(letters).tokenize("captions.audio", [None, None])
    assert empty.input_ids.shape[0] == 2 and not empty.present.any()
