"""Checkpoints: Meta's format, transformers', peav's own, and those of training; all through one specification.

Nothing is unpickled: weights are safetensors, and training checkpoints are read with `weights_only`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from peav import registry
from peav.checkpoints import huggingface, meta, meta_config, native
from peav.checkpoints.detection import DetectionSettings
from peav.checkpoints.files import (
    CONFIG,
    TOKENIZER,
    UNUSED,
    find_folder,
    read_config,
    read_tokenizer_file,
    read_weights,
    remove_stale,
    write_config,
    write_tokenizer_files,
    write_weights,
)
from peav.checkpoints.loading import building, first_line, load_exactly, without_initialization
from peav.checkpoints.processors import write_processor
from peav.checkpoints.spec import (
    FRAME_PAIR,
    PUBLISHED_PAIRS,
    TEN_PAIRS,
    CheckpointError,
    MediaSettings,
    ModelSpec,
    Pair,
)
from peav.trust import Trust, TrustError, check_plain

__all__ = [
    "FRAME_PAIR",
    "PUBLISHED_PAIRS",
    "TEN_PAIRS",
    "Checkpoint",
    "CheckpointError",
    "DetectionSettings",
    "Format",
    "MediaSettings",
    "ModelSpec",
    "Pair",
    "Trust",
    "TrustError",
    "building",
    "load_exactly",
    "read_checkpoint",
    "without_initialization",
    "write_checkpoint",
]

log = logging.getLogger(__name__)

Format = Literal["peav", "meta", "transformers"]

#: What is checked encoder by encoder, and what other programs write into config.json.
_NOT_READ = ("encoders", "id2label", "label2id")

#: From our state dict (names and shapes) to our tensors and what no computation reads.
_Convert = Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], dict[str, Tensor]]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        spec: what the model is.
        convert: from our state dict, for its names and shapes, to our tensors, and to those of Meta's format that no computation reads.
        source: where it was found, for messages.
        trust: how far its configuration is trusted.
        numbers: how many numbers it holds: a model of more is not its.
    """

    spec: ModelSpec
    convert: _Convert
    source: Path
    trust: Trust = Trust.NAMES
    numbers: int = 0


def read_checkpoint(path_or_id: str | Path, revision: str | None = None, trust: Trust = Trust.NAMES) -> Checkpoint:
    """Reads a checkpoint of any format that peav knows.

    Args:
        path_or_id: a folder in Meta's format, transformers' or peav's; a `.ckpt` of `peav fit`; or a repository of the hub.
        revision: of the repository. The released ones hold transformers' format on `main` and Meta's on `perception_models`.
        trust: whether classes by their dotted path, and arguments that lead to files, are allowed.

    Raises:
        CheckpointError: if it is none of these, or damaged.
        TrustError: if it names classes or files that only the user may allow.
    """
    registry.load_plugins()
    try:
        checkpoint = _read(path_or_id, revision, trust)
    except (CheckpointError, TrustError, FileNotFoundError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path_or_id} is damaged, or of another kind: {type(error).__name__}: {first_line(error)}"
        ) from error
    for config in checkpoint.spec.encoders.values():
        registry.encoders.admit(config, trust, checkpoint.source)
    spec = checkpoint.spec
    check_plain(
        [spec.embeddings, spec.frames, spec.embedding_dim, spec.pairs, spec.text_pairs, vars(spec.known_media)],
        checkpoint.source,
    )
    return checkpoint


