"""How far two answers of a network are apart."""

import torch
from jaxtyping import Float
from torch import Tensor


def kl_divergence(original: Float[Tensor, "*#b c"], changed: Float[Tensor, "*#b c"]) -> Float[Tensor, "*b"]:
    """KL(original || changed) between the softmax of logits, in nats, in single precision or better; in the graph."""
    own, other = (logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1) for logits in (original, changed))
    share = own.exp()
    # A class that was never possible adds nothing, also where its logit is minus infinity; rounding may leave less than 0.
    return (share * (own - other)).masked_fill(share == 0, 0).sum(-1).clamp(min=0)
