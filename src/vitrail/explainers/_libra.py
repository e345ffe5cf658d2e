"""LibraGrad: gradients that add up to the logit. Prunes backward paths through products of activations, keeps the forward pass."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrail.adapters import ViTAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_hooks

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
            stack.enter_context(_ConstantAttention())  # In heads that pool by attention.
            parts = list(vit.module.modules())
            hooks: list[tuple[nn.Module, Callable[..., Tensor]]] = []
            hooks += [(part, _constant_scale) for part in parts if isinstance(part, nn.LayerNorm)]
            hooks += [(part, _constant_root) for part in parts if type(part).__name__.lower() == "rmsnorm"]
            hooks += [(part, _constant_gate) for part in parts if type(part).__name__ in ACTIVATIONS]
            stack.enter_context(forward_hooks(hooks))
        yield


class _ConstantAttention(TorchFunctionMode):
    """Lets no gradient into attention weights, by whichever of torch's functions they are computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in (torch.softmax, Tensor.softmax, nn.functional.softmax):
            return output.detach()
        if func is nn.functional.scaled_dot_product_attention:
            return _replace_gradient(output, _attend_by_constants(*args, **kwargs))
        if func is nn.functional.multi_head_attention_forward:
            return _replace_gradient(output[0], _attend_by_constant_heads(func, args, kwargs)), output[1]
        return output


def _attend_by_constants(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute attention from weights without gradients: what it gives for the identity in place of the values."""
    if kwargs.pop("enable_gqa", False):  # Several heads of queries share one of keys and values.
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    with torch.no_grad():
        identity = torch.eye(key.shape[-2], device=key.device, dtype=key.dtype).expand(*key.shape[:-1], -1)
        weights = nn.functional.scaled_dot_product_attention(query, key, identity, *args, **kwargs)
    return weights @ value


def _attend_by_constant_heads(attend: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    """Do the same for `torch.nn.MultiheadAttention`, sequence first, whose projections belong to it."""
    given = inspect.signature(attend).bind(*args, **kwargs)
    given.apply_defaults()
    if given.arguments["bias_k"] is not None or given.arguments["add_zero_attn"]:
        raise UnsupportedModelError(
            "expected attention to tokens only for libra, got torch's MultiheadAttention with bias_k or add_zero_attn; leave libra out"
        )
    with torch.no_grad():
        _, weights = attend(**given.arguments | {"need_weights": True, "average_attn_weights": False})
    found, width = given.arguments, given.arguments["embed_dim_to_check"]
    weight = found["v_proj_weight"] if found["use_separate_proj_weight"] else found["in_proj_weight"][-width:]
    bias = None if found["in_proj_bias"] is None else found["in_proj_bias"][-width:]
    values = nn.functional.linear(found["value"], weight, bias).unflatten(-1, (found["num_heads"], -1)).permute(1, 2, 0, 3)
    heads = (weights @ values).permute(2, 0, 1, 3).flatten(2)
    return nn.functional.linear(heads, found["out_proj_weight"], found["out_proj_bias"])


def _constant_scale(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recompute layer normalization with a constant standard deviation."""
    [values] = inputs
    dims = tuple(range(-len(norm.normalized_shape), 0))
    centered = values - values.mean(dims, keepdim=True)
    scaled = centered * (values.var(dims, correction=0, keepdim=True) + norm.eps).rsqrt().detach()
    if norm.weight is not None:
        scaled = scaled * norm.weight
    return _replace_gradient(output, scaled)


def _constant_root(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recompute RMS normalization with a constant root."""
    [values] = inputs
    eps = norm.eps if norm.eps is not None else torch.finfo(values.dtype).eps
    scaled = values * (values.square().mean(-1, keepdim=True) + eps).rsqrt().detach()
    return _replace_gradient(output, scaled if norm.weight is None else scaled * norm.weight)


def _constant_gate(activation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recompute an activation as x times a constant gate; at x = 0 the gate is 1/2."""
    [values] = inputs
    tiny = values.abs() < 1e-6
    gate = torch.where(tiny, 0.5, output / torch.where(tiny, 1.0, values))
    return _replace_gradient(output, values * gate.detach())


def _replace_gradient(output: Tensor, surrogate: Tensor) -> Tensor:
    """Return the values of `output` with the gradient of `surrogate`: in half precision the two are rounded differently."""
    return output.detach() + (surrogate - surrogate.detach()).to(output.dtype)
