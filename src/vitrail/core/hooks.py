"""Context managers that change a user's module temporarily, and restore it even on failure."""

import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.core.errors import UnsupportedModelError


@contextmanager
def inspecting(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, without side effects.

    Inside, weights do not require gradients, which saves memory in backward passes. On exit, also by an error, the training mode of
    every submodule, `requires_grad` and `.grad` of every parameter, and the random states of Python, NumPy, the CPU and the module's
    CUDA devices are restored. Other threads that inspect the module wait.
    """
    with exclusive(module), _keeping_random_states(), _evaluating(module):
        yield


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    # Frozen scripts have no mode.
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    devices = sorted({parameter.device.index for parameter, _, _ in parameters if parameter.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            _evaluate(module, modes)
            for parameter, _, _ in parameters:
                parameter.grad = None  # A backward pass inside would add to the user's gradient.
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad, grad in parameters:
                # Parameters created in inference mode can be changed only there.
                with torch.inference_mode(parameter.is_inference()):
                    parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            # Last, as it was changed first: parts that unmerge weights find them as they were when merged.
            _restore_modes(modes)


@contextmanager
def _keeping_random_states() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


_locks: WeakKeyDictionary[nn.Module, AbstractContextManager[Any]] = WeakKeyDictionary()
_locks_lock = threading.Lock()


def exclusive(module: nn.Module) -> AbstractContextManager[Any]:
    """Return a context in which no other thread inspects a module; it may be entered again inside.

    Wrappers and copies that share a module's weights share its lock, which is that of the last part with weights.
    """
    parts = list(module.modules())
    last = next((part for part in reversed(parts) if part._parameters or part._buffers), module)
    with _locks_lock:
        return _locks.setdefault(last, threading.RLock())


def _evaluate(module: nn.Module, modes: Sequence[tuple[nn.Module, bool]]) -> None:
    """Put a module into evaluation mode; the mode of an exported program is fixed, so that its own `eval` is an error."""
    if not any(training for _, training in modes):
        return  # Some parts act at every call of `eval`, changed or not, such as merging weights again.
    try:
        module.eval()
    except NotImplementedError:
        for part, _ in modes:
            part.training = False


def _restore_modes(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    """Restore the training mode of every part; parts that act on a change, such as layers that merge weights for evaluation, undo it."""
    try:
        for part, training in modes:
            if training != part.training and type(part).train is not nn.Module.train:
                with suppress(NotImplementedError):
                    part.train(training)
    finally:
        for part, training in modes:
            part.training = training


_eager_lock = threading.Lock()
_eager_exits: list[ExitStack] = []
_eager_depth = 0


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Run a module without `torch.compile` inside the block, because compiled code calls no hooks.

    Has no effect on modules without compiled parts. While any block is open, in any thread, all compiled code of the process runs
    uncompiled.
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
    """Return the module inside the wrapper of `torch.compile(module)`; any other module unchanged."""
    return getattr(module, "_orig_mod", module) if isinstance(module, nn.Module) else module


def _is_compiled(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return (
        module._compiled_call_impl is not None
        or original(module) is not module
        or hasattr(forward, "_torchdynamo_orig_callable")
    )


def _expect_hookable(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            f"expected a Python module, got a scripted or traced {getattr(module, 'original_name', 'module')}, which calls no hooks; "
            "use the module from before torch.jit"
        )
    return module


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]], before: bool = False) -> Iterator[None]:
    """Register forward hooks `(module, inputs, output)` inside the block; or pre-hooks, see `forward_pre_hooks`."""
    with ExitStack() as stack:
        for module, hook in hooks:
            module = _expect_hookable(module)
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(hook).remove)
        yield


def forward_pre_hooks(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> AbstractContextManager[None]:
    """Register forward pre-hooks `(module, inputs)` inside the block; what they return replaces the inputs."""
    return forward_hooks(hooks, before=True)


@contextmanager
def replaced_methods(name: str, replacements: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Replace a method of modules inside the block.

    With the name "forward", hooks of the modules still run.
    """
    with ExitStack() as stack:
        for module, method in replacements:
            # An instance attribute hides the class's method; a user may have set one as well.
            if name in vars(module):
                stack.callback(setattr, module, name, vars(module)[name])
            else:
                stack.callback(delattr, module, name)
            setattr(module, name, method)
        yield


@contextmanager
def attributes(objects: Iterable[Any], **values: Any) -> Iterator[None]:
    """Set attributes of modules or configurations (e.g. `fused_attn=False`) inside the block."""
    with ExitStack() as stack:
        for item in objects:
            for name, value in values.items():
                stack.callback(setattr, item, name, getattr(item, name))
                setattr(item, name, value)
        yield


@contextmanager
def shuffled(parameters: Iterable[nn.Parameter], seed: int) -> Iterator[None]:
    """Shuffle the values within every parameter inside the block; then restore every bit.

    What a parameter has learned is lost; its mean, spread and outliers stay, in any precision. Parameters whose values are all equal
    do not change, nor do buffers.

    Args:
        parameters: Parameters to shuffle in place; parameters that share memory change together.
        seed: Determines the order within each parameter, on every device. Later parameters do not affect earlier ones.
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
