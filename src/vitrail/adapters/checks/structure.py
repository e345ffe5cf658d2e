"""What a network computes with, to notice that it has changed."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def list_structure(module: nn.Module) -> tuple[Any, ...]:
    """List all that determines how a network computes, except what is written into its tensors, as objects to compare by identity."""
    per_part = (
        (
            part,
            getattr(type(part), "forward", None),  # Scripted and traced modules have none in their class.
            *filter(callable, vars(part).values()),  # Includes a replaced `forward`.
            *part._modules.values(),
            *chain.from_iterable(getattr(part, hooks).values() for hooks in HOOKS),
        )
        for part in module.modules()
    )
    return (*chain.from_iterable(per_part), *module.parameters(), *module.buffers())


def list_versions(module: nn.Module) -> Iterator[Any]:
    """List what changes with the numbers of a network: torch counts how often each tensor was written to."""
    for tensor in chain(module.parameters(), module.buffers()):
        yield None if tensor.is_inference() else tensor._version, tensor.dtype, tensor.device
