"""peav's own formats: a folder of safetensors and JSON, and the checkpoints that training writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from peav import registry
from peav.checkpoints.adapters import merge_adapters
from peav.checkpoints.files import TOKENIZER
from peav.checkpoints.loading import building
from peav.checkpoints.pickled import read_pickled
from peav.checkpoints.spec import CheckpointError, MediaSettings, ModelSpec, Pair
from peav.objectives.base import Objective
from peav.trust import Trust, check_plain

FORMAT = "peav"
_VERSION = 1

#: Where Lightning keeps the settings of the data module.
_DATA_SETTINGS = "datamodule_hyper_parameters"


def is_native(config: Mapping[str, Any]) -> bool:
    """Tells this format by its config.json."""
    return config.get("format") == FORMAT


def read_spec(config: Mapping[str, Any]) -> ModelSpec:
    """Turns config.json into a specification.

    Raises:
        CheckpointError: if a later version of peav wrote it, or it is damaged.
    """
    if config.get("version") != _VERSION:
        raise CheckpointError(
            f"config.json has version {config.get('version')!r} of peav's format; this peav reads {_VERSION}"
        )
    return ModelSpec.from_dict({key: value for key, value in config.items() if key not in ("format", "version")})


def write_config(spec: ModelSpec, tokenizer_json: str | None) -> dict[str, Any]:
    """Writes config.json; the tokenizer is a file beside it, and one that differs from it stays where it is."""
    config: dict[str, Any] = {"format": FORMAT, "version": _VERSION, **spec.to_dict()}
    for encoder in config["encoders"].values():
        if tokenizer_json is not None and encoder.get("init_args", {}).get("tokenizer") == tokenizer_json:
            encoder["init_args"] = {**encoder["init_args"], "tokenizer": TOKENIZER}
    return config


def read_settings(path: Path, trust: Trust) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint of `peav fit`, and checks what its settings name before anything is built from them.

    Args:
        path: the file.
        trust: how far it is trusted.

    Returns:
        all of it, and its `hyper_parameters`.

    Raises:
        CheckpointError: if it is something else.
        TrustError: if it holds more than tensors and plain data; or names classes or files that only the user may allow.
    """
    saved = read_pickled(path)
    try:
        settings = saved["hyper_parameters"]
        plugins = [(registry.encoders, dict(settings["encoders"])), (registry.objectives, dict(settings["objectives"]))]
        dict(saved["state_dict"])
        for config in plugins[0][1].values():
            # Before `architecture` was refused beside `pretrained`, its default stood there.
            if config["class_path"] == "TextEncoder" and config["init_args"].get("pretrained") is not None:
                config["init_args"] |= {"architecture": None}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of `peav fit`: its hyper-parameters name no encoders and objectives "
            f"({type(error).__name__})"
        ) from error
    check_plain({name: value for name, value in settings.items() if name not in ("encoders", "objectives")}, path)
    check_plain(saved.get(_DATA_SETTINGS), path)
    registry.load_plugins()
    for kind, configs in plugins:
        for config in configs.values():
            kind.admit(config, trust, path)
    return saved, settings


def read_training_checkpoint(path: Path, trust: Trust = Trust.NAMES) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Reads a checkpoint of `peav fit`: the model, with the scale and bias of each pair that was trained.

    Returns:
        the specification, and the state by the names of `PEAV.state_dict()`.

    Raises:
        CheckpointError: if it is something else.
        TrustError: if it names classes or files that only the user may allow.
    """
    saved, settings = read_settings(path, trust)
    encoders, objectives = settings["encoders"], settings["objectives"]
    state = {
        key.removeprefix("model."): tensor for key, tensor in saved["state_dict"].items() if key.startswith("model.")
    }
    state = merge_adapters({key: tensor for key, tensor in state.items() if not key.startswith("scores.")})
    pairs: list[Pair] = []
    text_pairs: list[Pair] = []
    embeddings: set[str] = set()
    frames: set[str] = set()
    for name, config in objectives.items():
        with building(sum(tensor.numel() for tensor in saved["state_dict"].values()), path):
            objective = registry.objectives.build(config, trust)
        # `features.NAME` is made on the way, and no embedding of the model.
        embeddings |= {
            name for name in objective.requires if name not in objective.frames and not name.startswith("features.")
        }
        frames |= {name for name in objective.frames if not name.startswith("features.")}
        for pair, (scale, bias) in _trained(objective, name, saved["state_dict"]).items():
            if pair not in pairs:  # the first objective of a pair speaks for it
                pairs.append(pair)
                key = f"scores.{pair[0]}:{pair[1]}"
                state |= {f"{key}.scale": scale.float().view(1), f"{key}.bias": bias.float().view(1)}
        for pair, score in objective.text_scores().items():
            if pair not in pairs:
                pairs.append(pair)
                text_pairs.append(pair)
                state |= {f"scores.{pair[0]}:{pair[1]}.{key}": value for key, value in score.state_dict().items()}
    heads = {key.split(".")[1] for key in state if key.startswith("heads.")}
    known = {field.name for field in fields(MediaSettings)}
    media = {key: value for key, value in (saved.get(_DATA_SETTINGS) or {}).items() if key in known}
    if media.get("fps") is not None:
        media["num_frames"] = None
    spec = ModelSpec(
        encoders=encoders,
        # An embedding without a head of its own goes through that of another one (`Encoder.shared_heads`).
        embeddings=tuple(sorted(embeddings | (heads - frames))),
        frames=tuple(sorted(frames)),
        embedding_dim=settings["embedding_dim"],
        normalize=settings["normalize"],
        pairs=tuple(pairs),
        media=MediaSettings(**media) if media else None,
        text_pairs=tuple(text_pairs),
    )
    return spec, state


def _trained(objective: Objective, name: str, state: Mapping[str, Tensor]) -> dict[Pair, tuple[Tensor, Tensor]]:
    """Returns the scales and biases of an objective after training."""
    own = {key: tensor for key, tensor in state.items() if key.startswith(f"objectives.{name}.")}
    try:
        objective.load_state_dict({key.removeprefix(f"objectives.{name}."): value for key, value in own.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"the tensors of objective {name!r} are not those of today's {type(objective).__name__}: {error}"
        ) from error
    return objective.pair_scores()
