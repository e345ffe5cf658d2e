"""Attention weights of torch's MultiheadAttention, in the graph."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from vitrail.adapters.recording import BlockIntercept
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original, replaced_methods


@contextmanager
def show_torch_attention(
    name: str, blocks: Sequence[nn.Module], attentions: Sequence[nn.Module], intercept: BlockIntercept
) -> Iterator[None]:
    """Pass the attention weights of blocks to `intercept`; see `vitrail.adapters.recording.RecordedBlocks.show_attention`.

    The weights that torch's MultiheadAttention returns are not on the path of the gradients, so its arithmetic is repeated here.

    Args:
        name: Name of the network, for messages.
        attentions: The self-attention of every block.
        intercept: Called with a block and its weights.

    Raises:
        UnsupportedModelError: An attention is something else, or does not put the batch first.
    """
    modules: list[Any] = [original(attention) for attention in attentions]
    for index, attention in enumerate(modules):
        if type(attention) is not nn.MultiheadAttention or not attention._qkv_same_embed_dim or not attention.batch_first:
            raise UnsupportedModelError(
                f"expected torch's MultiheadAttention in every block of {name}, got {type(attention).__name__} in block {index}, "
                "whose attention vitrail cannot see; merge adapters such as LoRA into the weights first"
            )
    opened = [_OpenAttention(attention, block, intercept) for block, attention in zip(blocks, modules, strict=True)]
    with replaced_methods("forward", [(attention.attention, attention) for attention in opened]):
        yield


class _OpenAttention:
    """The forward pass of self-attention, batch first, with the attention weights in the graph."""

    def __init__(self, attention: Any, block: nn.Module, intercept: BlockIntercept) -> None:
        outer = vars(attention).get("forward")
        self.attention, self.block = attention, block
        # Nested contexts: the outer intercepts come first.
        self.intercepts: list[BlockIntercept] = (
            [*outer.intercepts, intercept] if isinstance(outer, _OpenAttention) else [intercept]
        )

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **options: Any) -> tuple[Tensor, None]:
        if key is not query or value is not query or options.get("attn_mask") is not None:
            raise UnsupportedModelError(
                "expected self-attention without a mask, got other keys, values or a mask; write an adapter"
            )
        attention = self.attention
        projected = nn.functional.linear(query, attention.in_proj_weight, attention.in_proj_bias)
        queries, keys, values = projected.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
        weights = (queries * attention.head_dim**-0.5 @ keys.mT).softmax(-1)
        weights = nn.functional.dropout(weights, attention.dropout, attention.training)
        for intercept in self.intercepts:
            weights = intercept(self.block, weights)
        heads = (weights @ values).transpose(1, 2).flatten(2)
        # As torch does: the projection's weights without its hooks.
        return nn.functional.linear(heads, attention.out_proj.weight, attention.out_proj.bias), None
