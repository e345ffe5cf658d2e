"""Refuse images that a network cannot take, with a clear message, before its own code fails."""

from torch import nn

from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.types import Images


def first_convolution(embedding: nn.Module) -> nn.Conv2d:
    """Return the convolution that embeds patches, also from inside wrappers such as LoRA's.

    Raises:
        UnsupportedModelError: There is none, or its stride is not its kernel size, so that patches overlap or leave gaps.
    """
    convolution = next((part for part in embedding.modules() if isinstance(part, nn.Conv2d)), None)
    if convolution is None or convolution.kernel_size != convolution.stride:
        raise UnsupportedModelError(
            f"expected patches that are embedded one by one, by a convolution with stride = kernel size, got {type(embedding).__name__}"
        )
    return convolution


def expect_channels(images: Images, num_channels: int, name: str) -> None:
    """Refuse images with another number of channels."""
    if images.shape[1] != num_channels:
        files = (
            ""
            if num_channels in (1, 3)
            else f"; photos of {num_channels} channels are .npy or TIFF files, see --mean and --std"
        )
        raise InvalidInputError(f"expected images of {num_channels} channels for {name}, got {images.shape[1]}{files}")


def expect_size(size: tuple[int, int], expected: tuple[int, int], name: str, remedy: str) -> None:
    """Refuse images of another size."""
    if size != expected:
        raise InvalidInputError(
            f"expected images of {expected[0]}x{expected[1]} pixels (height x width) for {name}, got {size[0]}x{size[1]}; "
            f"resize them, or load the model with {remedy}; on the command line, leave out --image-size, or give such options by "
            "--model-arg"
        )


def expect_multiple(size: tuple[int, int], patch_size: tuple[int, ...], name: str) -> None:
    """Refuse images whose height or width is not a multiple of the patch size."""
    if any(side % patch or side < patch for side, patch in zip(size, patch_size, strict=True)):
        raise InvalidInputError(
            f"expected images whose height and width are multiples of {patch_size[0]} and {patch_size[1]} pixels for {name}, "
            f"got {size[0]}x{size[1]}; resize them: where a network pads, its last patches lie partly outside of the image"
        )
