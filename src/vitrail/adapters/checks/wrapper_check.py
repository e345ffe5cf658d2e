"""Check that a wrapper still gives the logits of the network that was found inside it."""

import torch

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.logits import expect_logits, logits_agree
from vitrail.adapters.wrappers import strip
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import inspecting, uncompiled
from vitrail.core.types import Images, Logits


@torch.no_grad()
def check_wrapper(classifier: Classifier, images: Images, expected: Logits) -> None:
    """Check that the wrapper of a network, where there is one, gives the logits of the network inside.

    Args:
        images: Several images.
        expected: The logits that the network inside gives for them.

    Raises:
        UnsupportedModelError: It gives others.
    """
    wrapper = classifier.wrapper
    if wrapper is None or strip(wrapper.module) is classifier.module:
        return
    module, key, name = wrapper.module, wrapper.output_key, type(wrapper.module).__name__
    with inspecting(module), uncompiled(module):
        output = module(images)
    logits = expect_logits(output if key is not None else getattr(output, "logits", output), len(images), name, key)
    if classifier.directions is not None:
        logits = classifier.directions(logits)
    if not logits_agree(classifier.module, logits, expected):
        raise UnsupportedModelError(
            f"the {name} around it gives other logits by now, or for images of this size; adapt the {name} anew, or the network inside"
        )
