"""Measure the contribution of each layer of a HiT over many images, from one forward pass per image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.adapters.hit.adapter import HiTAdapter
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.outputs import decisions, has_probabilities
from vitrail.core.types import Logits
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages
from vitrail.evaluation.accuracy import expect_several_classes, with_model_labels
from vitrail.evaluation.batches import index_by_name, measure_shard
from vitrail.evaluation.layer_report import Ablation, LayerReport
from vitrail.models.hit import HiT
from vitrail.runs.loop import Batches, Pass
from vitrail.runs.shards import Shard, ShardStore, list_unreadable


@dataclass(frozen=True, eq=False)
class _LayerShard(Shard):
    """The results of one batch; see `LayerReport`."""

    indices: Int[np.ndarray, " b"]
    labels: Int[np.ndarray, " b"]
    targets: Int[np.ndarray, " b"]
    confidence: Float[np.ndarray, " b"]
    logits: Float[np.ndarray, " b"]
    layers: Float[np.ndarray, "b l"]
    bias: Float[np.ndarray, " b"]
    predicted: Int[np.ndarray, "b k"]
    probabilities: Float[np.ndarray, "b k"]
    errors: Float[np.ndarray, " b"]


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


def report_layers(
    classifier: Classifier,
    images: LabeledImages,
    batch_size: int = 64,
    num_workers: int = 0,
    folder: Path | None = None,
    key: str = "",
) -> LayerReport:
    """Ablate the layers of a HiT, and compute each layer's contribution to the predicted class, in one forward pass per image.

    Labels are used for accuracy only. Without labels that the model knows, accuracy is left out, and `no_labels` gives the reason.

    Inside `vitrail.core.distributed.process_group`, the processes share the images and all return the same numbers: those of one process,
    in its order.

    Args:
        folder: Folder for the results of every batch, shared by all processes; batches with results there are not computed again.
        key: Identifies the run; batches in the folder with another key are computed again.

    Raises:
        UnsupportedModelError: Not a HiT.
        InvalidInputError: Its outputs are no classes.
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
    """
    hit = expect_hit(classifier).hit
    if not has_probabilities(classifier.output):
        raise InvalidInputError(
            f"expected a HiT that predicts classes, got {classifier.name} with output {classifier.output!r}; explain single photos instead"
        )
    no_labels = None
    try:
        expect_several_classes(classifier)
        images = with_model_labels(images, classifier)
    except InvalidInputError as error:
        no_labels = str(error)
    store = None if folder is None else ShardStore(folder, key, _LayerShard)
    batches = Batches(images, batch_size, collate_by_size, num_workers)
    with classifier.inspecting(), classifier.verified("parts"), torch.no_grad():
        shards = Pass(batches, _AblateLayers(classifier, hit, index_by_name(images)), "ablating layers", store).run()
    total = {
        entry.name: torch.from_numpy(np.concatenate([getattr(shard, entry.name) for shard in shards]))
        for entry in fields(_LayerShard)
        if entry.name != "unreadable"
    }
    labels, targets = total["labels"] if no_labels is None else None, total["targets"]
    return LayerReport(
        model=classifier.name,
        ablations=layer_ablations(hit.config.num_layers),
        paths=[images.name(index) for index in total["indices"].tolist()],
        targets=targets,
        target_names=[classifier.class_name(index) for index in targets.tolist()],
        labels=labels,
        label_names=None if labels is None else [classifier.class_name(index) for index in labels.tolist()],
        no_labels=no_labels,
        **{name: total[name] for name in ("confidence", "logits", "layers", "bias", "predicted", "probabilities")},
        completeness_error=float(total["errors"].max()),
        unreadable=list_unreadable(shards),
    )


class _AblateLayers:
    """Takes one batch through the network, with all ablations of the class token."""

    def __init__(self, classifier: Classifier, hit: HiT, indices: dict[str, int]) -> None:
        self.classifier, self.hit, self.indices = classifier, hit, indices
        self.keep = _keep_masks(layer_ablations(hit.config.num_layers), hit.config.num_layers).to(classifier.device)

    def __call__(self, number: int, read: Iterator[Sequence[Batch]]) -> _LayerShard:
        return measure_shard(_LayerShard, self._empty(), self._ablate, next(read), self.classifier)

    def _empty(self) -> tuple[np.ndarray, ...]:
        """Return the arrays of a batch without images."""
        num_ablations, num_layers = self.keep.shape
        count, value = np.zeros(0, np.int64), np.zeros(0, np.float32)
        layers, ablated = np.zeros((0, num_layers), np.float32), np.zeros((0, num_ablations), np.float32)
        return count, count, count, value, value, layers, value, ablated.astype(np.int64), ablated, value

    def _ablate(self, batch: Batch) -> tuple[np.ndarray, ...]:
        classifier = self.classifier
        split = self.hit.layer_split(
            batch.images, self.keep, lambda logits: classifier.check_logits(logits).argmax(1, keepdim=True)
        )
        # Probabilities, in single precision at least.
        whole, ablated = (classifier.probabilities(logits.float()) for logits in (split.logits, split.ablated))
        targets_per_ablation = split.targets.unsqueeze(1).expand(-1, len(self.keep), -1)
        tensors = (
            batch.labels,
            split.targets[:, 0],
            whole.gather(1, split.targets)[:, 0],
            split.target_logits()[:, 0].float(),
            split.layers[:, 0].float(),
            split.bias[:, 0].float(),
            _predict(split.ablated, split.logits),
            ablated.gather(2, targets_per_ablation)[..., 0],
            split.completeness_errors().float(),
        )
        return (np.array([self.indices[path] for path in batch.paths]), *(tensor.cpu().numpy() for tensor in tensors))


def _predict(ablated: Float[Tensor, "b k c"], logits: Logits) -> Int[Tensor, "b k"]:
    if logits.shape[1] > 1:
        return ablated.argmax(-1)
    return (decisions(ablated) == decisions(logits)[:, None]).long() - 1


def _keep_masks(ablations: list[Ablation], num_layers: int) -> Bool[Tensor, "k l"]:
    masks = torch.zeros(len(ablations), num_layers, dtype=torch.bool)
    for mask, ablation in zip(masks, ablations, strict=True):
        mask[list(ablation.kept)] = True
    return masks
