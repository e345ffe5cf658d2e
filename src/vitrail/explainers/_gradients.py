"""Gradients of target logits, with errors that name the reason when there are none."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.adapters import Classifier, ViTAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Images, Logits, Targets


def target_gradients(
    logits: Logits, targets: Targets, sources: Sequence[Tensor], *, allow_zero: bool = False
) -> tuple[Tensor, ...]:
    """Differentiate the target logit of every image.

    A single backward pass serves the whole batch, since no image's logit depends on another image.

    Args:
        logits: Logits with a graph.
        targets: One class per image.
        sources: Tensors to differentiate with respect to, one row per image, in the order in which the network computes them.
        allow_zero: Whether the last gradient may be zero everywhere in an image, as at single points of an integral.

    Raises:
        UnsupportedModelError: A source is not on the path to the logit, the network blocks gradients, or the gradient is zero everywhere:
            an empty map would look like a result.
    """
    if not logits.requires_grad or not sources:
        raise UnsupportedModelError(
            "no gradient passes through the network: it runs without gradients or hides its blocks; choose a method that needs none, such "
            "as rollout or occlusion"
        )
    scores = logits.gather(1, targets[:, None]).sum()
    _refuse_unused([index for index, source in enumerate(sources) if not source.requires_grad])
    try:
        gradients = torch.autograd.grad(scores, sources, allow_unused=True)
    except RuntimeError as error:
        # Checkpointed blocks run again in the backward pass, without the hooks of the method.
        if "heckpoint" not in f"{type(error).__name__}: {error}":
            raise
        raise UnsupportedModelError(
            "the network checkpoints activations, which hides its blocks; turn gradient checkpointing off"
        ) from error
    _refuse_unused([index for index, gradient in enumerate(gradients) if gradient is None])
    if not allow_zero:
        _refuse_zero(gradients[-1])
    return gradients


def _refuse_unused(unused: list[int]) -> None:
    if unused:
        raise UnsupportedModelError(
            f"the target logit does not depend on what block {unused[0]} computes: a part of the network detaches, recomputes or "
            "replaces it; choose a method that needs no gradients, such as rollout or occlusion"
        )


def _refuse_zero(gradient: Tensor) -> None:
    empty = (~gradient.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise UnsupportedModelError(
            "the gradient of the target logit is zero everywhere in an image, so the map would be empty: the logit "
            "does not depend on the image, or half precision rounds the gradient to zero (use precision=full and float32 weights), or the "
            "image is compared with itself, where similarity is at its maximum (compare other images, or choose occlusion or rise)"
        )


def replace_gradient(output: Tensor, surrogate: Tensor) -> Tensor:
    """Return the values of `output` with the gradient of `surrogate`: in half precision the two are rounded differently."""
    return output.detach() + (surrogate - surrogate.detach()).to(output.dtype)


def graph_bytes(model: Classifier, images: Images) -> int:
    """Estimate the memory of the graph of one image: what every block keeps for the backward pass, with its attention weights."""
    # A block keeps about a third of what a pass without a graph takes. Convolutional networks: every second feature map.
    num_passes = max(len(model.blocks) // 3, 1) if isinstance(model, ViTAdapter) else 1
    return model.bytes_per_image(images) * num_passes
