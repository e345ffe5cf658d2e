"""Backbones of an INTR from timm: any network with intermediate features, such as DINOv2 or ConvNeXt."""

from typing import Any

import timm
from timm.utils.model import freeze_batch_norm_2d

from vitrail.adapters.timm.creation import NOT_SHAPE, make_timm
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.registry import unknown_name
from vitrail.core.types import Images
from vitrail.models.intr.backbone import Backbone, Features

ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True}
"""Options that let a ViT take images of any size; other networks need none."""


class TimmBackbone(Backbone):
    """The last features of a timm network.

    Args:
        name: As `timm.create_model` takes it.
        frozen: Whether batch norms, if any, keep their statistics.
        pretrained: Whether to start from timm's weights.
        options: Arguments of `timm.create_model`, such as `output_stride` of a ConvNeXt.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        UnsupportedModelError: The network does not return intermediate features.
        InvalidInputError: The network does not have these options.
    """

    def __init__(self, name: str, frozen: bool = True, pretrained: bool = False, **options: Any) -> None:
        super().__init__()
        # Names and options may come from a weight file, which must not make timm fetch or read other files.
        if not timm.is_model(name):
            raise unknown_name("timm model", name, timm.list_models())
        if unknown := sorted((NOT_SHAPE | {"in_chans", "num_classes"}) & set(options)):
            raise InvalidInputError(f"expected options of the shape of timm:{name}, got {', '.join(unknown)}")
        options["num_classes"] = 0
        try:
            network: Any = make_timm(name, pretrained, ANY_SIZE | options)
        except InvalidInputError:
            network = make_timm(name, pretrained, options)
        if not hasattr(network, "forward_intermediates") or not hasattr(network, "feature_info"):
            raise UnsupportedModelError(
                f"expected a timm network that gives its features as backbone, got timm:{name}, which does not"
            )
        network.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        last = network.feature_info[-1]
        self.num_features, self.stride = int(last["num_chs"]), int(last["reduction"])
        self.network = freeze_batch_norm_2d(network) if frozen else network

    def forward(self, images: Images) -> Features:
        net: Any = self.network
        features: list[Features] = net.forward_intermediates(
            images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return features[-1]
