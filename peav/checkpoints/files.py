"""Files of a checkpoint: folders, the hub, safetensors. Nothing is ever unpickled."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peav.checkpoints.spec import CheckpointError
from peav.opening import OutsideError, check_name, is_regular, leads_out, read_json, read_small

log = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
UNUSED = "unused.safetensors"
TOKENIZER = "tokenizer.json"
#: What may lie beside them, written for transformers' classes.
_BESIDE = (
    "tokenizer_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
#: A larger configuration than this is none of a model.
MAX_CONFIG_BYTES = 16 << 20

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def find_folder(path_or_id: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a checkpoint: a local one, or a snapshot of a hub repository.

    Args:
        path_or_id: a folder, or a repository such as `facebook/pe-av-small`.
        revision: of the repository; Meta's own format lies in `perception_models` of the released ones.

    Raises:
        CheckpointError: if a path leads to a file, or to nothing.
    """
    path = Path(path_or_id)
    if not str(path_or_id):
        raise CheckpointError(
            "the name of the checkpoint is empty: give a folder, a .ckpt of `peav fit`, or OWNER/NAME"
        )
    if path.suffix == ".ckpt":
        raise CheckpointError(f"there is no checkpoint {path}")
    if path.is_dir():
        if revision is not None:
            raise CheckpointError(f"revision={revision!r} is for the hub, but {path} is a local folder")
        return path
    if path.is_file():
        raise CheckpointError(f"{path} is a file; a checkpoint is the folder that holds {CONFIG} and {WEIGHTS}")
    text = str(path_or_id)
    if text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise CheckpointError(f"there is no folder {text}, and a repository of the hub is named OWNER/NAME")
    from huggingface_hub import snapshot_download  # noqa: PLC0415  takes a while, and is needed late

    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # whatever the hub's client raises: no network, no such repository, no permission
        raise CheckpointError(
            f"there is no folder {text}, and the hub gives no such repository: {type(error).__name__}: {error}"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json.

    Raises:
        CheckpointError: if it is missing or no JSON object.
    """
    data = read_object(folder, CONFIG)
    if data is None:
        raise CheckpointError(f"{folder} holds no {CONFIG}, so it is no checkpoint; it holds {_listing(folder)}")
    return data


def read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """Reads a JSON object of a checkpoint's folder; None where the folder has no such file.

    Raises:
        CheckpointError: if it is too large, a link out of the folder, or no JSON object.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        data = read_json(_own(folder, name), MAX_CONFIG_BYTES)
    except OutsideError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object")
    return data


def _own(folder: Path, name: str) -> Path:
    """Returns a file of a folder, which must lie in it: links are followed no further than the hub's cache.

    Raises:
        CheckpointError: if it leads elsewhere, or is no plain file.
    """
    path = folder / name
    if leads_out(path, folder):
        raise CheckpointError(
            f"{path} is a link out of its folder, to {path.resolve()}: it is not followed; put the file itself there"
        )
    if not is_regular(path):
        raise CheckpointError(f"{path} is no plain file")
    return path


def read_weights(folder: Path, name: str = WEIGHTS) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the metadata of `model.safetensors`, or of the files that `model.safetensors.index.json` lists.

    Raises:
        CheckpointError: if there are none, or a file is damaged; pickles are refused.
    """
    index = folder / f"{name}.index.json"
    if (folder / name).is_file():
        files = [folder / name]
    elif index.is_file():
        try:
            names = set((read_object(folder, index.name) or {})["weight_map"].values())
            files = [folder / check_name(file, f"a file of {index}") for file in sorted(names)]
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{index} is no list of safetensors files: {type(error).__name__}: {error}"
            ) from error
        except OutsideError as error:
            raise CheckpointError(f"{index}: {error}") from error
        if missing := [file.name for file in files if not file.is_file()]:
            raise CheckpointError(f"{index} lists {', '.join(missing)}, which are not there")
    else:
        pickles = sorted({path.name for pattern in _PICKLES for path in folder.glob(pattern)})
        hint = (
            f"; {', '.join(pickles)} would have to be unpickled, which runs code, and is refused: save as safetensors"
            if pickles
            else ""
        )
        raise CheckpointError(f"{folder} holds no {name}{hint}")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        _own(folder, file.name)
        try:
            with safe_open(file, "pt") as opened:
                metadata |= opened.metadata() or {}
                for key in opened.keys():  # noqa: SIM118  safe_open is no mapping
                    tensors[key] = opened.get_tensor(key)
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} is no whole safetensors file ({error}): it is cut short, or holds something else, such as a pickle"
            ) from error
    return tensors, metadata


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], name: str = WEIGHTS, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as safetensors; what shares memory with another tensor is copied first."""
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        owned[key] = tensor
    # Beside it first, so that an interruption leaves the old file whole; and with the mode that other new files get.
    partial = folder / f"partial-{name}"
    partial.touch()
    mode = partial.stat().st_mode
    save_file(owned, partial, metadata={"format": "pt", **(metadata or {})})
    partial.chmod(mode)
    partial.replace(folder / name)


def remove_stale(folder: Path, written: Collection[str]) -> None:
    """Removes the files of a checkpoint that lay in the folder before and that the new one does not have."""
    stale = [folder / f"{WEIGHTS}.index.json", *folder.glob("model-*-of-*.safetensors")]
    stale += [folder / name for name in (UNUSED, TOKENIZER, *_BESIDE)]
    for path in stale:
        if path.name not in written:
            path.unlink(missing_ok=True)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_tokenizer_file(folder: Path) -> str | None:
    """Returns tokenizer.json as text, None where the folder has none."""
    if not (folder / TOKENIZER).is_file():
        return None
    try:
        return read_small(_own(folder, TOKENIZER)).decode("utf-8")
    except (OutsideError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / TOKENIZER} is no tokenizer: {error}") from error


def write_tokenizer_files(folder: Path, tokenizer_json: str | None, max_tokens: int) -> set[str]:
    """Writes tokenizer.json and what transformers' AutoTokenizer needs beside it; returns the names of the files."""
    if tokenizer_json is None:
        return set()
    (folder / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    added = {token["content"] for token in json.loads(tokenizer_json).get("added_tokens", [])}
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    config: dict[str, Any] = {f"{name}_token": token for name, token in names.items() if token in added}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return {TOKENIZER, "tokenizer_config.json"}


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") if names else "nothing"
