"""How heads read tokens, and what is left of pairwise terms when patches are removed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Kept, Tokens


def plain_width(*heads: nn.Module) -> int:
    """How many logits heads give that are bare linear layers, or 0: of others only a forward pass tells."""
    widths = {head.out_features if type(head) is nn.Linear and not head._forward_hooks else 0 for head in heads}
    return widths.pop() if len(widths) == 1 else 0


def gives_features(head: nn.Module) -> bool:
    """Whether a head passes features on: nothing in it computes."""
    return all(isinstance(part, nn.Identity | nn.Dropout | nn.Sequential) for part in head.modules())


def class_tokens(num_tokens: int, count: int, like: Tensor) -> Float[Tensor, " t"]:
    """The first tokens (class, distillation) in equal parts."""
    weights = like.new_zeros(num_tokens)
    weights[:count] = 1 / count
    return weights


def patch_mean(num_tokens: int, num_prefix_tokens: int, like: Tensor) -> Float[Tensor, " t"]:
    """All patches in equal parts, no prefix token."""
    weights = like.new_zeros(num_tokens)
    weights[num_prefix_tokens:] = 1 / max(num_tokens - num_prefix_tokens, 1)
    return weights


def uniform(num_tokens: int, like: Tensor) -> Float[Tensor, " t"]:
    """All tokens in equal parts."""
    return like.new_full((num_tokens,), 1 / num_tokens)


def kept_pairs(bias: Float[Tensor, "*one h t t"], kept: Kept) -> Float[Tensor, "b h t2 t2"]:
    """Rows and columns of the class token and of the kept patches."""
    with_class = torch.nn.functional.pad(kept + 1, (1, 0))
    return bias.flatten(0, -3)[:, with_class[:, :, None], with_class[:, None, :]].transpose(0, 1)


def expect_kept(tokens: Tokens, num_prefix_tokens: int, grid_size: tuple[int, int], kept: Kept | None, name: str) -> None:
    """Refuse a part of the patches without their places, for attention that depends on places."""
    given, whole = tokens.shape[1] - num_prefix_tokens, grid_size[0] * grid_size[1]
    expected = whole if kept is None else kept.shape[1]
    if given != expected:
        raise InvalidInputError(
            f"expected {expected} patch tokens ({'all of ' if kept is None else 'kept of '}{grid_size[0]}x{grid_size[1]}) after "
            f"{num_prefix_tokens} prefix tokens, got {given}; the attention of {name} depends on places: say which patches are kept"
        )
