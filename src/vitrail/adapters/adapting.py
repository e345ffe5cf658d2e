"""Adapt a network: as what its library can look into, else as a plain classifier."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

from torch import nn

from vitrail.adapters.class_name_files import read_names
from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.libraries import find_library
from vitrail.adapters.photo_settings import describe_photos, is_guessed, refuse_second_normalization
from vitrail.adapters.plain import PlainClassifier, adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.unwrap import unwrap
from vitrail.adapters.wrappers import Wrapper
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import exclusive
from vitrail.core.outputs import Output

logger = logging.getLogger(__name__)

BY_PREPROCESSING = "preprocessing=vitrail.Preprocessing(size, mean=..., std=..., crop_fraction=...)"

_guessed = WeakSet[nn.Module]()
"""Networks for which the log says what is assumed of photos."""

OUTSIDE = "%s is explained from outside, by methods for any classifier: %s"


def adapt(
    module: nn.Module,
    *,
    name: str = "",
    class_names: str | Path | Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    output: Output | None = None,
    output_key: int | str | None = None,
) -> Classifier:
    """Adapt a network: to a `ViTAdapter` if vitrail can look into it as a Vision Transformer, else to a `PlainClassifier`.

    A network inside a wrapper, such as those of `torch.compile`, PEFT or Lightning, is looked into where it is certain that the wrapper
    passes its output on; see `vitrail.adapters.unwrap`. Images are always those that `module` takes.

    Args:
        module: Any network from images to logits.
        name: Name in results; defaults to the name of the class.
        class_names: One per class, if known: a list, a text with commas, or a file (one name per line, or JSON).
        preprocessing: Turns a photo into the network's input; defaults to the network's own, if it has one, else ImageNet's. It must not
            normalize where the module normalizes its images itself.
        output: Meaning of the logits, see `vitrail.core.outputs.Output`; defaults to what the network's configuration says, else to
            "sigmoid" for a single logit and "softmax" for several.
        output_key: Index or key of the logits, where the network returns a tuple, a dictionary or an object.

    Raises:
        UnsupportedModelError: The network is no classifier of images; the message tells why.
        InvalidInputError: Class names that do not fit, or a preprocessing that normalizes a second time.
    """
    names = read_names(class_names) if class_names else ()
    if not isinstance(module, nn.Module):
        raise UnsupportedModelError(_explain_no_module(module))
    with exclusive(module):
        found = unwrap(module, output_key)
        title = name or type(found.module).__name__
        if found.changed_before and preprocessing is None:
            raise UnsupportedModelError(
                f"cannot tell how photos are prepared for {title}: it changes its images before {found.changed_before} by more "
                "than a normalization of pixels; give adapt its preprocessing=, which is "
                "Preprocessing.unnormalized(3, size=(height, width)) if it takes pixels from 0 to 1"
            )
        own = preprocessing or found.preprocessing
        if found.normalizes and found.preprocessing is not None:
            refuse_second_normalization(preprocessing or found.preprocessing, found.preprocessing, title)
            logger.info("%s normalizes its images itself: photos are scaled only, and tensors must not be normalized", title)
        elif found.changed_before and preprocessing is not None and any(preprocessing.mean):
            logger.warning(
                "photos are normalized, then changed by %s before %s: unless it expects that, give mean 0 and std 1",
                *(title, found.changed_before),
            )
        elif found.preprocessing is not None and preprocessing is None:
            logger.info("photos are prepared for %s as for the network inside it", title)
        classifier = view(found.module, title, names, own, output_key=found.output_key, note=found.note)
        if preprocessing is None and not found.normalizes and is_guessed(classifier) and found.module not in _guessed:
            _guessed.add(found.module)
            logger.warning("%s", describe_photos(classifier.preprocessing, BY_PREPROCESSING))
        if found.module is not module:
            classifier = replace(classifier, wrapper=Wrapper(module, output_key))
    if classifier.class_names:
        check_class_names(classifier.class_names, classifier.num_classes, classifier.output)
    return classifier if output is None else replace(classifier, output=output)


def _explain_no_module(value: Any) -> str:
    held = [f".{key}" for key, part in getattr(value, "__dict__", {}).items() if isinstance(part, nn.Module)]
    remedy = f"give the network that it holds: {', '.join(held)}" if held else "names and files go to vitrail.load"
    return f"expected a torch.nn.Module, got {type(value).__name__}; {remedy}"


def view(
    module: nn.Module,
    name: str,
    class_names: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    *,
    output_key: int | str | None = None,
    note: str = "",
) -> Classifier:
    """View a network as what its library can look into, else, with a message, as a plain classifier.

    Args:
        class_names: One per class; defaults to the network's own.
        preprocessing: Defaults to the network's own.
        output_key: Index or key of the logits in what it returns.
        note: What else is known of why it cannot be looked into.
    """
    classifier = _look(module, name, class_names, preprocessing, note)
    return classifier if output_key is None else replace(classifier, output_key=output_key)


def _look(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None, note: str
) -> Classifier:
    library = find_library(module)
    if library is None:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        reason = note or f"vitrail has no adapter for a {kind}; see docs/adapters.md to write one"
    else:
        try:
            classifier = library.adapt(module, name, class_names, preprocessing)
            if isinstance(classifier, PlainClassifier):  # An embedding of another architecture.
                logger.info(OUTSIDE, name, classifier.reason)
            return classifier
        except UnsupportedModelError as error:
            if not library.plain:
                raise
            reason = f"{error}; {note}" if note else str(error)
        preprocessing = preprocessing or library.preprocessing(module)
        class_names = class_names or library.class_names(module)
    logger.info(OUTSIDE, name, reason)
    # Names are checked once the place of the logits is known.
    return replace(adapt_plain(module, name, (), preprocessing, reason=reason), class_names=class_names)
