"""The only place that touches a foreign module: context managers that put everything back, also on failure."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def inspecting(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode and leave no trace of what happens inside.

    Inside, no gradient of a weight is asked for, which saves the memory that a backward pass would need for them. On leaving,
    also by an error, every submodule's training mode, every parameter's `requires_grad` and `.grad`, and the random state of
    the CPU and of the module's CUDA devices are what they were.
    """
    modes = [(part, part.training) for part in module.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    devices = sorted({parameter.device.index for parameter, _, _ in parameters if parameter.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            module.eval()
            for parameter, _, _ in parameters:
                parameter.grad = None  # A backward inside would add to the user's gradient in place.
                parameter.requires_grad_(False)
            yield
        finally:
            for part, training in modes:
                part.training = training
            for parameter, requires_grad, grad in parameters:
                # Parameters created in inference mode take the flag nowhere else.
                with torch.inference_mode(parameter.is_inference()):
                    parameter.requires_grad_(requires_grad)
                parameter.grad = grad


_eager_lock = threading.Lock()
_eager_exits: list[ExitStack] = []
_eager_depth = 0


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Run what `torch.compile` compiled in a module as it was written, for the time of the block: compiled code calls no hooks.

    Modules that hold nothing compiled cost a look at their parts. While any block is open, in any thread, all compiled code of
    the process runs as written.
    """
    if "torch._dynamo" not in sys.modules or not any(map(_is_compiled, module.modules())):
        yield
        return
    global _eager_depth
    with _eager_lock:
        if not _eager_depth:
            stack = ExitStack()
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            _eager_exits.append(stack)
        _eager_depth += 1
    try:
        yield
    finally:
        with _eager_lock:
            _eager_depth -= 1
            if not _eager_depth:
                _eager_exits.pop().close()


def original(module: Any) -> Any:
    """The module inside the wrapper that `torch.compile(module)` returns; any other module itself."""
    return vars(module).get("_modules", {}).get("_orig_mod", module) if isinstance(module, nn.Module) else module


def _is_compiled(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return (
        module._compiled_call_impl is not None
        or original(module) is not module
        or hasattr(forward, "_torchdynamo_orig_callable")
    )


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Register forward hooks `(module, inputs, output)` for the time of the block."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def forward_pre_hooks(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Register hooks `(module, inputs)` before the forward for the time of the block; what they return are the inputs."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_pre_hook(hook).remove)
        yield


@contextmanager
def replaced_methods(name: str, replacements: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Let modules do something else when a method is called, for the time of the block.

    With the name "forward" their hooks still run and their own forward does not.
    """
    with ExitStack() as stack:
        for module, method in replacements:
            # What stands in the instance hides the class's method; a user may have put something there as well.
            if name in vars(module):
                stack.callback(setattr, module, name, vars(module)[name])
            else:
                stack.callback(delattr, module, name)
            setattr(module, name, method)
        yield


@contextmanager
def attributes(objects: Iterable[Any], **values: Any) -> Iterator[None]:
    """Set attributes of modules or configurations (e.g. `fused_attn=False`) for the time of the block."""
    with ExitStack() as stack:
        for each in objects:
            for name, value in values.items():
                stack.callback(setattr, each, name, getattr(each, name))
                setattr(each, name, value)
        yield


@contextmanager
def shuffled(parameters: Iterable[nn.Parameter], seed: int) -> Iterator[None]:
    """Shuffle the numbers of every parameter among themselves, for the time of the block; then every bit is back in its place.

    What a parameter has learned is gone, its mean, spread and outliers stay, in any precision. One whose numbers are all the
    same stays as it is, and so do buffers.

    Args:
        parameters: Those to shuffle, in place; where they share memory, all of them show it.
        seed: Draws the order of each, the same on every device. Parameters that follow do not change it.
    """
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        for parameter in parameters:
            kept = parameter.detach().clone()
            order = torch.randperm(kept.numel(), generator=generator, device="cpu").to(kept.device)
            stack.callback(_write, parameter, kept)
            _write(parameter, kept.flatten()[order].view(kept.shape))
        yield


def _write(parameter: nn.Parameter, numbers: Tensor) -> None:
    # Through `data`, unseen by autograd: a graph from before finds its numbers as it left them.
    parameter.data.copy_(numbers)
