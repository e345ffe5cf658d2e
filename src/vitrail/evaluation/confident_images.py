"""Select the images that a model classifies correctly and confidently, to build mosaics from them."""

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import LabeledImages
from vitrail.evaluation.accuracy import expect_several_classes, with_model_labels
from vitrail.evaluation.predictions import predict


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
    shards = predict(classifier, with_model_labels(images, classifier), batch_size, num_workers, "choosing")
    confident = [
        (-float(confidence), int(index))
        for shard in shards
        for index, right, confidence in zip(shard.indices, shard.top1, shard.confidence, strict=True)
        if right and confidence >= threshold
    ]
    return [index for _, index in sorted(confident)]
