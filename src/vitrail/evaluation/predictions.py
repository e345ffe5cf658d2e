"""What a model predicts for labeled images, in one pass: whether it is right, and how sure it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from vitrail.adapters import Classifier
from vitrail.core.outputs import ranking
from vitrail.datasets.collate import collate_by_size
from vitrail.datasets.dataset import Batch, LabeledImages
from vitrail.evaluation.batches import index_by_name, measure_shard
from vitrail.runs.loop import Batches, Pass
from vitrail.runs.shards import Shard, ShardStore


@dataclass(frozen=True, eq=False)
class PredictionShard(Shard):
    """The predictions for one batch of images.

    Attributes:
        indices: Indices of the images in the data set.
        top1: Whether the label is the most probable class.
        top5: Whether the label is among the five most probable classes.
        confidence: Probability of the most probable class.
    """

    indices: Int[np.ndarray, " images"]
    top1: Bool[np.ndarray, " images"]
    top5: Bool[np.ndarray, " images"]
    confidence: Float[np.ndarray, " images"]


def predict(
    classifier: Classifier,
    images: LabeledImages,
    batch_size: int,
    num_workers: int,
    description: str,
    folder: Path | None = None,
    key: str = "",
) -> list[PredictionShard]:
    """Predict the class of images, whose labels are those of the model.

    Args:
        description: What is being done, for the progress.
        folder: Folder for the results of every batch, shared by all processes; batches with results there are not computed again.

    Raises:
        ImageError: Not a single image could be read.
        ProcessError: A process that reads images was killed.
    """
    indices = index_by_name(images)

    def compute(number: int, read: Iterator[Sequence[Batch]]) -> PredictionShard:
        empty = (np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool), np.zeros(0))
        return measure_shard(
            PredictionShard, empty, lambda batch: _predict_batch(classifier, batch, indices), next(read), classifier
        )

    store = None if folder is None else ShardStore(folder, key, PredictionShard)
    with classifier.inspecting(), torch.no_grad():
        return Pass(Batches(images, batch_size, collate_by_size, num_workers), compute, description, store).run()


def _predict_batch(classifier: Classifier, batch: Batch, indices: dict[str, int]) -> tuple[np.ndarray, ...]:
    logits = classifier.check_logits(classifier.logits(batch.images)).float()
    ranked = ranking(logits, classifier.output).cpu().topk(min(5, logits.shape[1])).indices
    correct = ranked == batch.labels[:, None]
    return (
        np.array([indices[path] for path in batch.paths]),
        correct[:, 0].numpy(),
        correct.any(1).numpy(),
        classifier.probabilities(logits).amax(-1).cpu().double().numpy(),
    )
