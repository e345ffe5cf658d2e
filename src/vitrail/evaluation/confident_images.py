"""Select the images that a model classifies correctly and confidently, to build mosaics from them."""

import torch

from vitrail.adapters import Classifier
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import ranking
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.datasets.sampler import ProcessShare
from vitrail.evaluation.accuracy import expect_several_classes, with_model_labels
from vitrail.evaluation.batches import index_by_name, read_batches
from vitrail.runs.results import expect_readable


def confident_images(
    classifier: Classifier, images: LabeledImages, batch_size: int = 64, num_workers: int = 0, threshold: float = 0.5
) -> list[int]:
    """Find the images that a model classifies correctly with a probability of at least `threshold`, most confident first.

    Unreadable images are left out. Pass the indices to `vitrail.datasets.synthetic.mosaics.make_mosaics` as `usable`. Costs one forward
    pass per image. Inside `vitrail.core.distributed.process_group`, the processes share the images and all return the same list.

    Raises:
        InvalidInputError: A threshold outside of [0, 1], no labels, classes that the model does not have, or a model with one logit.
        ImageError: Not a single image could be read.

    Source: the published code of Böhle et al. 2021, arXiv:2104.00032, takes images that are classified correctly with a confidence above
        one half, the most confident of each class first.

    Differs: There the logit passes a sigmoid, since each class is trained separately; here the activation is that of
        `Classifier.output`.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"expected a threshold between 0 and 1, got {threshold}")
    expect_several_classes(classifier)
    images = with_model_labels(images, classifier)
    predictions, unreadable = list[tuple[str, float, bool]](), list[Unreadable]()
    share = ProcessShare(len(images), rank(), world_size())
    with classifier.inspecting(), torch.no_grad():
        for batch in read_batches(classifier, images, share, batch_size, num_workers, "choosing", unreadable):
            logits = classifier.check_logits(classifier.logits(batch.images)).float()
            classes = ranking(logits, classifier.output).cpu().argmax(-1, keepdim=True)
            confidence = classifier.probabilities(logits).cpu().gather(1, classes).squeeze(1)
            correct = classes.squeeze(1) == batch.labels
            predictions += zip(batch.paths, confidence.tolist(), correct.tolist(), strict=True)
    predictions, unreadable = gather(predictions), gather(unreadable)
    expect_readable(len(predictions), len(images), unreadable)
    indices = index_by_name(images)
    confident = [
        (-probability, indices[path]) for path, probability, right in predictions if right and probability >= threshold
    ]
    return [index for _, index in sorted(confident)]
