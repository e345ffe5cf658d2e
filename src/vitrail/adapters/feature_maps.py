"""Find the feature map of a network that vitrail does not know: the last one that its logits are computed from."""

from dataclasses import dataclass

import torch

from vitrail.adapters.checks.verification import remember
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.feature_search import FeatureSearch, Layout
from vitrail.core.autocast import without_autocast
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import uncompiled
from vitrail.core.types import Images

MAX_ATTEMPTS = 32
"""Most feature maps that are examined, from the last one."""

REMEDY = "name a layer whose output is one, by the option layer, or choose occlusion"


@dataclass(frozen=True)
class FeatureMap:
    """A layer whose output is a feature map.

    Attributes:
        layer: Name of the layer, as in `named_modules`.
        layout: Layout of its output.
    """

    layer: str
    layout: Layout


def find_feature_map(classifier: Classifier, images: Images, layer: str | None = None) -> FeatureMap:
    """Find the last layer whose output is a feature map, and from which alone the logits are computed.

    Runs the network on noise, once per network and shape of images. The output of a layer is a feature map if changing a region of the
    image changes the same region of the output most.

    Args:
        classifier: Any network.
        images: Images of the shape to explain.
        layer: Name of the layer to use; the logits must depend on it, but may depend on others, too.

    Raises:
        UnsupportedModelError: No layer is one for certain, or the given one is none.
    """
    key = ("feature map", layer, images.shape[1:])
    return remember(classifier, key, lambda: _find(classifier, images, layer))


def has_feature_map(classifier: Classifier) -> bool:
    """Return whether a network has a feature map, on images of the size that it is made for."""
    images = torch.zeros(1, classifier.preprocessing.num_channels, *classifier.probe_size)
    try:
        with classifier.verified("gradients"), classifier.inspecting():
            find_feature_map(classifier, images.to(classifier.device, classifier.dtype))
    except UnsupportedModelError:
        return False
    return True


def _find(classifier: Classifier, images: Images, layer: str | None) -> FeatureMap:
    with torch.no_grad(), without_autocast(classifier.device), uncompiled(classifier.module):
        search = FeatureSearch(classifier, images)
        search.expect_contrast()
        layouts = search.find_layouts(search.candidates if layer is None else [layer])
        for name, layout in list(layouts.items())[:MAX_ATTEMPTS]:
            if (layer is None and not search.decides(name)) or not search.has_gradient(name, layout):
                continue
            if layer is None and search.is_early(name):
                break
            return FeatureMap(name, layout)
    if layer is not None:
        raise UnsupportedModelError(
            f"expected the layer {layer!r} of {classifier.name} to give a feature map that the logits depend on, got "
            f"{search.describe(layer)}; name another one, such as the last stage of a convolutional network"
        )
    raise UnsupportedModelError(
        f"expected {classifier.name} to compute its logits from one feature map, found none for certain; {REMEDY}"
    )