def _read(path_or_id: str | Path, revision: str | None, trust: Trust) -> Checkpoint:
    path = Path(path_or_id)
    if path.suffix == ".ckpt" and path.is_file():
        spec, state = native.read_training_checkpoint(path, trust)
        return Checkpoint(spec, lambda expected: (state, {}), path, trust, _count(state))
    folder = find_folder(path_or_id, revision)
    config = read_config(folder)
    check_plain({key: value for key, value in config.items() if key not in _NOT_READ}, folder / CONFIG)
    tensors, metadata = read_weights(folder)
    spare = read_weights(folder, UNUSED)[0] if (folder / UNUSED).is_file() else {}
    if native.is_native(config):
        spec = native.read_spec(config)
        return Checkpoint(
            _with_tokenizer(spec, folder), lambda expected: (tensors, spare), folder, trust, _count(tensors)
        )
    if meta_config.is_meta(config):
        spec = meta_config.read_spec(config)
        return Checkpoint(
            _with_tokenizer(spec, folder),
            lambda expected: meta.to_ours(spec, tensors, expected, folder),
            folder,
            trust,
            _count(tensors),
        )
    if huggingface.is_huggingface(config):
        spec = huggingface.read_spec(config, folder, tensors, metadata)
        return Checkpoint(
            _with_tokenizer(spec, folder),
            lambda expected: (huggingface.to_ours(spec, tensors, expected, folder), spare),
            folder,
            trust,
            _count(tensors),
        )
    kind = config.get("model_type") or config.get("architectures") or f"an object with {', '.join(sorted(config)[:6])}"
    raise CheckpointError(
        f"{folder} holds a model of another kind: its config.json says {kind}. peav reads Meta's PE-AV and PE-A-Frame, "
        "transformers' pe_audio_video and pe_audio, and its own"
    )


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def write_checkpoint(
    folder: str | Path,
    spec: ModelSpec,
    state: Mapping[str, Tensor],
    unused: Mapping[str, Tensor],
    tokenizer_json: str | None,
    format: Format = "peav",
) -> Path:
    """Writes a model.

    Args:
        folder: to write; made where it is missing. A checkpoint that lies there is replaced.
        spec: what the model is.
        state: its state dict.
        unused: tensors of Meta's format that no computation reads; they travel in `unused.safetensors`.
        tokenizer_json: of its text encoder.
        format: `peav`, `meta` or `transformers`.

    Raises:
        CheckpointError: if the format cannot hold the model, or the folder is a file.
        ValueError: if there is no such format.
    """
    metadata: dict[str, str] = {}
    config: dict[str, Any]
    if spec.detection is not None and format in ("meta", "transformers"):
        log.warning(
            "%s format holds no settings of detection: thresholds, filters and windows are left out, and its readers get defaults",
            "Meta's" if format == "meta" else "transformers'",
        )
    if format == "peav":
        config, tensors = native.write_config(spec, tokenizer_json), dict(state)
    elif format == "meta":
        config, tensors = meta.to_theirs(spec, state, unused)
    elif format == "transformers":
        config, tensors, metadata = huggingface.to_theirs(spec, state)
    else:
        raise ValueError(f"format must be 'peav', 'meta' or 'transformers', not {format!r}")
    folder = Path(folder)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, tensors, metadata=metadata)
    written: set[str] = set()
    if unused and format != "meta":
        write_weights(folder, unused, UNUSED)
        written.add(UNUSED)
    if format == "transformers":
        written |= write_processor(folder, spec)
    write_config(folder, config)
    written |= write_tokenizer_files(folder, tokenizer_json, max_tokens=512)
    remove_stale(folder, written)
    return folder


def _with_tokenizer(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Puts the folder's tokenizer into the arguments of the text encoders that name it, or none."""
    found = read_tokenizer_file(folder)
    encoders = {name: dict(config) for name, config in spec.encoders.items()}
    for config in encoders.values():
        named = config["init_args"].get("tokenizer")
        # Meta's and transformers' folders name none; their text encoders are of this class.
        if named != TOKENIZER and (named is not None or config["class_path"] != "TextEncoder"):
            continue
        if found is None and named is not None:
            raise CheckpointError(f"{folder} lacks its {TOKENIZER}")
        if found is None:
            log.info("%s holds no %s: the model takes token ids, and embed(text=...) cannot be used", folder, TOKENIZER)
        config["init_args"] = {**config["init_args"], "tokenizer": found}
    return replace(spec, encoders=encoders)
