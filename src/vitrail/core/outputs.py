"""Meaning of a network's outputs: one class among all, independent classes, plain numbers, or an embedding."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.float32 import at_least_float32
from vitrail.core.registry import unknown_name
from vitrail.core.types import Targets

Output = Literal["softmax", "sigmoid", "none", "embedding"]
"""Meaning of a network's outputs.

- "softmax": logits of exclusive classes, whose softmax is their probability.
- "sigmoid": logits of independent classes, whose sigmoids are their probabilities.
- "none": numbers without probabilities, such as a regression or a similarity; they count as they are, and predict no class.
- "embedding": coordinates of an embedding, which mean nothing one by one.
"""


def check_output(output: str) -> None:
    """Refuse an unknown `Output`.

    Raises:
        UnknownNameError: There is no such output.
    """
    if output not in get_args(Output):
        raise unknown_name("output", output, list(get_args(Output)))


def infer_output(output: Output, num_logits: int) -> Output:
    """Return "sigmoid" for a single logit of a softmax, which would always be 1; else `output`."""
    return "sigmoid" if num_logits == 1 and output == "softmax" else output


def probabilities(logits: Float[Tensor, "*b c"], output: Output = "softmax") -> Float[Tensor, "*b c"]:
    """Compute the probability of every class, in single precision or better; outputs without probabilities stay as they are."""
    logits = at_least_float32(logits)
    meaning = infer_output(output, logits.shape[-1])
    if meaning == "sigmoid":
        return logits.sigmoid()
    return logits.softmax(-1) if meaning == "softmax" else logits


def select_targets(values: Float[Tensor, "b ... c"], targets: Targets) -> Float[Tensor, "b ..."]:
    """Return the number of every image's own class."""
    index = targets.view(-1, *[1] * (values.ndim - 1)).expand(*values.shape[:-1], 1)
    return values.gather(-1, index).squeeze(-1)


def has_probabilities(output: Output) -> bool:
    """Return whether outputs are logits of classes, which have probabilities."""
    return output in ("softmax", "sigmoid")


def value_name(output: Output) -> str:
    """Return what a number of `probabilities` is called: a probability or, where there are none, a value."""
    return "probability" if has_probabilities(output) else "value"


def format_value(value: float, output: Output, digits: int = 1) -> str:
    """Format a number of `probabilities`: a probability in per cent with so many digits, a value with four figures."""
    return f"{value:.{digits}%}" if has_probabilities(output) else f"{value:.4g}"


def ranking(logits: Float[Tensor, "*b c"], output: Output = "softmax") -> Float[Tensor, "*b c"]:
    """Return scores that order the classes by probability."""
    # Sigmoids of large logits are all 1 and would be tied.
    return probabilities(logits, output) if infer_output(output, logits.shape[-1]) == "softmax" else logits


def decisions(logits: Float[Tensor, "*b c"]) -> Int[Tensor, "*b"]:
    """Return the predicted class: that of the largest logit; for a single logit 1 if its probability is at least 0.5, else 0."""
    return logits.argmax(-1) if logits.shape[-1] > 1 else (logits[..., 0] >= 0).long()


def same_decision(
    first: Float[Tensor, "*#b c"], second: Float[Tensor, "*#b c"], output: Output = "softmax"
) -> Float[Tensor, "*b"]:
    """Return 1 where two predictions are the same class, else 0; NaN for outputs that predict no class."""
    same = (decisions(first) == decisions(second)).to(torch.promote_types(first.dtype, torch.float32))
    return same if has_probabilities(output) else torch.full_like(same, torch.nan)


SMALLEST_SHARE = 0.0005
"""Smallest share that does not round to 0.0%."""


def format_share(part: float, whole: float) -> str:
    """Format a part of a logit in per cent; empty where it is no share of it: of the other sign, or larger than the logit."""
    if not whole or not 0 <= part / whole <= 1:
        return ""
    return "< 0.1%" if 0 < part / whole < SMALLEST_SHARE else f"{part / whole:.1%}"
