"""Notice networks that return probabilities, whose softmax or sigmoid would be taken once more."""

import logging
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from vitrail.core.types import Images, Logits

if TYPE_CHECKING:
    from vitrail.adapters.classifier import Classifier

logger = logging.getLogger(__name__)

_SUSPECTS: "WeakKeyDictionary[Classifier, str]" = WeakKeyDictionary()
"""Networks that returned probabilities for all images so far, and were not reported; with the function that made them."""

KEEP_VALUES = (
    "View",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Flatten",
    "Select",
    "Slice",
    "Clone",
    "ToCopy",
    "Transpose",
    "Permute",
)
"""Beginnings of the names of operations, in a graph, that move or convert numbers only."""


def suspect_probabilities(classifier: "Classifier", images: Images, logits: Logits) -> None:
    """Keep in mind whether a network returns probabilities for noise, until there are images of the user."""
    if classifier.output == "none" or not _are_shares(logits):
        return
    if _sum_to_one(logits):
        _SUSPECTS[classifier] = "softmax"
    elif _ends_in_sigmoid(classifier, images[:1]):  # Numbers alone do not tell: logits may lie between 0 and 1.
        _SUSPECTS[classifier] = "sigmoid"


def warn_of_probabilities(classifier: "Classifier", logits: Logits) -> None:
    """Warn, once, of a network that returns probabilities for images of the user, too."""
    source = _SUSPECTS.pop(classifier, None)
    if source is None or not _are_shares(logits) or (source == "softmax" and not _sum_to_one(logits)):
        return
    taken = "sigmoid" if logits.shape[1] == 1 else classifier.output
    logger.warning(
        "%s returns probabilities, of which vitrail takes the %s once more; give the network without its own %s%s, or output='none' "
        "(--output none)",
        classifier.name,
        taken,
        source,
        "" if source == taken else f" and output={source!r}",
    )


def _are_shares(logits: Logits) -> bool:
    """Return whether all numbers lie between 0 and 1; unknown, and false, without numbers (on the meta device)."""
    return not logits.is_meta and bool(((logits >= 0) & (logits <= 1)).all())


def _sum_to_one(logits: Logits) -> bool:
    sums = logits.float().sum(1)
    return logits.shape[1] > 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _ends_in_sigmoid(classifier: "Classifier", images: Images) -> bool:
    """Return whether the graph of the logits begins with a sigmoid; a network without a graph does not tell."""
    try:
        with torch.enable_grad():
            node = classifier.logits(images.clone().requires_grad_()).grad_fn
    except RuntimeError:  # Weights created in inference mode, for one.
        return False
    while node is not None and node.name().startswith(KEEP_VALUES):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("Sigmoid")
