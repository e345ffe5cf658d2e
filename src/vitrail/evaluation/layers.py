"""What each layer of a HiT gives to the decision, over a whole folder: from one forward pass per image."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.adapters.hit import HiTAdapter
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.outputs import decisions
from vitrail.core.types import Logits, Targets
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.datasets.sampler import ProcessShare
from vitrail.datasets.workers import AGAIN, explain_killed_workers
from vitrail.evaluation.accuracy import expect_several_classes, with_model_labels
from vitrail.evaluation.batches import expect_readable, in_order, places, read_batches


class Ablation(NamedTuple):
    """Some layers' updates kept, the others left out of the sum.

    Attributes:
        kind: "first": the first k layers alone; "without_first": all but these; "single": layer k alone; "without": all but it.
        k: How many layers, or the number of the one, from 0.
        kept: Numbers of the layers whose updates are kept, from 0.
    """

    kind: str
    k: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class LayerReport:
    """What each layer gave to the predicted class of every image, and what is predicted without some layers.

    An ablation leaves updates out of the sum that the final class token is. The updates stay those of the whole forward pass: nothing
    is run anew, in which later layers would answer to another class token.

    Attributes:
        ablations: The sets of layers, `k` of them.
        paths: Name of every image.
        targets: Its predicted class.
        labels: Its true class; None where labels are not known.
        no_labels: Why they are not; None where they are.
        confidence: Probability of the predicted class.
        logits: Logit of the predicted class.
        layers: What each layer's update gave to that logit.
        bias: What no layer gave to it; with the layers, it adds up to the logit.
        predicted: The class that each ablation predicts; of a network of a single logit -1 where its yes becomes a no, or its no a yes.
        probabilities: Probability that each ablation gives to the predicted class of the whole model.
        completeness_error: The largest, over images, of |sum of parts - logit| over the image's largest |logit|.
        unreadable: Files left out.

    Source: Jeanneret, Simon, Jurie 2025, arXiv:2502.17196: accuracy by layers, and mean layer saliency.

    Differs: Exact, where the published views of pooled networks, and of positions, are not; and the saliency is of the class that the
        whole model predicts, not of the one that the last ablation does.
    """

    ablations: list[Ablation]
    paths: list[str]
    targets: Targets
    labels: Targets | None
    no_labels: str | None
    confidence: Float[Tensor, " b"]
    logits: Float[Tensor, " b"]
    layers: Float[Tensor, "b l"]
    bias: Float[Tensor, " b"]
    predicted: Int[Tensor, "b k"]
    probabilities: Float[Tensor, "b k"]
    completeness_error: float
    unreadable: list[Unreadable]

    def measures(self) -> dict[str, Float[Tensor, "b k"]]:
        """Per measure a number from 0 to 1 for every image and ablation: top1 (where labels are known), agreement, probability."""
        return _measures(self.predicted, self.targets.unsqueeze(1), self.labels, self.probabilities)

    def whole(self) -> dict[str, Float[Tensor, " b"]]:
        """The same measures of the whole model, for every image; it agrees with itself."""
        whole = _measures(self.targets.unsqueeze(1), self.targets.unsqueeze(1), self.labels, self.confidence.unsqueeze(1))
        return {name: values[:, 0] for name, values in whole.items()}


class _Seen(NamedTuple):
    """A batch, as every process tells the others; the tensors are on the CPU."""

    paths: list[str]
    labels: Tensor
    targets: Tensor
    confidence: Tensor
    logits: Tensor
    layers: Tensor
    bias: Tensor
    predicted: Tensor
    probabilities: Tensor
    errors: Tensor


def layer_ablations(num_layers: int) -> list[Ablation]:
    """The sets of layers of the report: kind by kind, and every k."""
    layers = tuple(range(num_layers))
    sets: dict[str, list[tuple[int, ...]]] = {
        "first": [layers[:k] for k in range(num_layers + 1)],
        "without_first": [layers[k:] for k in range(num_layers + 1)],
        "single": [(k,) for k in layers],
        "without": [layers[:k] + layers[k + 1 :] for k in layers],
    }
    return [Ablation(kind, k, kept) for kind, each in sets.items() for k, kept in enumerate(each)]


def expect_hit(classifier: Classifier) -> HiTAdapter:
    """Return a HiT as one.

    Raises:
        UnsupportedModelError: Another network.
    """
    if not isinstance(classifier, HiTAdapter):
        raise UnsupportedModelError(
            f"expected a HiT, whose class token is a sum over its layers, got {classifier.name or type(classifier.module).__name__}; "
            "name one, such as vitrail:hit-cifar10, or train one by vitrail train"
        )
    return classifier


@explain_killed_workers(AGAIN)
def report_layers(classifier: Classifier, images: LabeledImages, batch_size: int = 64, num_workers: int = 0) -> LayerReport:
    """Ablate the layers of a HiT, and ask what each gave to the predicted class, in one forward pass per image.

    Labels are asked for accuracy alone: without labels that the model knows, it is left out, and `no_labels` says why.

    Inside `vitrail.core.distributed.process_group`, each process takes its share of the images, and all get the same figures: those of one
    process, in its order.

    Raises:
        UnsupportedModelError: Not a HiT.
        ImageError: Not one image could be read.
        ProcessError: A process that reads images was killed.
    """
    hit, no_labels = expect_hit(classifier).hit, None
    try:
        expect_several_classes(classifier)
        images = with_model_labels(images, classifier)
    except InvalidInputError as error:
        no_labels = str(error)
    ablations = layer_ablations(hit.config.num_layers)
    keep = _masks(ablations, hit.config.num_layers).to(classifier.device)
    seen, unreadable = list[_Seen](), list[Unreadable]()
    share = ProcessShare(len(images), rank(), world_size())
    with classifier.inspecting(), classifier.verified("parts"), torch.no_grad():
        for batch in read_batches(classifier, images, share, batch_size, num_workers, "leaving layers out", unreadable):
            split = hit.layer_split(batch.images, keep, lambda logits: classifier.check_logits(logits).argmax(1, keepdim=True))
            # Probabilities, in single precision at least.
            whole, ablated = (classifier.probabilities(logits.float()) for logits in (split.logits, split.ablated))
            wanted = split.targets.unsqueeze(1).expand(-1, len(ablations), -1)
            found = (
                split.targets[:, 0],
                whole.gather(1, split.targets)[:, 0],
                split.target_logits()[:, 0].float(),
                split.layers[:, 0].float(),
                split.bias[:, 0].float(),
                _predicted(split.ablated, split.logits),
                ablated.gather(2, wanted)[..., 0],
                split.completeness_errors().float(),
            )
            seen.append(_Seen(batch.paths, batch.labels, *(tensor.cpu() for tensor in found)))
    seen, unreadable = gather(seen), in_order(gather(unreadable), images)
    paths = [path for each in seen for path in each.paths]
    expect_readable(len(paths), images, unreadable)
    place = places(images)
    order = sorted(range(len(paths)), key=lambda read: place[paths[read]])
    every = _Seen(
        [paths[read] for read in order], *(torch.cat(each)[order] for each in zip(*(one[1:] for one in seen), strict=True))
    )
    return LayerReport(
        ablations=ablations,
        paths=every.paths,
        targets=every.targets,
        labels=every.labels if no_labels is None else None,
        no_labels=no_labels,
        confidence=every.confidence,
        logits=every.logits,
        layers=every.layers,
        bias=every.bias,
        predicted=every.predicted,
        probabilities=every.probabilities,
        completeness_error=float(every.errors.max()),
        unreadable=unreadable,
    )


def _predicted(ablated: Float[Tensor, "b k c"], logits: Logits) -> Int[Tensor, "b k"]:
    if logits.shape[1] > 1:
        return ablated.argmax(-1)
    return (decisions(ablated) == decisions(logits)[:, None]).long() - 1


def _masks(ablations: list[Ablation], num_layers: int) -> Bool[Tensor, "k l"]:
    masks = torch.zeros(len(ablations), num_layers, dtype=torch.bool)
    for mask, ablation in zip(masks, ablations, strict=True):
        mask[list(ablation.kept)] = True
    return masks


def _measures(
    predicted: Int[Tensor, "b k"], targets: Int[Tensor, "b 1"], labels: Targets | None, probabilities: Float[Tensor, "b k"]
) -> dict[str, Float[Tensor, "b k"]]:
    known = {} if labels is None else {"top1": (predicted == labels.unsqueeze(1)).float()}
    return {**known, "agreement": (predicted == targets).float(), "probability": probabilities}
