"""Modules around a network, and those that are known to pass everything on: torch's own, and averages of weights without a forward pass."""

from dataclasses import dataclass

from torch import nn

from vitrail.core.hooks import original


@dataclass(frozen=True)
class Wrapper:
    """A module that gives the logits of a network inside it.

    Attributes:
        module: The module.
        output_key: Index or key of the logits in what it returns, where that is a tuple or a dictionary.
    """

    module: nn.Module
    output_key: int | str | None = None


def strip(module: nn.Module) -> nn.Module:
    """Return the network inside wrappers that are known to pass everything on; wrappers with hooks stay."""
    while True:
        inner = original(module)
        passes_on = isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel) and "forward" not in vars(inner)
        if passes_on or (_has_no_forward(inner) and list(inner._modules) == ["module"]):
            inner = inner.module
        if inner is module or module._forward_hooks or module._forward_pre_hooks:
            return module
        module = inner


def _has_no_forward(module: nn.Module) -> bool:
    return getattr(type(module), "forward", None) is nn.Module.forward and "forward" not in vars(module)
