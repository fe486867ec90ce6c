"""Starting from a checkpoint: weights, and the scales and biases of the pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peav.checkpoints import Checkpoint, CheckpointError, read_checkpoint, without_initialization
from peav.checkpoints.keymap import listing
from peav.embedding_model import EmbeddingModel
from peav.objectives import Objective
from peav.registry import encoders as encoder_classes
from peav.registry import init_signature
from peav.suggest import suggest
from peav.trust import Trust

log = logging.getLogger(__name__)

_PHRASES, _CAPTIONS = "text_event", "text_audio"


def read_initial(
    path_or_id: str, revision: str | None, options: Mapping[str, Mapping[str, Any]], trust: bool = False
) -> Checkpoint:
    """Reads a checkpoint to start from, with some of its encoders' arguments changed.

    Args:
        path_or_id: see :meth:`peav.model.PEAV.from_pretrained`.
        revision: of a repository.
        options: arguments to change, by encoder, such as `{"video": {"trainable_frame_layers": 2}}`.
        trust: see :meth:`peav.model.PEAV.from_pretrained`.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        ValueError: if it has no encoder, or an encoder no argument, of a name in `options`.
    """
    checkpoint = read_checkpoint(path_or_id, revision, Trust.of(trust))
    encoders = {name: dict(config) for name, config in checkpoint.spec.encoders.items()}
    for name, changes in options.items():
        if name not in encoders:
            raise ValueError(f"encoder_options names the encoder {name!r}. {suggest(name, encoders)}")
        known = init_signature(encoder_classes.resolve(encoders[name]["class_path"], checkpoint.trust)).parameters
        for argument in changes:
            if argument not in known:
                raise ValueError(f"encoder {name!r} has no argument {argument!r}. {suggest(argument, known)}")
        encoders[name]["init_args"] = {**encoders[name]["init_args"], **changes}
    return replace(checkpoint, spec=replace(checkpoint.spec, encoders=encoders))


def absolute_name(path_or_id: str) -> str:
    """Returns a file or folder by its whole path, and a repository of the hub as it is."""
    path = Path(path_or_id).expanduser()
    return str(path.resolve()) if path.exists() else path_or_id


def load_initial(model: EmbeddingModel, objectives: Mapping[str, Objective], checkpoint: Checkpoint) -> None:
    """Loads a checkpoint into a model that is about to be trained, and into its objectives.

    Heads that the checkpoint lacks start anew, but that of event phrases, which begins as the one of audio captions: PE-A-Frame's is
    called so in transformers (`text_audio_head`). The scales and biases of pairs that it lacks are fitted to the first batch. All are
    reported.

    Raises:
        CheckpointError: if the checkpoint lacks an encoder of the model, a tensor is of another shape, or some of an encoder's would be
            dropped.
    """
    # Not on the meta device: constructors may compute with tensors, of which meta has no values.
    with without_initialization():
        whole = EmbeddingModel.from_spec(replace(checkpoint.spec, media=None), checkpoint.trust).state_dict()
    state, _ = checkpoint.convert(whole)
    expected = model.state_dict()
    fresh = sorted({key.split(".")[1] for key in expected if key.startswith("heads.") and key not in state})
    if _PHRASES in fresh and any(key.startswith(f"heads.{_CAPTIONS}.") for key in state):
        fresh.remove(_PHRASES)
        state |= {
            key.replace(_CAPTIONS, _PHRASES): tensor
            for key, tensor in state.items()
            if key.startswith(f"heads.{_CAPTIONS}.")
        }
        log.warning("%s has no head for %s: it starts as that of %s", checkpoint.source, _PHRASES, _CAPTIONS)
    missing = sorted(key for key in expected if key not in state and not key.startswith("heads."))
    if missing:
        raise CheckpointError(
            f"{checkpoint.source} lacks {len(missing)} tensors of this model: {', '.join(missing[:10])}"
        )
    owners = {key.split(".")[1] for key in expected if key.startswith("encoders.")}
    dropped = sorted(
        key for key in state if key.startswith("encoders.") and key.split(".")[1] in owners and key not in expected
    )
    if dropped:
        raise CheckpointError(
            f"{checkpoint.source}: {listing(dropped, 'would be dropped')}. The encoders are not the checkpoint's: leave "
            "model.encoders out, or change their arguments by encoder_options"
        )
    for key, tensor in expected.items():
        if key in state and state[key].shape != tensor.shape:
            raise CheckpointError(
                f"{checkpoint.source}: {key} is {tuple(state[key].shape)}, this model's is {tuple(tensor.shape)}"
            )
    model.load_state_dict({key: state.get(key, tensor) for key, tensor in expected.items()})
    if fresh:
        log.warning("%s has no head for %s: they start anew", checkpoint.source, ", ".join(fresh))
    fitted: list[str] = []
    kept: list[str] = []
    for name, objective in objectives.items():
        calibrated = None
        for pair in objective.pair_scores():
            key = f"scores.{pair[0]}:{pair[1]}"
            # A scale of 0 is one that was never trained.
            if f"{key}.scale" in state and float(state[f"{key}.scale"]) > 0:
                objective.set_pair_score(pair, state[f"{key}.scale"], state[f"{key}.bias"])
                continue
            if calibrated is None:
                calibrated = objective.begin_calibration()
            (fitted if calibrated else kept).append(f"{name} ({' x '.join(pair)})")
        for pair, score in objective.text_scores().items():
            key = f"scores.{pair[0]}:{pair[1]}."
            own = {k.removeprefix(key): tensor for k, tensor in state.items() if k.startswith(key)}
            if set(own) == set(score.state_dict()):
                score.load_state_dict(own)
            elif "scale" in own and float(own["scale"]) > 0:
                score.set_constants(own["scale"], own["bias"])
            else:
                kept.append(f"{name} ({' x '.join(pair)})")
    for pairs, what in ((fitted, "fitted to the first batch"), (kept, "started from the configuration")):
        if pairs:
            log.warning("%s holds no scale and bias for %s: they are %s", checkpoint.source, ", ".join(pairs), what)
