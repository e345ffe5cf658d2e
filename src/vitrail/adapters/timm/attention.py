"""Check timm's attention with a replaced `forward` against the forward pass of its class."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import attributes, forward_hooks


@contextmanager
def compare_with_class_forward(replaced: Sequence[Any]) -> Iterator[None]:
    """Compare, inside the block, each replaced forward pass with that of its class on the same tokens.

    Weights that pass `attn_drop` in a replaced forward may be unused, or changed before they multiply the values. If the class's own
    forward shows the same weights and returns the same output, they are the weights in use.

    Raises:
        UnsupportedModelError: The two differ.
    """
    shown: list[Tensor] = []

    def keep(drop: nn.Module, inputs: tuple[Any, ...], weights: Tensor) -> None:
        shown.append(weights)

    def compare(attention: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        replaced_results = [output, *shown]
        shown.clear()
        class_output = type(attention).forward(attention, *inputs, **options)
        class_results = [class_output, *shown]
        shown.clear()
        if len(replaced_results) != len(class_results) or not all(map(_is_close, replaced_results, class_results)):
            raise UnsupportedModelError(
                f"the forward of a {type(attention).__name__} was replaced by one that does not use the attention weights that it shows, "
                "or shows them more than once; let only the weights that meet the values pass attn_drop, or restore the forward"
            )

    with ExitStack() as stack:
        stack.enter_context(attributes(replaced, fused_attn=False))
        stack.enter_context(forward_hooks([(attention.attn_drop, keep) for attention in replaced]))
        for attention in replaced:
            stack.callback(attention.register_forward_hook(compare, with_kwargs=True).remove)
        yield


def _is_close(actual: Any, expected: Tensor) -> bool:
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 0.05
    same_shape = isinstance(actual, Tensor) and actual.shape == expected.shape
    return same_shape and bool((actual - expected).abs().max() <= tolerance * expected.abs().max())
