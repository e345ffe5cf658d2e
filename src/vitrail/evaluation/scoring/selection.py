"""The images of a run, with what is known to decide them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.ground_truth import GroundTruthImages, attach_boxes, attach_ground_truth, attach_masks
from vitrail.datasets.synthetic.mosaics import mosaics
from vitrail.evaluation.accuracy import with_model_labels
from vitrail.evaluation.confident_images import confident_images
from vitrail.evaluation.scoring.engine import LABEL
from vitrail.evaluation.scoring.plan import Plan


@dataclass(frozen=True)
class Selection:
    """Which images are scored, which class is explained, and where ground_truth come from.

    Attributes:
        limit: At most so many images, evenly spread; of mosaics the first ones.
        target: Class to explain; None for the predicted one, "label" for the label of every image. Of mosaics always the label.
        masks: A folder of masks, below which they lie as the images do below `root`.
        root: Where the images lie.
        boxes: Whether the answer is the box around the labeled object.
        mosaic: Cells a side of mosaics, whose answer is the cell that shows the asked class; None for images as they are.
    """

    limit: int | None = None
    target: int | str | None = None
    masks: Path | None = None
    root: Path | None = None
    boxes: bool = False
    mosaic: int | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in (("masks", self.masks), ("boxes", self.boxes), ("mosaic", self.mosaic)) if value]
        if len(given) > 1:
            raise InvalidInputError(f"expected one source of ground_truth, got {' and '.join(given)}")
        if self.mosaic is not None and self.target not in (None, LABEL):
            raise InvalidInputError(
                f"expected no target for mosaics, which ask for the class of each cell, got {self.target!r}"
            )

    @property
    def explained(self) -> int | str | None:
        """The target, as `score` takes it."""
        return LABEL if self.mosaic is not None else self.target

    def apply(
        self, images: LabeledImages, classifier: Classifier, plan: Plan, batch_size: int = 64, num_workers: int = 0
    ) -> LabeledImages:
        """Choose the images, and put ground_truth beside them.

        Mosaics are made of images that the model is right about and sure of, which takes a forward pass each.

        Raises:
            InvalidInputError: Labels, masks, boxes or ground_truth that are asked for and not there.
        """
        preprocessing = classifier.preprocessing
        if self.mosaic is not None:
            usable = confident_images(classifier, images, batch_size, num_workers)
            # Classes are told apart by the folders' names; the model's come after.
            return with_model_labels(mosaics(images, self.mosaic, self.limit, usable=usable), classifier)
        if self.explained == LABEL:
            images = with_model_labels(images, classifier)
        images = images.spread(self.limit)
        if self.masks is not None:
            images = attach_masks(images, preprocessing, self.masks, self.root or Path())
        elif self.boxes:
            images = attach_boxes(images, preprocessing)
        else:
            images = attach_ground_truth(images, preprocessing)
        if plan.needs_ground_truth and not isinstance(images, GroundTruthImages):
            raise InvalidInputError(
                f"expected to know what decides for {', '.join(plan.needs_ground_truth)}, found no ground_truth beside the images; give "
                "a folder of `vitrail generate`, or (on the command line) --masks, --boxes or --mosaic"
            )
        return images

    def describe(self) -> dict[str, Any]:
        """Which images it chooses, ready for JSON."""
        masks = None if self.masks is None else str(real_path(self.masks))
        return {"limit": self.limit, "masks": masks, "boxes": self.boxes, "mosaic": self.mosaic}
