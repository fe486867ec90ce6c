"""Small things that several tests build."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from peav.encoders import (
    DacAudioEncoder,
    Encoder,
    FrameVideoEncoder,
    FusionEncoder,
    MelAudioEncoder,
    PEVideoEncoder,
    PlusTextEncoder,
    TextEncoder,
)
from peav.objectives import BestRQ, CaptionPair, FrameAlignment, FusionTeacher, InfoNCE, Objective, SegmentPair

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def small_tokenizer() -> str:
    """Trains a WordPiece tokenizer of under 40 tokens and returns its JSON."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=40, special_tokens=SPECIAL_TOKENS)
    tokenizer.train_from_iterator(["a bell rings", "the red house"] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def small_text_encoder() -> TextEncoder:
    """A text encoder of 16 dimensions from scratch."""
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return TextEncoder(small_tokenizer(), options=options)


FRAME_OPTIONS = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "conv_mlp": True}

PE_OPTIONS = {
    "img_size": 32,
    "patch_size": 16,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
    "attn_pool_num_heads": 2,
    "ref_feat_shape": [2, 2],
}

#: How to build a small instance of every registered encoder; the tests fail for one that is not listed.
SMALL_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "MelAudioEncoder": partial(MelAudioEncoder, dim=16, num_layers=1, num_heads=2, num_mels=16),
    "FrameVideoEncoder": partial(
        FrameVideoEncoder, dim=16, num_layers=1, num_heads=2, frame_model="convnext_atto", frame_options=FRAME_OPTIONS
    ),
    "DacAudioEncoder": partial(
        DacAudioEncoder, dim=16, num_layers=1, num_heads=2, sample_rate=16000, codec_hidden_size=2, codec_dim=4
    ),
    "PEVideoEncoder": partial(
        PEVideoEncoder, dim=16, num_layers=1, num_heads=2, frame_options=PE_OPTIONS, frame_dim=12
    ),
    "FusionEncoder": partial(FusionEncoder, audio_dim=16, video_dim=16, dim=16, num_layers=1, num_heads=2),
    "TextEncoder": small_text_encoder,
    "PlusTextEncoder": partial(PlusTextEncoder, audio_dim=16, video_dim=16, text_dim=16),
}

#: Likewise for every registered objective.
SMALL_OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "SegmentPair": partial(SegmentPair, "audio", "video"),
    "CaptionPair": partial(CaptionPair, "audio", "audio"),
    "FrameAlignment": FrameAlignment,
    "InfoNCE": partial(InfoNCE, "audio", "text_audio"),
    "FusionTeacher": partial(FusionTeacher, "audio"),
    "BestRQ": partial(BestRQ, input_dim=12, dim=8, num_codes=20, code_dim=4),
}


def small_encoders() -> dict[str, Encoder]:
    """All encoders of a small model, by the names of tiny_cpu.yaml."""
    return {
        "audio": SMALL_ENCODERS["MelAudioEncoder"](),
        "video": SMALL_ENCODERS["FrameVideoEncoder"](),
        "audio_video": SMALL_ENCODERS["FusionEncoder"](),
        "text": SMALL_ENCODERS["TextEncoder"](),
        "plus_text": SMALL_ENCODERS["PlusTextEncoder"](),
    }
