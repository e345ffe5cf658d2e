"""Attention of Hugging Face models whose weights can be read and changed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from vitrail.adapters.recording import BlockIntercept
from vitrail.core.hooks import attributes

OPEN_ATTENTION = "vitrail_open"
"""Name under which transformers calls `open_attention`."""

_INTERCEPT: ContextVar[Callable[[nn.Module, Tensor], Tensor] | None] = ContextVar("intercept", default=None)


def open_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention whose weights can be read and changed, in the graph.

    Differs: transformers' eager attention adds a mask to the scores whatever its type, so that True becomes a bonus of 1; here a
    boolean mask hides what is False.
    """
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.dropout(scores.softmax(-1), dropout, module.training)
    intercept = _INTERCEPT.get()
    if intercept is not None:
        weights = intercept(module, weights)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(OPEN_ATTENTION, open_attention)
AttentionMaskInterface.register(OPEN_ATTENTION, eager_mask)


@contextmanager
def intercept_open_attention(configs: Sequence[Any], blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
    """Run `open_attention` in place of the configured one, and pass the weights of some blocks to `intercept`.

    Contexts nest: the outer intercept sees the weights first.

    Args:
        configs: All configurations that choose the network's attention.
        blocks: Blocks whose weights to pass on.
        intercept: See `RecordedBlocks.show_attention`.
    """
    block_of = {part: block for block in blocks for part in block.modules()}
    outer = _INTERCEPT.get()

    def intercept_module(module: nn.Module, weights: Tensor) -> Tensor:
        if outer is not None:
            weights = outer(module, weights)
        return intercept(block_of[module], weights) if module in block_of else weights

    token = _INTERCEPT.set(intercept_module)
    try:
        with attributes(configs, _attn_implementation=OPEN_ATTENTION):
            yield
    finally:
        _INTERCEPT.reset(token)
