"""What a network computes with, to notice that it has changed."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def list_structure(module: nn.Module) -> Iterator[Any]:
    """List all that determines how a network computes, except what is written into its tensors, as objects to compare by identity."""
    for part in module.modules():
        yield part
        yield getattr(type(part), "forward", None)  # Scripted and traced modules have none in their class.
        yield from filter(callable, vars(part).values())  # Includes a replaced `forward`.
        yield from chain(part._modules.values(), part._parameters.values(), part._buffers.values())
        for hooks in HOOKS:
            yield from getattr(part, hooks).values()


def list_global_hooks() -> Iterator[Any]:
    """List the hooks that torch calls for the modules of every network."""
    hooks = (_global_forward_hooks, _global_forward_pre_hooks, _global_backward_hooks, _global_backward_pre_hooks)
    yield from chain.from_iterable(each.values() for each in hooks)


def list_versions(structure: Sequence[Any]) -> list[Any]:
    """List what changes with the numbers in a structure: torch counts how often each tensor was written to."""
    tensors = (item for item in structure if isinstance(item, Tensor))
    return [(None if tensor.is_inference() else tensor._version, tensor.dtype, tensor.device) for tensor in tensors]
