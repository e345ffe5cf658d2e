"""Measure the contribution of each layer of a HiT over many images, from one forward pass per image."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.adapters.hit.adapter import HiTAdapter
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.outputs import decisions
from vitrail.core.types import Logits
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.datasets.sampler import ProcessShare
from vitrail.datasets.workers import FEWER_WORKERS_HINT, explain_killed_workers
from vitrail.evaluation.accuracy import expect_several_classes, with_model_labels
from vitrail.evaluation.batches import index_by_name, read_batches, sort_unreadable
from vitrail.evaluation.layer_report import Ablation, LayerReport
from vitrail.runs.results import expect_readable


class _LayerBatch(NamedTuple):
    """The results of one batch, with tensors on the CPU, as processes exchange them."""

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
    """Return the sets of layers of the report: every k of every kind."""
    layers = tuple(range(num_layers))
    kept_by_kind: dict[str, list[tuple[int, ...]]] = {
        "first": [layers[:k] for k in range(num_layers + 1)],
        "without_first": [layers[k:] for k in range(num_layers + 1)],
        "single": [(k,) for k in layers],
        "without": [layers[:k] + layers[k + 1 :] for k in layers],
    }
    return [Ablation(kind, k, kept) for kind, sets in kept_by_kind.items() for k, kept in enumerate(sets)]


def expect_hit(classifier: Classifier) -> HiTAdapter:
    """Return the classifier as a HiT.

    Raises:
        UnsupportedModelError: It is another network.
    """
    if not isinstance(classifier, HiTAdapter):
        raise UnsupportedModelError(
            f"expected a HiT, whose class token is a sum over its layers, got {classifier.name or type(classifier.module).__name__}; "
            "name one, such as vitrail:hit-cifar10, or train one by vitrail train"
        )
    return classifier


@explain_killed_workers(FEWER_WORKERS_HINT)
def report_layers(classifier: Classifier, images: LabeledImages, batch_size: int = 64, num_workers: int = 0) -> LayerReport:
    """Ablate the layers of a HiT, and compute each layer's contribution to the predicted class, in one forward pass per image.

    Labels are used for accuracy only. Without labels that the model knows, accuracy is left out, and `no_labels` gives the reason.

    Inside `vitrail.core.distributed.process_group`, the processes share the images and all return the same numbers: those of one process,
    in its order.

    Raises:
        UnsupportedModelError: Not a HiT.
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
    """
    expect_hit(classifier)
    no_labels = None
    try:
        expect_several_classes(classifier)
        images = with_model_labels(images, classifier)
    except InvalidInputError as error:
        no_labels = str(error)
    batches, unreadable = _ablate(classifier, images, batch_size, num_workers)
    batches, unreadable = gather(batches), sort_unreadable(gather(unreadable), images)
    paths = [path for batch in batches for path in batch.paths]
    expect_readable(len(paths), len(images), unreadable)
    indices = index_by_name(images)
    order = sorted(range(len(paths)), key=lambda position: indices[paths[position]])
    columns = zip(*(batch[1:] for batch in batches), strict=True)
    total = _LayerBatch([paths[position] for position in order], *(torch.cat(column)[order] for column in columns))
    labels = total.labels if no_labels is None else None
    return LayerReport(
        model=classifier.name,
        ablations=layer_ablations(expect_hit(classifier).hit.config.num_layers),
        paths=total.paths,
        targets=total.targets,
        target_names=[classifier.class_name(index) for index in total.targets.tolist()],
        labels=labels,
        label_names=None if labels is None else [classifier.class_name(index) for index in labels.tolist()],
        no_labels=no_labels,
        confidence=total.confidence,
        logits=total.logits,
        layers=total.layers,
        bias=total.bias,
        predicted=total.predicted,
        probabilities=total.probabilities,
        completeness_error=float(total.errors.max()),
        unreadable=unreadable,
    )


def _ablate(
    classifier: Classifier, images: LabeledImages, batch_size: int, num_workers: int
) -> tuple[list[_LayerBatch], list[Unreadable]]:
    """Take this process's share of the images through the network, with all ablations of the class token."""
    hit = expect_hit(classifier).hit
    ablations = layer_ablations(hit.config.num_layers)
    keep = _keep_masks(ablations, hit.config.num_layers).to(classifier.device)
    results, unreadable = list[_LayerBatch](), list[Unreadable]()
    share = ProcessShare(len(images), rank(), world_size())
    with classifier.inspecting(), classifier.verified("parts"), torch.no_grad():
        for batch in read_batches(classifier, images, share, batch_size, num_workers, "ablating layers", unreadable):
            split = hit.layer_split(batch.images, keep, lambda logits: classifier.check_logits(logits).argmax(1, keepdim=True))
            # Probabilities, in single precision at least.
            whole, ablated = (classifier.probabilities(logits.float()) for logits in (split.logits, split.ablated))
            targets_per_ablation = split.targets.unsqueeze(1).expand(-1, len(ablations), -1)
            tensors = (
                split.targets[:, 0],
                whole.gather(1, split.targets)[:, 0],
                split.target_logits()[:, 0].float(),
                split.layers[:, 0].float(),
                split.bias[:, 0].float(),
                _predict(split.ablated, split.logits),
                ablated.gather(2, targets_per_ablation)[..., 0],
                split.completeness_errors().float(),
            )
            results.append(_LayerBatch(batch.paths, batch.labels, *(tensor.cpu() for tensor in tensors)))
    return results, unreadable


def _predict(ablated: Float[Tensor, "b k c"], logits: Logits) -> Int[Tensor, "b k"]:
    if logits.shape[1] > 1:
        return ablated.argmax(-1)
    return (decisions(ablated) == decisions(logits)[:, None]).long() - 1


def _keep_masks(ablations: list[Ablation], num_layers: int) -> Bool[Tensor, "k l"]:
    masks = torch.zeros(len(ablations), num_layers, dtype=torch.bool)
    for mask, ablation in zip(masks, ablations, strict=True):
        mask[list(ablation.kept)] = True
    return masks
