"""Explaining opened photos or normalized images, a batch at a time."""

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
        photos: Opened photos.
        sources: File names, one a photo, for the record.
        target: As `explain` takes it.

    Raises:
        InvalidInputError: No photos, not one target per photo, or photos whose maps differ in their grids.
    """
    if not photos:
        raise InvalidInputError("expected at least one photo, got none")
    several = target is not None and not isinstance(target, Integral | str)
    if several and (not hasattr(target, "__len__") or len(target) != len(photos)):  # type: ignore[arg-type]
        raise InvalidInputError(f"expected {len(photos)} targets, one per photo, got {target!r}")
    parts = []
    for start in range(0, len(photos), BATCH_SIZE):
        some = slice(start, start + BATCH_SIZE)
        images = [explainer.model.preprocessing(photo) for photo in photos[some]]
        found = explain_images(explainer, images, sources[some], target[some] if several else target)  # type: ignore[index]
        parts.append(Explanation.concatenate(found))
    return Explanation.concatenate(parts)


def explain_images(
    explainer: Explainer, images: Sequence[Tensor], sources: Sequence[str], target: int | str | Targets | None = None
) -> list[Explanation]:
    """Explain normalized images, all those of one size at once; an explanation each, in their order.

    Args:
        explainer: A method tied to a model.
        images: Of channels, height and width; sizes may differ. Nothing is padded, so that none depends on its neighbors.
        sources: File names, one an image, for the record.
        target: As `explain` takes it.
    """
    model, found = explainer.model, dict[int, Explanation]()
    for places in group_by_size([image.shape for image in images]):
        batch = torch.stack([images[place] for place in places]).to(model.device, model.dtype)
        explanation = explainer.explain(batch, _of_some(target, places)).with_sources([sources[place] for place in places])
        found |= zip(places, explanation, strict=True)
    return [found[place] for place in range(len(images))]


def _of_some(target: Any, places: list[int]) -> Any:
    """The targets of some images, where each has one of its own."""
    if target is None or isinstance(target, Integral | str):
        return target
    return target[places] if isinstance(target, Tensor | np.ndarray) else [target[place] for place in places]
