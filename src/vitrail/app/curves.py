"""Insertion and deletion, a little at a time: with progress, and stopped between two steps when nobody waits any longer."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images
from vitrail.explanation import Explanation
from vitrail.metrics import Curves, Protocol
from vitrail.metrics.perturbation import assemble_curves, protocol_steps

STEPS_AT_ONCE = 32


class Progress(NamedTuple):
    """How far the work is: so many forward passes of so many."""

    done: int
    total: int


def measure_curves(
    classifier: Classifier,
    images: Images,
    explanations: Sequence[Explanation],
    protocol: Protocol,
    at_once: int = STEPS_AT_ONCE,
) -> Iterator[Progress | Curves]:
    """Measure the curves of several maps of one image; the numbers are those of `perturbation_curves`, up to rounding.

    Between two items nothing is held: closing the iterator stops the work, and leaves the model as it was.

    Args:
        classifier: The explained model.
        images: The explained image, a batch of one.
        explanations: Of that image, on the CPU.
        protocol: One whose unit is cells.
        at_once: Points of a curve that are measured between two items.

    Yields:
        Progress after every piece of work, and the curves of a map, in the order of `explanations`, when they are known.
    """
    if protocol.unit != "cells":
        raise InvalidInputError("expected a protocol of cells, got one of pixels; choose hit, diffmask or tokens")
    images = images.to(classifier.device, classifier.dtype)
    grid, every = classifier.grid_size(images), protocol_steps(protocol)
    keeps = [[steps.masks(one.relevance.to(images.device), grid) for steps in every] for one in explanations]
    total, done = sum(keep.shape[1] for each in keeps for keep in each), 0
    yield Progress(0, total)
    for one, masks in zip(explanations, keeps, strict=True):
        found = list[Float[Tensor, "b curves s c"]]()
        for steps, keep in zip(every, masks, strict=True):
            said = list[Tensor]()
            for some in keep.split(at_once, 1):
                with classifier.inspecting(), torch.no_grad():
                    said.append(steps.masked_logits(classifier, images, some))
                done += some.shape[1]
                yield Progress(done, total)
            found.append(torch.cat(said, 1).unflatten(1, (steps.num_curves, -1)))
        yield assemble_curves(protocol, images, one, found, classifier.output)
