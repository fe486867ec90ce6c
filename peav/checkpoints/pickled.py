"""Training checkpoints as torch and Lightning write them, read without running anything that they hold.

A checkpoint is a zip of tensors and of one pickle, which torch reads with `weights_only`: tensors, numbers and texts, and no code. FSDP2
writes a folder instead. Its list, `.metadata`, is a plain pickle, and so is each number in it that is no tensor, such as a learning rate;
torch reads them as such, so they are looked through first.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from peav.opening import check_name, is_regular
from peav.trust import TrustError

#: What FSDP2's folders hold beside the tensors: their list, and what Lightning adds.
_METADATA, _REST = ".metadata", "meta.pt"

#: What their pickle is made of, by module.
_KNOWN = {
    "torch.distributed.checkpoint.metadata": {
        *(
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "ChunkStorageMetadata",
            "TensorStorageMetadata",
            "BytesStorageMetadata",
        ),
        *("TensorProperties", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "SerializationFormat"},
    "torch": {"Size", "device"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "builtins": {"set", "tuple", "dict", "list"},
    "pathlib": {"PosixPath"},
    "pathlib._local": {"PosixPath"},
}

#: How a folder's numbers that are no tensors are listed.
_TENSOR = "TensorStorageMetadata"

#: A larger one than this lists no tensors of a model.
_MAX_METADATA_BYTES = 256 << 20

#: A learning rate takes a kilobyte.
_MAX_PLAIN_BYTES = 1 << 20


def read_pickled(path: Path, mmap: bool = False) -> Any:
    """Reads a checkpoint that torch wrote: tensors and plain data, and nothing that runs.

    Args:
        path: the file.
        mmap: leave tensors in the file until they are used.

    Raises:
        FileNotFoundError: if it is not there.
        TrustError: if it holds anything else, or would unpack to more than its size.
    """
    check_pickled(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError, AttributeError) as error:
        raise TrustError(
            f"{path} holds something else than tensors and plain data, and is not opened: what a pickle holds may run when it is read "
            f"({type(error).__name__})"
        ) from error


def check_pickled(path: Path) -> None:
    """Looks at a checkpoint before anything of it is read: a file of `torch.save`, or a folder of FSDP2.

    Raises:
        FileNotFoundError: if it is not there.
        TrustError: if it is packed more tightly than `torch.save` packs, or its pickle names something that could run.
    """
    if path.is_dir():
        _check_folder(path)
        return
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not is_regular(path):
        raise TrustError(f"{path} is no plain file: it is not opened")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    # zipfile says NotImplementedError of an archive in a way of packing that it does not know.
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        raise TrustError(
            f"{path} is no checkpoint that torch.save wrote: it is cut short, or another kind of file, such as a bare pickle, which is "
            "not opened"
        ) from error
    held = path.stat().st_size
    if unpacked > held:  # torch.save stores, and never compresses
        raise TrustError(f"{path} has {held:,} bytes and would unpack to {unpacked:,}: it is not opened")


class _Metadata(pickle.Unpickler):
    """An unpickler that knows what the list of an FSDP2 checkpoint is made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and name not in _KNOWN.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _check_folder(folder: Path) -> None:
    path = folder / _METADATA
    if not is_regular(path) or path.stat().st_size > _MAX_METADATA_BYTES:
        raise TrustError(f"{folder} is no checkpoint: FSDP2 would have written {_METADATA} there")
    try:
        with path.open("rb") as stream:
            listed = _Metadata(stream).load()
        kinds = {name: type(kind).__name__ for name, kind in listed.state_dict_metadata.items()}
        for index, info in listed.storage_data.items():
            _check_part(folder, info, kinds.get(index.fqn) == _TENSOR)
    except Exception as error:  # whatever a damaged pickle raises
        raise TrustError(
            f"{path} holds something else than a list of tensors and plain data, and is not opened: {error}"
        ) from error
    if (folder / _REST).exists():
        check_pickled(folder / _REST)


def _check_part(folder: Path, info: Any, tensor: bool) -> None:
    """Looks at a part of a folder: torch reads a tensor as such, and what is none by an unpickler that would run anything."""
    file = folder / check_name(info.relative_path, "a file of the checkpoint")
    if (
        info.transform_descriptors
        or not is_regular(file)
        or not 0 <= info.offset <= info.offset + info.length <= file.stat().st_size
    ):
        raise ValueError(f"a part of {file.name} that is not there")
    if tensor:
        return
    if info.length > _MAX_PLAIN_BYTES:
        raise ValueError(f"{info.length:,} bytes of plain data")
    with file.open("rb") as stream:
        stream.seek(info.offset)
        torch.load(io.BytesIO(stream.read(info.length)), weights_only=True)
