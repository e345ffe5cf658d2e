"""Meaning of a network's logits: one class among all, or independent classes."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.registry import unknown_name

Output = Literal["softmax", "sigmoid"]
"""How logits become probabilities: "softmax" over exclusive classes, or "sigmoid" of independent ones."""


def check_output(output: str) -> None:
    """Refuse an unknown `Output`.

    Raises:
        UnknownNameError: There is no such output.
    """
    if output not in get_args(Output):
        raise unknown_name("output", output, list(get_args(Output)))


def infer_output(output: Output, num_logits: int) -> Output:
    """Return "sigmoid" for a single logit, whose softmax is always 1; else `output`."""
    return "sigmoid" if num_logits == 1 else output


def probabilities(logits: Float[Tensor, "*b c"], output: Output = "softmax") -> Float[Tensor, "*b c"]:
    """Compute the probability of every class, in single precision or better; of a single logit always its sigmoid."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sigmoid() if infer_output(output, logits.shape[-1]) == "sigmoid" else logits.softmax(-1)


def ranking(logits: Float[Tensor, "*b c"], output: Output = "softmax") -> Float[Tensor, "*b c"]:
    """Return scores that order the classes by probability."""
    # Sigmoids of large logits are all 1 and would be tied.
    return logits if infer_output(output, logits.shape[-1]) == "sigmoid" else probabilities(logits, output)


def decisions(logits: Float[Tensor, "*b c"]) -> Int[Tensor, "*b"]:
    """Return the predicted class: that of the largest logit; for a single logit 1 if its probability is at least 0.5, else 0."""
    return logits.argmax(-1) if logits.shape[-1] > 1 else (logits[..., 0] >= 0).long()
