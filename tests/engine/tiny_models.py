"""Tiny models of random weights, built from configurations: a language model, one that hears, one that sees. They prove the plumbing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def tokenizer(*more: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes; `more` are special tokens behind <pad> (0) and <end> (1)."""
    held = Tokenizer(models.BPE())
    held.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    held.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<end>", *more]
    held.train_from_iterator(
        ["a dog barks"], trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=held, pad_token="<pad>", eos_token="<end>")


def template(**parts: str) -> str:
    """A chat template that puts tokens in the places of media."""
    blocks = "".join(f"{{% elif c['type'] == '{kind}' %}}{tokens}" for kind, tokens in parts.items())
    content = f"{{% for c in m['content'] %}}{{% if c['type'] == 'text' %}}{{{{ c['text'] }}}}{blocks}{{% endif %}}{{% endfor %}}"
    turn = f"{{{{ m['role'] }}}}: {{% if m['content'] is string %}}{{{{ m['content'] }}}}{{% else %}}{content}{{% endif %}}\n"
    return f"{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}assistant: {{% endif %}}"


def language_model(folder: Path) -> Path:
    """A Qwen3."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    fast = tokenizer()
    fast.chat_template = template()
    fast.save_pretrained(folder)
    settings: dict[str, Any] = {**TEXT, "head_dim": 8, "max_position_embeddings": 1024}
    Qwen3ForCausalLM(Qwen3Config(**settings, eos_token_id=1, pad_token_id=0)).save_pretrained(folder)
    return folder


def model_that_hears(folder: Path) -> Path:
    """A Qwen2-Audio, with its processor."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    fast = tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    chat = template(audio="<|audio_bos|><|AUDIO|><|audio_eos|>")
    Qwen2AudioProcessor(extractor, fast, chat_template=chat).save_pretrained(folder)
    encoder = {"num_mel_bins": 8, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2}
    encoder |= {"encoder_ffn_dim": 32, "max_source_positions": 50}
    text = {**TEXT, "max_position_embeddings": 256, "eos_token_id": 1, "pad_token_id": 0}
    settings = Qwen2AudioConfig(
        audio_config={**encoder, "model_type": "qwen2_audio_encoder"},
        text_config={**text, "model_type": "qwen2"},
        audio_token_index=2,
    )
    Qwen2AudioForConditionalGeneration(settings).save_pretrained(folder)
    return folder


def model_that_sees(folder: Path) -> Path:
    """A Qwen2-VL, with its processor."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    fast = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    sizes: dict[str, Any] = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    sizes["size"] = {"shortest_edge": 256, "longest_edge": 1024}
    chat = template(image="<|vision_start|><|image_pad|><|vision_end|>")
    Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes), fast, Qwen2VLVideoProcessor(**sizes), chat_template=chat
    ).save_pretrained(folder)
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2}
    text: dict[str, Any] = {
        **TEXT,
        "max_position_embeddings": 1024,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    settings = Qwen2VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=2,
        video_token_id=3,
        vision_start_token_id=4,
        vision_end_token_id=5,
    )
    Qwen2VLForConditionalGeneration(settings).save_pretrained(folder)
    return folder
