"""What an explanation costs, in forward passes of its own network."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vitrail.adapters import Classifier
from vitrail.core.types import Images
from vitrail.datasets.dataset import LabeledImages, Sample, Unreadable
from vitrail.evaluation.batches import expect_readable
from vitrail.explainers import Explainer


def passes_of_first(classifier: Classifier, images: LabeledImages, explainers: Sequence[Explainer]) -> list[float]:
    """`passes_per_image` of the first image that can be read.

    It is also the smallest trial of all: what cannot be explained is told before anything is written.

    Raises:
        ImageError: Not one image could be read.
    """
    unreadable = list[Unreadable]()
    for index in range(len(images)):
        found = images[index]
        if isinstance(found, Sample):
            return passes_per_image(classifier, explainers, found.image.unsqueeze(0).to(classifier.device, classifier.dtype))
        unreadable.append(found)
    expect_readable(0, images, unreadable)
    return []


def passes_per_image(classifier: Classifier, explainers: Sequence[Explainer], image: Images) -> list[float]:
    """Floating-point operations of explaining one image, over those of one forward pass; backward passes count by what they do.

    Counted, not timed, so the same on every machine; matrix products, convolutions and attention alone, as torch counts them.

    Args:
        classifier: The model.
        explainers: Methods tied to it.
        image: A batch of one.
    """
    with classifier.inspecting(), torch.no_grad(), _Counter() as once:
        classifier.logits(image)
    found = []
    for explainer in explainers:
        # The look over the network before the first explanation is no work of the method.
        with explainer.model.verified(*explainer.checks, like=image), _Counter() as counter:
            explainer.explain(image)
        found.append(counter.total / once.total if once.total else float("nan"))
    return found


class _Counter(TorchDispatchMode):
    """Adds up what torch's formulas say of every operation.

    torch's own FlopCounterMode also says which module it was, by hooks that gradients of inputs do not always survive.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **options)
            if parts is not NotImplemented:
                return parts
        found = func(*args, **options)
        # What is only asked for its shape is no work; and some ask once, whatever comes first.
        if formula is not None and not (isinstance(found, Tensor) and found.is_meta):
            self.total += formula(*args, **options, out_val=found)
        return found
