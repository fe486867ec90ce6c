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


def whisper(
    folder: Path,
    says: str = "",
    sure: float = 3.0,
    silent: float = 0.0,
    languages: tuple[str, ...] = ("en", "de"),
) -> Path:
    """A Whisper of 1 s. Where it `says` something, its weights are set so that it says that, whatever it hears.

    All layers add nothing, the embedding of a position is a unit vector, and the last matrix turns it into the token of its place.

    Args:
        says: the text; "" leaves the weights random.
        sure: how much the logits of its tokens stand out.
        silent: how much the logit of the token of silence stands out.
        languages: that it knows; it hears the last one. () makes it a model of English alone.
    """
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    more = [
        f"<|{one}|>" for one in ("startoftranscript", *languages, "translate", "transcribe", "nospeech", "notimestamps")
    ]
    names = [*letters, "<|endoftext|>", *more, *(f"<|{0.02 * k:.2f}|>" for k in range(51))]
    ids = {name: place for place, name in enumerate(names)}
    end: dict[str, Any] = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    fast = WhisperTokenizer(vocab={name: ids[name] for name in [*letters, "<|endoftext|>"]}, merges=[], **end)
    fast.add_tokens(names[len(letters) + 1 :], special_tokens=True)
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    WhisperProcessor(extractor, fast).save_pretrained(folder)
    size = 128
    sizes: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
    }
    special: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"])
    config = WhisperConfig(
        vocab_size=len(names),
        num_mel_bins=8,
        d_model=size,
        max_source_positions=50,
        max_target_positions=size,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        tie_word_embeddings=False,
        **sizes,
        **special,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    prompt = 3 if languages else 1
    if says:
        tokens = [ids["<|0.00|>"], *fast.encode(says, add_special_tokens=False)]
        tokens += [ids["<|0.80|>"], ids["<|endoftext|>"]]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            for name, parameter in model.named_parameters():
                if "layer_norm.weight" in name:
                    parameter.fill_(1.0)
            model.model.decoder.embed_positions.weight.copy_(torch.eye(size))
            for place, token in enumerate(tokens, start=prompt - 1):
                model.proj_out.weight[token, place] = sure
            model.proj_out.weight[ids["<|nospeech|>"], 0] = silent
            if languages:
                model.proj_out.weight[ids[f"<|{languages[-1]}|>"], 0] = 0.1
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        is_multilingual=bool(languages),
        suppress_tokens=[],
        begin_suppress_tokens=[],
        max_length=size,
        **({"lang_to_id": {f"<|{one}|>": ids[f"<|{one}|>"] for one in languages}} if languages else {}),
        **({"task_to_id": {one: ids[f"<|{one}|>"] for one in ("translate", "transcribe")}} if languages else {}),
        **special,
    )
    model.save_pretrained(folder)
    return folder


def moonshine(folder: Path) -> Path:
    """A Moonshine of random weights."""
    import torch
    from transformers import (
        MoonshineConfig,
        MoonshineForConditionalGeneration,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Processor,
    )

    fast = tokenizer()
    extractor = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=16000, do_normalize=False)
    Wav2Vec2Processor(extractor, fast).save_pretrained(folder)
    sizes: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("num_hidden_layers", 1), ("num_attention_heads", 2))
    }
    special: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 1}
    torch.manual_seed(0)
    config = MoonshineConfig(
        vocab_size=300, hidden_size=32, intermediate_size=32, tie_word_embeddings=False, **sizes, **special
    )
    MoonshineForConditionalGeneration(config).save_pretrained(folder)
    return folder
