"""Count the cost of an explanation in forward passes of the explained network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vitrail.adapters import Classifier
from vitrail.core.types import Images
from vitrail.datasets.dataset import LabeledImages, Sample, Unreadable
from vitrail.explainers import Explainer
from vitrail.runs.results import expect_readable


@dataclass(frozen=True)
class Cost:
    """The cost of one explanation.

    Attributes:
        passes: Floating-point operations, divided by those of a forward pass.
        seconds: Median over batches of the time per image, in this run on this machine; without the first batch if there are more.
        is_rough: Whether there was only one batch, which includes the first use of the network.
    """

    passes: float
    seconds: float
    is_rough: bool = False


def count_passes_of_first(classifier: Classifier, images: LabeledImages, explainers: Sequence[Explainer]) -> list[float]:
    """Count the passes of every method on the first readable image.

    This is also a trial run: what cannot be explained fails here, before anything is written.

    Raises:
        ImageError: Not a single image could be read.
    """
    unreadable = list[Unreadable]()
    for index in range(len(images)):
        sample = images[index]
        if isinstance(sample, Sample):
            return count_passes(classifier, explainers, sample.image.unsqueeze(0).to(classifier.device, classifier.dtype))
        unreadable.append(sample)
    expect_readable(0, len(images), unreadable)
    return []


def count_passes(classifier: Classifier, explainers: Sequence[Explainer], image: Images) -> list[float]:
    """Return the floating-point operations of explaining one image, divided by those of one forward pass, for every method.

    Operations are counted, not timed, so the result is the same on every machine: matrix products, convolutions and attention, forward and
    backward, as torch counts them.

    Args:
        image: A batch of one image.
    """
    with classifier.inspecting(), torch.no_grad(), _FlopCounter() as forward:
        classifier.logits(image)
    passes = []
    for explainer in explainers:
        # Checks of the network before the first explanation do not count.
        with explainer.model.verified(*explainer.checks, like=image), _FlopCounter() as counter:
            explainer.explain(image)
        passes.append(counter.total / forward.total if forward.total else float("nan"))
    return passes


class _FlopCounter(TorchDispatchMode):
    """Counts floating-point operations by torch's formulas.

    torch's own FlopCounterMode also attributes them to modules, by hooks that do not always work with gradients of inputs.
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
                decomposed = func.decompose(*args, **options)
            if decomposed is not NotImplemented:
                return decomposed
        output = func(*args, **options)
        # Meta tensors are shape inference, which some operations do once per process.
        if formula is not None and not (isinstance(output, Tensor) and output.is_meta):
            self.total += formula(*args, **options, out_val=output)
        return output
