"""What an explanation costs, in forward passes of its own network."""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrail.adapters import Classifier
from vitrail.explainers import Explainer
from vitrail.types import Images


def passes_per_image(classifier: Classifier, explainers: Sequence[Explainer], image: Images) -> list[float]:
    """Floating-point operations of explaining one image, over those of one forward pass; backward passes count by what they do.

    Counted, not timed, so the same on every machine; matrix products, convolutions and attention alone, as torch counts them.

    Args:
        classifier: The model.
        explainers: Methods tied to it.
        image: A batch of one.
    """
    with classifier.inspecting(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        classifier.logits(image)
    once = counter.get_total_flops()
    found = []
    for explainer in explainers:
        with FlopCounterMode(display=False) as counter:
            explainer.explain(image)
        found.append(counter.get_total_flops() / once if once else float("nan"))
    return found
