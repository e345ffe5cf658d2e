"""timm's attention with a `forward` that somebody replaced: the same as the class's own, or not to be believed."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import attributes, forward_hooks


@contextmanager
def compare_with_class(replaced: Sequence[Any]) -> Iterator[None]:
    """Run the class's own forward pass beside the replaced one of each attention, on the same tokens, for the time of the block.

    Weights that pass `attn_drop` in a replaced forward may be for show, or be changed before they meet the values. Where the class's
    own forward, which is known, shows the same weights and gives the same output, they are those that count.

    Raises:
        UnsupportedModelError: The two differ.
    """
    shown: list[Tensor] = []

    def note(drop: nn.Module, inputs: tuple[Any, ...], weights: Tensor) -> None:
        shown.append(weights)

    def compare(attention: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        mine = [output, *shown]
        shown.clear()
        own = type(attention).forward(attention, *inputs, **options)
        theirs = [own, *shown]
        shown.clear()
        if len(mine) != len(theirs) or not all(map(_close, mine, theirs)):
            raise UnsupportedModelError(
                f"the forward of a {type(attention).__name__} was replaced by one that does not use the attention weights that it shows, "
                "or shows them more than once; let only the weights that meet the values pass attn_drop, or restore the forward"
            )

    with ExitStack() as stack:
        stack.enter_context(attributes(replaced, fused_attn=False))
        stack.enter_context(forward_hooks([(attention.attn_drop, note) for attention in replaced]))
        for attention in replaced:
            stack.callback(attention.register_forward_hook(compare, with_kwargs=True).remove)
        yield


def _close(mine: Any, theirs: Tensor) -> bool:
    tolerance = 1e-4 if theirs.dtype in (torch.float32, torch.float64) else 0.05
    same_shape = isinstance(mine, Tensor) and mine.shape == theirs.shape
    return same_shape and bool((mine - theirs).abs().max() <= tolerance * theirs.abs().max())
