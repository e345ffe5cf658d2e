"""Backbones, which turn an image into a grid of features: the interface, and torchvision's ResNets."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError, first_line
from vitrail.core.hooks import inspecting
from vitrail.core.types import Images

Features = Float[Tensor, "b features rows cols"]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


class Backbone(nn.Module, ABC):
    """Abstract: computes features of an image on a grid of cells.

    Attributes:
        num_features: Features per cell.
        stride: Side of a cell in pixels.
        network: A network of another library, without its head.
    """

    num_features: int
    stride: int
    network: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self._grid_sizes = dict[tuple[int, int], tuple[int, int]]()

    @abstractmethod
    def forward(self, images: Images) -> Features:
        """Compute the features of a batch."""

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the features of an image; cells at the right and lower edge may be cut off or missing.

        Raises:
            InvalidInputError: The network does not take images of this size.
        """
        size = height, width
        if size not in self._grid_sizes:
            self._grid_sizes[size] = self._measure_grid(height, width)
        return self._grid_sizes[size]

    def _measure_grid(self, height: int, width: int) -> tuple[int, int]:
        """Measure the grid by a run on the meta device, because libraries round in different ways."""
        state = {name: tensor.to("meta") for name, tensor in chain(self.named_parameters(), self.named_buffers())}
        dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
        try:
            with inspecting(self), torch.no_grad():
                images = torch.empty(1, 3, height, width, device="meta", dtype=dtype)
                rows, cols = torch.func.functional_call(self, state, (images,)).shape[2:]
        except Exception as error:  # Networks fail in any layer, or by assertions.
            raise InvalidInputError(
                f"expected images of a size that the backbone takes, got {height}x{width} pixels, at which it fails: "
                f"{first_line(error)}; choose another image_size or other backbone_options, such as img_size"
            ) from error
        return rows, cols


class ConvNorm(nn.Module):
    """A convolution and the batch norm behind it, folded into one convolution where the norm's statistics are fixed.

    Args:
        conv: A convolution without a bias.
        norm: A frozen or trainable batch norm; a trainable one is folded in evaluation mode only.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, features: Features) -> Float[Tensor, "b convolved convolved_rows convolved_cols"]:
        conv, norm = self.conv, cast(Any, self.norm)
        if isinstance(norm, nn.BatchNorm2d) and norm.training:
            return norm(conv(features))
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        # Folded in every pass: it costs as much as one pixel's convolution, and weights may change at any time.
        weight = conv.weight * scale[:, None, None, None]
        return nn.functional.conv2d(features, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


class ResNet(Backbone):
    """A torchvision ResNet up to its last features, with batch norms folded into the convolutions.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        frozen: Whether batch norms keep their statistics, and stem and first layer their weights.
        dilation: Whether the last layer dilates its convolutions instead of halving the resolution: cells of 16 pixels, not 32.

    Raises:
        InvalidInputError: There is no such network, or its blocks cannot be dilated.
    """

    def __init__(self, name: str, frozen: bool = True, *, dilation: bool = False) -> None:
        super().__init__()
        if name not in RESNETS:
            raise InvalidInputError(f"expected a backbone {', '.join(RESNETS)}, or timm:NAME, got {name!r}")
        if dilation and name in ("resnet18", "resnet34"):
            raise InvalidInputError(f"expected resnet50 or resnet101 for dilation, which torchvision's {name} does not support")
        import torchvision  # noqa: PLC0415 (takes seconds)
        from torchvision.ops import FrozenBatchNorm2d  # noqa: PLC0415

        network = getattr(torchvision.models, name)(
            norm_layer=FrozenBatchNorm2d if frozen else nn.BatchNorm2d, replace_stride_with_dilation=[False, False, dilation]
        )
        self.num_features, self.stride = network.fc.in_features, 16 if dilation else 32
        del network.fc, network.avgpool
        for module in list(network.modules()):
            _join_norms(module)
        self.network = network
        if frozen:
            for part in (network.conv1, network.layer1):
                part.requires_grad_(False)

    def forward(self, images: Images) -> Features:
        net: Any = self.network
        # The fastest memory layout for convolutions; values are unchanged.
        features = net.maxpool(net.relu(net.conv1(images.contiguous(memory_format=torch.channels_last))))
        return net.layer4(net.layer3(net.layer2(net.layer1(features))))


def _join_norms(module: nn.Module) -> None:
    """Join the convolutions among a module's children with their batch norms."""
    children = dict(module.named_children())
    pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
    if isinstance(module, nn.Sequential):
        pairs = [("0", "1")]
    for conv, norm in pairs:
        if isinstance(children.get(conv), nn.Conv2d) and norm in children:
            setattr(module, conv, ConvNorm(children[conv], children[norm]))  # type: ignore[arg-type]
            setattr(module, norm, nn.Identity())


def rename_resnet_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a torchvision ResNet's weights to the names of `ResNet.network`, without the head."""
    return {_rename(name): tensor for name, tensor in state.items() if not name.startswith("fc.")}


def _rename(name: str) -> str:
    name = re.sub(r"(^|\.)bn(\d)\.", r"\1conv\2.norm.", name)
    name = re.sub(r"(^|\.)(conv\d)\.weight$", r"\1\2.conv.weight", name)
    return name.replace("downsample.0.", "downsample.0.conv.").replace("downsample.1.", "downsample.0.norm.")


def batch_counter_names(module: nn.Module) -> list[str]:
    """List the batch counters of trainable batch norms, which nothing reads and not every file has."""
    return [name for name in module.state_dict() if name.endswith("num_batches_tracked")]
