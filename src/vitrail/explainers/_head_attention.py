"""Attention weights inside heads that pool tokens by attention, by whichever of torch's functions they are computed."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrail.core.errors import UnsupportedModelError
from vitrail.explainers._gradients import replace_gradient


class HeadAttention(TorchFunctionMode):
    """Replaces attention weights inside a `with` block; outputs keep their values, and take their gradients from the replacement.

    Args:
        replace: Takes the weights [..., queries, keys] of one attention, and returns equal weights with another graph.
    """

    def __init__(self, replace: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.replace = replace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in (torch.softmax, Tensor.softmax, nn.functional.softmax):
            return self.replace(output)
        if func is nn.functional.scaled_dot_product_attention:
            return replace_gradient(output, self._attend(*args, **kwargs))
        if func is nn.functional.multi_head_attention_forward:
            return replace_gradient(output[0], self._attend_by_heads(func, args, kwargs)), output[1]
        return output

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute attention from its weights, which are what it gives for the identity in place of the values."""
        if kwargs.pop("enable_gqa", False):  # Several heads of queries share one of keys and values.
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        with torch.no_grad():
            identity = torch.eye(key.shape[-2], device=key.device, dtype=key.dtype).expand(*key.shape[:-1], -1)
            weights = nn.functional.scaled_dot_product_attention(query, key, identity, *args, **kwargs)
        return self.replace(weights) @ value

    def _attend_by_heads(self, attend: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
        """Do the same for `torch.nn.MultiheadAttention`, sequence first, whose projections belong to it."""
        given = inspect.signature(attend).bind(*args, **kwargs)
        given.apply_defaults()
        if given.arguments["bias_k"] is not None or given.arguments["add_zero_attn"]:
            raise UnsupportedModelError(
                "expected a head whose attention reads tokens only, got torch's MultiheadAttention with bias_k or add_zero_attn; leave out "
                "libra and attention"
            )
        with torch.no_grad():
            _, weights = attend(**given.arguments | {"need_weights": True, "average_attn_weights": False})
        found, width = given.arguments, given.arguments["embed_dim_to_check"]
        weight = found["v_proj_weight"] if found["use_separate_proj_weight"] else found["in_proj_weight"][-width:]
        bias = None if found["in_proj_bias"] is None else found["in_proj_bias"][-width:]
        values = nn.functional.linear(found["value"], weight, bias).unflatten(-1, (found["num_heads"], -1)).permute(1, 2, 0, 3)
        heads = (self.replace(weights) @ values).permute(2, 0, 1, 3).flatten(2)
        return nn.functional.linear(heads, found["out_proj_weight"], found["out_proj_bias"])
