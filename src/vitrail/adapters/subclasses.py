"""Subclasses of known networks that compute what the known network computes."""

from torch import nn


def is_unchanged(module: nn.Module, base: type[nn.Module], *methods: str) -> bool:
    """Return whether a network is a `base`, or of a subclass that leaves its forward pass alone.

    Args:
        base: The class that an adapter knows.
        methods: Methods that its forward pass calls, besides `forward` itself.
    """
    kind = type(module)
    return isinstance(module, base) and all(
        getattr(kind, name) is getattr(base, name) for name in ("forward", "__call__", *methods)
    )
