"""Divergence between two predictions of a network."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import Output, has_probabilities, infer_output


def kl_divergence(
    original: Float[Tensor, "*#b c"], changed: Float[Tensor, "*#b c"], output: Output = "softmax"
) -> Float[Tensor, "*b"]:
    """Compute KL(original || changed) between the probabilities of all classes, in nats, in single precision or better, in the graph.

    Args:
        original: Logits.
        changed: Logits.
        output: Meaning of the logits. For "sigmoid", as for a single logit, classes are independent: their divergences add up to that
            of the joint distribution.

    Raises:
        InvalidInputError: The outputs have no probabilities.
    """
    if not has_probabilities(output):
        raise InvalidInputError(
            f"expected a classifier to compare its probabilities (KL divergence), got outputs without probabilities (output {output!r}); "
            "choose what compares values"
        )
    first, second = at_least_float32(original), at_least_float32(changed)
    if infer_output(output, first.shape[-1]) == "sigmoid":
        terms = _weight_terms(logsigmoid(first), logsigmoid(second)) + _weight_terms(logsigmoid(-first), logsigmoid(-second))
    else:
        terms = _weight_terms(first.log_softmax(-1), second.log_softmax(-1))
    # Rounding may give less than 0.
    return terms.sum(-1).clamp(min=0)


def _weight_terms(log_first: Tensor, log_second: Tensor) -> Tensor:
    """Return the term of every outcome, from the logarithms of its probabilities."""
    probability = log_first.exp()
    # An impossible outcome adds nothing, also where its logit is minus infinity.
    return (probability * (log_first - log_second)).masked_fill(probability == 0, 0)
