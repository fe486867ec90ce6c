"""Loading a state into a model, all of it and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from peav.checkpoints.keymap import listing
from peav.checkpoints.spec import CheckpointError
from peav.mendable import sentence_of
from peav.trust import TrustError

#: In-place functions by which constructors fill their parameters, here and in torch, timm and transformers.
_FILLING = {
    *("normal_", "uniform_", "trunc_normal_", "erfinv_", "mul_", "add_", "div_", "clamp_", "fill_", "zero_", "copy_"),
    *("zeros_", "ones_", "constant_", "eye_", "orthogonal_"),
    *(f"{kind}_{shape}_" for kind in ("kaiming", "xavier", "lecun") for shape in ("uniform", "normal")),
}

#: Numbers of a model that no file holds: buffers such as filter banks and tables of positions.
_SPARE_NUMBERS = 50_000_000

#: PE-AV large has 5,000.
_MAX_MODULES = 50_000


class _SkipFilling(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and getattr(func, "__name__", "") in _FILLING:
            return target
        return func(*args, **kwargs)


@contextmanager
def without_initialization() -> Iterator[None]:
    """Builds models whose parameters are left as memory is found: for those that are about to be loaded, all of them.

    The time of random initialisation is saved, and memory that is never written costs nothing. Buffers are made as ever.
    """
    with _SkipFilling():
        yield


@contextmanager
def building(numbers: int, source: object) -> Iterator[None]:
    """Builds the model of a file as `without_initialization` does, but none that is larger than the file.

    Its configuration may say anything; what it makes stops where it has more parameters and buffers than a model whose weights are in
    the file could have.

    Args:
        numbers: that the file holds.
        source: the file, for the message.

    Raises:
        CheckpointError: if the model would be larger.
    """
    left = [2 * numbers + _SPARE_NUMBERS, _MAX_MODULES]

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        left[0] -= 0 if tensor is None else tensor.numel()
        if left[0] < 0:
            raise CheckpointError(
                f"{source} describes a model of more than twice the {numbers:,} numbers that the file holds: they do not belong together"
            )

    def count_modules(module: nn.Module, name: str, child: nn.Module | None) -> None:
        left[1] -= 1
        if left[1] < 0:
            raise CheckpointError(f"{source} describes a model of more than {_MAX_MODULES:,} modules: it is refused")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
        register_module_module_registration_hook(count_modules),
    ]
    try:
        with without_initialization():
            yield
    except (CheckpointError, TrustError):
        raise
    except Exception as error:  # whatever constructors raise on what the file says
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
            raise CheckpointError(
                f"{source} describes a model that does not fit into memory: {first_line(error)}"
            ) from error
        said = sentence_of(error) if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(f"{source} describes what cannot be built: {type(error).__name__}: {said}") from error
    finally:
        for hook in hooks:
            hook.remove()


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Puts a state in place of a model's parameters and buffers, all of it and nothing else; tensors get the model's dtypes.

    Raises:
        CheckpointError: if tensors are missing, unexpected or of another shape; the message lists them.
    """
    expected = model.state_dict()
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = [
        listing(found, what)
        for found, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if found
    ]
    if problems:
        raise CheckpointError(f"{source}: {'; '.join(problems)}")
    # Memory of its own: a tensor of a safetensors file may be a window on the file, which could be overwritten.
    owned = {key: state[key].to(tensor.dtype, copy=True).contiguous() for key, tensor in expected.items()}
    model.load_state_dict(owned, assign=True)
