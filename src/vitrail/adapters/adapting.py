"""Adapt a network: as what its library can look into, else as a plain classifier."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.libraries import find_library
from vitrail.adapters.plain import adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original
from vitrail.core.outputs import Output

logger = logging.getLogger(__name__)


def adapt(
    module: nn.Module,
    *,
    name: str = "",
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    output: Output | None = None,
) -> Classifier:
    """Adapt a network: to a `ViTAdapter` if vitrail can look into it as a Vision Transformer, else to a `PlainClassifier`.

    Args:
        module: Any network from images to logits.
        name: Name in results; defaults to the name of the class.
        class_names: One per class, if known.
        preprocessing: Turns a photo into the network's input; defaults to the network's own, if it has one, else ImageNet's.
        output: Meaning of the logits: "softmax", one class among all, or "sigmoid", each class independently (multi-label); defaults
            to the network's configuration, else "softmax". A single logit always means its sigmoid.

    Raises:
        UnsupportedModelError: The network is no classifier of images; the message tells why.
    """
    if not isinstance(module, nn.Module):
        raise UnsupportedModelError(
            f"expected a torch.nn.Module, got {type(module).__name__}; names and files go to vitrail.load"
        )
    module = original(module)
    classifier = view(module, name or type(module).__name__, tuple(class_names), preprocessing)
    if classifier.class_names:
        check_class_names(classifier.class_names, classifier.num_classes)
    return classifier if output is None else replace(classifier, output=output)


def view(
    module: nn.Module, name: str, class_names: tuple[str, ...] = (), preprocessing: Preprocessing | None = None
) -> Classifier:
    """View a network as what its library can look into, else, with a message, as a plain classifier."""
    library = find_library(module)
    if library is None:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        reason = f"vitrail has no adapter for a {kind}; see docs/adapters.md to write one"
    else:
        try:
            return library.adapt(module, name, class_names, preprocessing)
        except UnsupportedModelError as error:
            if not library.plain:
                raise
            reason = str(error)
        preprocessing = preprocessing or library.preprocessing(module)
        class_names = class_names or library.class_names(module)
    logger.info("%s is explained from outside, by methods for any classifier: %s", name, reason)
    return adapt_plain(module, name, class_names, preprocessing, reason=reason)
