"""Libra: gradients that add up. Backward paths through products of two activations are pruned, the forward pass is not changed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter
from vitrail.core.hooks import forward_hooks

ACTIVATIONS = (
    *("GELU", "GELUTanh", "GELUActivation", "NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation"),
    *("QuickGELU", "QuickGELUActivation", "SiLU", "SiLUActivation", "Swish"),
)
"""By the name of their class: every library has its own. Each is x times a gate that depends on x."""


@contextmanager
def balanced_gradients(vit: ViTAdapter, *, enabled: bool = True) -> Iterator[None]:
    """Make networks locally linear for the backward pass, for the time of the block.

    A network of linear maps and of x times a constant gives token times gradient the sum of the logit, up to biases. Attention,
    normalization and activations are x times something that depends on x; here that something counts as a constant: attention
    weights, the standard deviation of a normalization, the gate of GELU or SiLU.

    Args:
        vit: The network; it is as before after the block.
        enabled: False leaves everything as it is.

    Source: Mehri et al. 2024 (LibraGrad), sections 3 and 4, arXiv:2411.16760.

    Differs: the products of gated MLPs (SwiGLU) keep both of their paths.
    """
    with ExitStack() as stack:
        if enabled:
            stack.enter_context(vit.intercept_attention(vit.blocks, Tensor.detach))
            parts = list(vit.module.modules())
            hooks: list[tuple[nn.Module, Callable[..., Tensor]]] = []
            hooks += [(part, _constant_scale) for part in parts if isinstance(part, nn.LayerNorm)]
            hooks += [(part, _constant_root) for part in parts if type(part).__name__.lower() == "rmsnorm"]
            hooks += [(part, _constant_gate) for part in parts if type(part).__name__ in ACTIVATIONS]
            stack.enter_context(forward_hooks(hooks))
        yield


def _constant_scale(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Layer normalization whose standard deviation has no gradient."""
    [values] = inputs
    dims = tuple(range(-len(norm.normalized_shape), 0))
    centered = values - values.mean(dims, keepdim=True)
    scaled = centered * (values.var(dims, correction=0, keepdim=True) + norm.eps).rsqrt().detach()
    if norm.weight is not None:
        scaled = scaled * norm.weight
    return _with_gradient_of(scaled, output)


def _constant_root(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Root-mean-square normalization whose root has no gradient."""
    [values] = inputs
    eps = norm.eps if norm.eps is not None else torch.finfo(values.dtype).eps
    scaled = values * (values.square().mean(-1, keepdim=True) + eps).rsqrt().detach()
    return _with_gradient_of(scaled if norm.weight is None else scaled * norm.weight, output)


def _constant_gate(activation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """x times a gate that has no gradient; where x is zero so is the output, and the gate is a half."""
    [values] = inputs
    tiny = values.abs() < 1e-6
    gate = torch.where(tiny, 0.5, output / torch.where(tiny, 1.0, values))
    return _with_gradient_of(values * gate.detach(), output)


def _with_gradient_of(twin: Tensor, output: Tensor) -> Tensor:
    """The output itself, which in half precision is rounded otherwise than its twin, with the twin's gradient."""
    return output.detach() + (twin - twin.detach()).to(output.dtype)
