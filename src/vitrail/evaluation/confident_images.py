"""Which images a model is sure of, and right about: those that mosaics are made of."""

import torch

from vitrail.adapters import Classifier
from vitrail.core.distributed import gather, rank, world_size
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import ranking
from vitrail.datasets.dataset import LabeledImages, Unreadable
from vitrail.datasets.sampler import ProcessShare
from vitrail.evaluation.accuracy import expect_several_classes, with_model_labels
from vitrail.evaluation.batches import expect_readable, places, read_batches


def confident_images(
    classifier: Classifier, images: LabeledImages, batch_size: int = 64, num_workers: int = 0, threshold: float = 0.5
) -> list[int]:
    """Find the images that a model classifies correctly with at least a probability of `threshold`, the surest ones first.

    What cannot be read is left out. Give the places to `vitrail.datasets.synthetic.mosaics.mosaics` as `usable`. One forward pass an image.

    Inside `vitrail.core.distributed.process_group`, each process takes its share of the images, and all get the same list.

    Raises:
        InvalidInputError: A threshold that is no probability, no labels, classes that the model does not have, or a model that has
            but one.
        ImageError: Not one image could be read.

    Source: the published code of Böhle et al. 2021, arXiv:2104.00032, takes images that are classified correctly, the surest of each
        class first, above one half.

    Differs: There the logit passes a sigmoid, since each class is trained apart; here it passes what `Classifier.output` names.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"expected a threshold between 0 and 1, got {threshold}")
    expect_several_classes(classifier)
    images = with_model_labels(images, classifier)
    found, unreadable = list[tuple[str, float, bool]](), list[Unreadable]()
    share = ProcessShare(len(images), rank(), world_size())
    with classifier.inspecting(), torch.no_grad():
        for batch in read_batches(classifier, images, share, batch_size, num_workers, "choosing", unreadable):
            logits = classifier.check_logits(classifier.logits(batch.images)).float()
            classes = ranking(logits, classifier.output).cpu().argmax(-1, keepdim=True)
            sure = classifier.probabilities(logits).cpu().gather(1, classes).squeeze(1)
            found += zip(batch.paths, sure.tolist(), (classes.squeeze(1) == batch.labels).tolist(), strict=True)
    found, unreadable = gather(found), gather(unreadable)
    expect_readable(len(found), images, unreadable)
    place = places(images)
    chosen = [(-probability, place[path]) for path, probability, right in found if right and probability >= threshold]
    return [index for _, index in sorted(chosen)]
