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
    """The features of a timm network: the last ones, or those of another layer.

    Args:
        name: As `timm.create_model` takes it.
        frozen: Whether batch norms, if any, keep their statistics.
        pretrained: Whether to start from timm's weights.
        out_indices: Index of the features to take, among those of `network.feature_info`; later layers are left out.
        options: Arguments of `timm.create_model`, such as `output_stride` of a ConvNeXt.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        UnsupportedModelError: The network does not return intermediate features.
        InvalidInputError: The network does not have these options.
    """

    def __init__(
        self, name: str, frozen: bool = True, pretrained: bool = False, out_indices: tuple[int, ...] = (-1,), **options: Any
    ) -> None:
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
        num_layers = len(network.feature_info)
        if not isinstance(out_indices, tuple) or len(out_indices) != 1 or out_indices[0] not in range(-num_layers, num_layers):
            raise InvalidInputError(
                f"expected out_indices=[INDEX], from 0 to {num_layers - 1} for timm:{name}, got {out_indices}"
            )
        self.layer = out_indices[0] % num_layers
        network.prune_intermediate_layers([self.layer], prune_norm=False, prune_head=True)
        features = network.feature_info[self.layer]
        self.num_features, self.stride = int(features["num_chs"]), int(features["reduction"])
        self.network = freeze_batch_norm_2d(network) if frozen else network

    def forward(self, images: Images) -> Features:
        net: Any = self.network
        features: list[Features] = net.forward_intermediates(
            images, indices=[self.layer], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return features[-1]
