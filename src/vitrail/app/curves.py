"""Insertion and deletion curves in small steps: with progress, and stopped between two steps."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.app.background import Progress
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images
from vitrail.explanation import Explanation
from vitrail.metrics import Curves, Protocol
from vitrail.metrics.perturbation import assemble_curves, protocol_steps

CHUNK_SIZE = 32


def measure_curves(
    classifier: Classifier,
    images: Images,
    explanations: Sequence[Explanation],
    protocol: Protocol,
    chunk_size: int = CHUNK_SIZE,
) -> Iterator[Progress | Curves]:
    """Measure the curves of several explanations of one image; equal to `perturbation_curves` up to rounding.

    Between two items the model is unchanged and free for others: closing the iterator stops the work.

    Args:
        classifier: The explained model.
        images: The explained image, a batch of one.
        explanations: Explanations of that image, on the CPU.
        protocol: A protocol whose unit is cells.
        chunk_size: Points of a curve that are measured between two items.

    Yields:
        Progress after every chunk, and the curves of every explanation once they are measured, in the order of `explanations`.

    Raises:
        InvalidInputError: The unit of the protocol is pixels.
    """
    if protocol.unit != "cells":
        raise InvalidInputError("expected a protocol of cells, got one of pixels; choose hit, diffmask or tokens")
    images = images.to(classifier.device, classifier.dtype)
    grid, all_steps = classifier.grid_size(images), protocol_steps(protocol)
    all_masks = [[steps.masks(one.relevance.to(images.device), grid) for steps in all_steps] for one in explanations]
    total, done = sum(keep.shape[1] for masks in all_masks for keep in masks), 0
    yield Progress(0, total)
    for explanation, masks in zip(explanations, all_masks, strict=True):
        logits = list[Float[Tensor, "b curves s c"]]()
        for steps, keep in zip(all_steps, masks, strict=True):
            chunks = list[Tensor]()
            for chunk in keep.split(chunk_size, 1):
                with classifier.inspecting(), torch.no_grad():
                    chunks.append(steps.masked_logits(classifier, images, chunk))
                done += chunk.shape[1]
                yield Progress(done, total)
            logits.append(torch.cat(chunks, 1).unflatten(1, (steps.num_curves, -1)))
        yield assemble_curves(protocol, images, explanation, logits, classifier.output)
