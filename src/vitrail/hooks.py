"""The only place that touches a foreign module: context managers that put everything back, also on failure."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def inspecting(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode and leave no trace of what happens inside.

    On leaving, also by an error, every submodule's training mode, every parameter's `requires_grad` and `.grad`, and the
    random state of the CPU and of the module's CUDA devices are what they were.
    """
    modes = [(part, part.training) for part in module.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    devices = sorted({parameter.device.index for parameter, _, _ in parameters if parameter.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            module.eval()
            for parameter, _, _ in parameters:
                parameter.grad = None  # A backward inside would add to the user's gradient in place.
            yield
        finally:
            for part, training in modes:
                part.training = training
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Register forward hooks `(module, inputs, output)` for the time of the block."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def attributes(modules: Iterable[nn.Module], **values: Any) -> Iterator[None]:
    """Set attributes of modules (e.g. `fused_attn=False`) for the time of the block."""
    with ExitStack() as stack:
        for module in modules:
            for name, value in values.items():
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
        yield
