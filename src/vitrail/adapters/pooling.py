"""Weights by which heads pool tokens, and pairwise attention terms of the kept patches."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Kept, Tokens


def is_feature_head(head: nn.Module) -> bool:
    """Return whether a head passes features through without computing anything."""
    return all(isinstance(part, nn.Identity | nn.Dropout | nn.Sequential) for part in head.modules())


def class_token_weights(num_tokens: int, count: int, like: Tensor) -> Float[Tensor, " t"]:
    """Weight the first `count` tokens (class, distillation) equally."""
    weights = like.new_zeros(num_tokens)
    weights[:count] = 1 / count
    return weights


def patch_mean_weights(num_tokens: int, num_prefix_tokens: int, like: Tensor) -> Float[Tensor, " t"]:
    """Weight all patches equally, and no prefix token."""
    weights = like.new_zeros(num_tokens)
    weights[num_prefix_tokens:] = 1 / max(num_tokens - num_prefix_tokens, 1)
    return weights


def uniform_weights(num_tokens: int, like: Tensor) -> Float[Tensor, " t"]:
    """Weight all tokens equally."""
    return like.new_full((num_tokens,), 1 / num_tokens)


def select_kept_pairs(bias: Float[Tensor, "*one h t t"], kept: Kept, num_prefix_tokens: int = 1) -> Float[Tensor, "b h t2 t2"]:
    """Select the rows and columns of the class token, if there is one, and of the kept patches."""
    tokens = torch.nn.functional.pad(kept + num_prefix_tokens, (num_prefix_tokens, 0))
    return bias.flatten(0, -3)[:, tokens[:, :, None], tokens[:, None, :]].transpose(0, 1)


def expect_kept(tokens: Tokens, num_prefix_tokens: int, grid_size: tuple[int, int], kept: Kept | None, name: str) -> None:
    """Refuse a subset of the patches without their positions, for attention that depends on positions."""
    num_given, num_all = tokens.shape[1] - num_prefix_tokens, grid_size[0] * grid_size[1]
    expected = num_all if kept is None else kept.shape[1]
    if num_given != expected:
        raise InvalidInputError(
            f"expected {expected} patch tokens ({'all of ' if kept is None else 'kept of '}{grid_size[0]}x{grid_size[1]}) after "
            f"{num_prefix_tokens} prefix tokens, got {num_given}; the attention of {name} depends on positions: pass `kept`"
        )
