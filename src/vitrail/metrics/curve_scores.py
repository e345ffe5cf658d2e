"""What a curve measures: from the logits of changed images to one number each."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.divergence import kl_divergence
from vitrail.core.outputs import Output, decisions, probabilities
from vitrail.core.types import Logits, Targets
from vitrail.metrics.protocols import Score


def measure(
    logits: Float[Tensor, "b curves s c"], original: Logits, targets: Targets, score: Score, output: Output = "softmax"
) -> Float[Tensor, "b curves s"]:
    """Measure every point of the curves of a batch.

    Args:
        logits: Of the changed images, in single precision or better.
        original: Logits of the images as they are; only "kl" looks at them.
        targets: The explained classes.
        score: As `Curve` explains it.
        output: What logits mean, see `Classifier.output`.
    """
    if score == "kl":
        return kl_divergence(original[:, None, None], logits, output)
    if score == "top1":
        decided = decisions(logits)
        # A single class is a yes or no, not one of several.
        hits = (decided == (targets[:, None, None] if logits.shape[-1] > 1 else 1)).to(logits)
        return hits.where(logits.isfinite().all(-1), torch.nan)
    values = logits if score == "logit" else probabilities(logits, output)
    return values.gather(3, targets[:, None, None, None].expand(*values.shape[:3], 1)).squeeze(3)
