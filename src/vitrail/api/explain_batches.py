"""Explain photos of any form by several methods, in memory."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from vitrail.api.photo_targets import PhotoTargets
from vitrail.datasets.photo_batches import read_batches
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.runs.explain_images import BATCH_SIZE, explain_images


class MethodExplanations(dict[str, Explanation]):
    """Explanations of the same photos by method; a notebook shows the pictures of all."""

    def _repr_html_(self) -> str:
        return "".join(explanation._repr_html_() for explanation in self.values())


def explain_batches(
    explainers: Sequence[Explainer], photos: Any, targets: PhotoTargets, keep_photos: bool
) -> MethodExplanations:
    """Explain photos batch by batch; each is opened once for all methods.

    Args:
        explainers: Methods tied to one model.
        photos: See `vitrail.datasets.photo_objects.open_photos`.
        targets: The classes of every photo; a photo of several classes gives several maps.
        keep_photos: Whether explanations get small copies of the photos.

    Returns:
        By method, one explanation of all photos.

    Raises:
        InvalidInputError: No photos, another number of targets, or maps of different grids.
    """
    parts: dict[str, list[Explanation]] = {explainer.name: [] for explainer in explainers}
    named = False
    for batch in read_batches(photos, explainers[0].model.preprocessing, BATCH_SIZE, keep_photos):
        pairs = [(i, target) for i, classes in enumerate(targets.take(len(batch.images))) for target in classes]
        size = max(BATCH_SIZE, len(batch.images))
        for chunk in (pairs[start : start + size] for start in range(0, len(pairs), size)):
            images, sources = [batch.images[i] for i, _ in chunk], [batch.sources[i] or "" for i, _ in chunk]
            kept = [photo for i, _ in chunk if (photo := batch.photos[i]) is not None]
            target = targets.given if targets.common else torch.tensor([target for _, target in chunk])
            for explainer in explainers:
                explanation = Explanation.concatenate(explain_images(explainer, images, sources, target))
                parts[explainer.name].append(replace(explanation, photos=tuple(kept) if len(kept) == len(chunk) else ()))
        named |= any(source is not None for source in batch.sources)
    targets.finish()
    found = {name: Explanation.concatenate(of_method) for name, of_method in parts.items()}
    # Normalized images have no files.
    return MethodExplanations(
        found if named else {name: replace(explanation, sources=()) for name, explanation in found.items()}
    )
