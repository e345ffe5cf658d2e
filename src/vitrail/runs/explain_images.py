"""Explain opened photos or normalized images in batches."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Targets
from vitrail.datasets.collate import group_by_size
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation

BATCH_SIZE = 16


def explain_photos(
    explainer: Explainer, photos: Sequence[Image.Image], sources: Sequence[str], target: int | str | Targets | None = None
) -> Explanation:
    """Explain opened photos in batches.

    Args:
        explainer: A method tied to a model.
        sources: File names to record, one per photo.
        target: Class index or name for all photos, one index per photo, or None for the predicted class.

    Raises:
        InvalidInputError: No photos, a number of targets other than the number of photos, or relevance maps of different grids.
    """
    if not photos:
        raise InvalidInputError("expected at least one photo, got none")
    per_photo = _is_sequence(target)
    if per_photo and (not hasattr(target, "__len__") or len(target) != len(photos)):  # type: ignore[arg-type]
        raise InvalidInputError(f"expected {len(photos)} targets, one per photo, got {target!r}")
    batches = []
    for start in range(0, len(photos), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        images = [explainer.model.preprocessing(photo) for photo in photos[batch]]
        explanations = explain_images(explainer, images, sources[batch], target[batch] if per_photo else target)  # type: ignore[index]
        batches.append(Explanation.concatenate(explanations))
    return Explanation.concatenate(batches)


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


def _is_sequence(target: Any) -> bool:
    return target is not None and not isinstance(target, Integral | str)


def _select_targets(target: Any, indices: list[int]) -> Any:
    """Return the targets of some images; a target for all images stays as it is."""
    if not _is_sequence(target):
        return target
    return target[indices] if isinstance(target, Tensor | np.ndarray) else [target[index] for index in indices]
