"""What the logits of a network mean: one class among all of them, or every class by itself."""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.registry import unknown_name

Output = Literal["softmax", "sigmoid"]
"""How logits become probabilities: "softmax" over classes of which one is there, or "sigmoid" of every class by itself."""


def check_output(output: str) -> None:
    """Refuse what is no `Output`.

    Raises:
        UnknownNameError: It is another name.
    """
    if output not in get_args(Output):
        raise unknown_name("output", output, list(get_args(Output)))


def infer_output(output: Output, num_logits: int) -> Output:
    """The output that a number of logits leaves: the softmax of a single logit would be 1 whatever the image shows."""
    return "sigmoid" if num_logits == 1 else output


def probabilities(logits: Float[Tensor, "*b c"], output: Output = "softmax") -> Float[Tensor, "*b c"]:
    """The probability of every class, in single precision or better; of a single logit always its sigmoid."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sigmoid() if infer_output(output, logits.shape[-1]) == "sigmoid" else logits.softmax(-1)


def ranking(logits: Float[Tensor, "*b c"], output: Output = "softmax") -> Float[Tensor, "*b c"]:
    """Numbers that order the classes, the most probable one first."""
    # Sigmoids of large logits are all 1, and leave the order to chance.
    return logits if infer_output(output, logits.shape[-1]) == "sigmoid" else probabilities(logits, output)


def decisions(logits: Float[Tensor, "*b c"]) -> Int[Tensor, "*b"]:
    """What the network decides: the class of the largest logit; of a single logit 1 where its class is at least as likely as not."""
    return logits.argmax(-1) if logits.shape[-1] > 1 else (logits[..., 0] >= 0).long()
