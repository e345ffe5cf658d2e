"""How far two answers of a network are apart."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from vitrail.core.outputs import Output, infer_output


def kl_divergence(
    original: Float[Tensor, "*#b c"], changed: Float[Tensor, "*#b c"], output: Output = "softmax"
) -> Float[Tensor, "*b"]:
    """KL(original || changed) between the probabilities of all classes, in nats, in single precision or better; in the graph.

    Args:
        original: Logits.
        changed: Logits.
        output: What they mean. For "sigmoid", as for a single logit, every class is there or not by itself: the divergences of all
            classes add up to that of their joint distribution.
    """
    own, other = (logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in (original, changed))
    if infer_output(output, own.shape[-1]) == "sigmoid":
        apart = _weighted(logsigmoid(own), logsigmoid(other)) + _weighted(logsigmoid(-own), logsigmoid(-other))
    else:
        apart = _weighted(own.log_softmax(-1), other.log_softmax(-1))
    # Rounding may leave less than 0.
    return apart.sum(-1).clamp(min=0)


def _weighted(own: Tensor, other: Tensor) -> Tensor:
    """What every outcome adds, from the logarithms of its probabilities."""
    share = own.exp()
    # An outcome that was never possible adds nothing, also where its logit is minus infinity.
    return (share * (own - other)).masked_fill(share == 0, 0)
