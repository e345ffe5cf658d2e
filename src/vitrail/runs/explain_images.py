"""Explain normalized images of any sizes."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.core.types import Targets
from vitrail.datasets.collate import group_by_size
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation

BATCH_SIZE = 16


def explain_images(
    explainer: Explainer, images: Sequence[Tensor], sources: Sequence[str], target: int | str | Targets | None = None
) -> list[Explanation]:
    """Explain normalized images; images of the same size are explained together.

    Args:
        explainer: A method tied to a model.
        images: Normalized images of shape (channels, height, width). Sizes may differ; nothing is padded.
        sources: File names to record, one per image.
        target: Class index or name for all images, one index per image, or None for the predicted class.

    Returns:
        One explanation per image, in order.
    """
    model, explanations = explainer.model, dict[int, Explanation]()
    for indices in group_by_size([image.shape for image in images]):
        batch = torch.stack([images[index] for index in indices]).to(model.device, model.dtype)
        explanation = explainer.explain(batch, _select_targets(target, indices))
        explanations |= zip(indices, explanation.with_sources([sources[index] for index in indices]), strict=True)
    return [explanations[index] for index in range(len(images))]


def _select_targets(target: Any, indices: list[int]) -> Any:
    """Return the targets of some images; a target for all images stays as it is."""
    if target is None or isinstance(target, Integral | str):
        return target
    return target[indices] if isinstance(target, Tensor | np.ndarray) else [target[index] for index in indices]
