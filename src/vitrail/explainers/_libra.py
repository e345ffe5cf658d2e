"""LibraGrad: gradients that add up to the logit. Prunes backward paths through products of activations, keeps the forward pass."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter
from vitrail.core.hooks import forward_hooks
from vitrail.explainers._gradients import replace_gradient
from vitrail.explainers._head_attention import HeadAttention

ACTIVATIONS = (
    *("GELU", "GELUTanh", "GELUActivation", "NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation"),
    *("QuickGELU", "QuickGELUActivation", "SiLU", "SiLUActivation", "Swish"),
)
"""Class names of activations of the form x times gate(x); every library has its own classes."""


@contextmanager
def balanced_gradients(vit: ViTAdapter, *, enabled: bool = True) -> Iterator[None]:
    """Make the backward pass of a network locally linear, inside a `with` block.

    In a network made of linear maps and multiplications by constants, token times gradient sums to the logit, up to biases.
    Attention, normalization and activations multiply x by a factor that depends on x. Here these factors count as constants:
    attention weights, the standard deviation of a normalization, the gate of GELU or SiLU.

    Args:
        vit: The network; restored on exit.
        enabled: False changes nothing.

    Source: Mehri et al. 2024 (LibraGrad), sections 3 and 4, arXiv:2411.16760.

    Differs: the products of gated MLPs (SwiGLU) keep both of their backward paths.
    """
    with ExitStack() as stack:
        if enabled:
            stack.enter_context(vit.intercept_attention(vit.blocks, Tensor.detach))
            stack.enter_context(HeadAttention(Tensor.detach))
            parts = list(vit.module.modules())
            hooks: list[tuple[nn.Module, Callable[..., Tensor]]] = []
            hooks += [(part, _constant_scale) for part in parts if isinstance(part, nn.LayerNorm)]
            hooks += [(part, _constant_root) for part in parts if type(part).__name__.lower() == "rmsnorm"]
            hooks += [(part, _constant_gate) for part in parts if type(part).__name__ in ACTIVATIONS]
            stack.enter_context(forward_hooks(hooks))
        yield


def _constant_scale(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recompute layer normalization with a constant standard deviation."""
    [values] = inputs
    dims = tuple(range(-len(norm.normalized_shape), 0))
    centered = values - values.mean(dims, keepdim=True)
    scaled = centered * (values.var(dims, correction=0, keepdim=True) + norm.eps).rsqrt().detach()
    if norm.weight is not None:
        scaled = scaled * norm.weight
    return replace_gradient(output, scaled)


def _constant_root(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recompute RMS normalization with a constant root."""
    [values] = inputs
    eps = norm.eps if norm.eps is not None else torch.finfo(values.dtype).eps
    scaled = values * (values.square().mean(-1, keepdim=True) + eps).rsqrt().detach()
    return replace_gradient(output, scaled if norm.weight is None else scaled * norm.weight)


def _constant_gate(activation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recompute an activation as x times a constant gate; at x = 0 the gate is 1/2."""
    [values] = inputs
    tiny = values.abs() < 1e-6
    gate = torch.where(tiny, 0.5, output / torch.where(tiny, 1.0, values))
    return replace_gradient(output, values * gate.detach())
