"""Notice networks that return probabilities, whose softmax would be taken once more."""

import logging
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch

from vitrail.core.types import Logits

if TYPE_CHECKING:
    from vitrail.adapters.classifier import Classifier

logger = logging.getLogger(__name__)

_SUSPECTS: "WeakSet[Classifier]" = WeakSet()
"""Networks that returned probabilities for all images so far, and were not reported."""


def suspect_probabilities(classifier: "Classifier", logits: Logits) -> None:
    """Keep in mind whether a network returns probabilities for noise, until there are images of the user."""
    if classifier.output == "softmax" and _are_probabilities(logits):
        _SUSPECTS.add(classifier)


def warn_of_probabilities(classifier: "Classifier", logits: Logits) -> None:
    """Warn, once, of a network that returns probabilities for images of the user, too."""
    if classifier not in _SUSPECTS:
        return
    _SUSPECTS.discard(classifier)
    if _are_probabilities(logits):
        logger.warning(
            "%s returns probabilities, of which vitrail takes the softmax once more; give the network without its own softmax, or "
            "output='none' (--output none)",
            classifier.name,
        )


def _are_probabilities(logits: Logits) -> bool:
    """Return whether every row looks like the result of a softmax; unknown, and false, without numbers (on the meta device)."""
    sums = logits.float().sum(1)
    return (
        logits.shape[1] > 1
        and not logits.is_meta
        and bool((logits >= 0).all())
        and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    )
