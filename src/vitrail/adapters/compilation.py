"""Compile a network by `torch.compile`, for its plain forward passes."""

import torch

from vitrail.adapters.classifier import Classifier
from vitrail.core.errors import UnsupportedModelError, first_line
from vitrail.core.hooks import inspecting


def compile_network(classifier: Classifier) -> None:
    """Compile a network in place, for batches of any size, and try it once, which takes half a minute.

    Only passes that record or change nothing inside of the network run compiled; their logits differ by rounding.

    Raises:
        UnsupportedModelError: torch cannot compile the network, or there is no C++ compiler; the network is unchanged.
    """
    module = classifier.module
    images = torch.zeros(2, classifier.preprocessing.num_channels, *classifier.probe_size, device=classifier.device)
    module.compile(dynamic=True)
    try:
        with inspecting(module), torch.no_grad():
            classifier.logits(images)
    except Exception as error:  # Tracers, code generators and compilers raise errors of many kinds.
        module._compiled_call_impl = None
        raise UnsupportedModelError(
            f"expected a network that torch.compile compiles, got {classifier.name}, which fails: {first_line(error)}; load it without "
            "compile"
        ) from error


def is_compiled(module: torch.nn.Module) -> bool:
    """Return whether plain forward passes of a network run compiled."""
    return module._compiled_call_impl is not None
