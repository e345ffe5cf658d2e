"""Notice networks that return probabilities, whose softmax or sigmoid would be taken once more."""

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
    if classifier.output != "none" and _name_source(logits):
        _SUSPECTS.add(classifier)


def warn_of_probabilities(classifier: "Classifier", logits: Logits) -> None:
    """Warn, once, of a network that returns probabilities for images of the user, too."""
    if classifier not in _SUSPECTS:
        return
    _SUSPECTS.discard(classifier)
    if (source := _name_source(logits)) is not None:
        logger.warning(
            "%s returns probabilities, of which vitrail takes the %s once more; give the network without its own %s%s, or output='none' "
            "(--output none)",
            classifier.name,
            classifier.output,
            source,
            "" if source == classifier.output else f" and output={source!r}",
        )


def _name_source(logits: Logits) -> str | None:
    """Say whether all rows look like the result of a softmax or of a sigmoid; None for others and without numbers (on the meta device)."""
    if logits.shape[1] == 1 or logits.is_meta or not bool(((logits >= 0) & (logits <= 1)).all()):
        return None
    sums = logits.float().sum(1)
    if torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return "softmax"
    return "sigmoid" if bool(((logits > 0) & (logits < 1)).all()) else None
