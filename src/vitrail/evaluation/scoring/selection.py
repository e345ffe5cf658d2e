"""Choose the images of a scoring run, and attach their ground truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import real_path
from vitrail.datasets.dataset import LabeledImages
from vitrail.datasets.ground_truth import GroundTruthImages, attach_boxes, attach_ground_truth, attach_masks
from vitrail.datasets.synthetic.mosaics import make_mosaics
from vitrail.evaluation.accuracy import with_model_labels
from vitrail.evaluation.confident_images import confident_images
from vitrail.evaluation.scoring.plan import Plan

LABEL = "label"
"""As a target: the label of every image."""


@dataclass(frozen=True)
class Selection:
    """Which images are scored, which class is explained, and where ground truth comes from.

    Attributes:
        limit: Maximum number of images, evenly spread; of mosaics, the first ones.
        target: Class to explain; None for the predicted one, "label" for the label of every image. For mosaics always the label.
        masks: A folder of masks, laid out like the images below `root`.
        root: Folder of the images.
        boxes: Whether the ground truth is the box around the labeled object.
        mosaic: Cells per side of mosaics, whose ground truth is the cell of the explained class; None for single images.
    """

    limit: int | None = None
    target: int | str | None = None
    masks: Path | None = None
    root: Path | None = None
    boxes: bool = False
    mosaic: int | None = None

    def __post_init__(self) -> None:
        sources = [name for name, value in (("masks", self.masks), ("boxes", self.boxes), ("mosaic", self.mosaic)) if value]
        if len(sources) > 1:
            raise InvalidInputError(f"expected one source of ground truth, got {' and '.join(sources)}")
        if self.mosaic is not None and self.target not in (None, LABEL):
            raise InvalidInputError(
                f"expected no target for mosaics, where the class of each cell is explained, got {self.target!r}"
            )

    @property
    def explained(self) -> int | str | None:
        """The target, as `score` takes it."""
        return LABEL if self.mosaic is not None else self.target

    def apply(
        self, images: LabeledImages, classifier: Classifier, plan: Plan, batch_size: int = 64, num_workers: int = 0
    ) -> LabeledImages:
        """Choose the images, and attach their ground truth.

        Mosaics are made of images that the model classifies correctly and confidently, which takes a forward pass per image.

        Raises:
            InvalidInputError: Labels, masks, boxes or other ground truth are missing.
        """
        preprocessing = classifier.preprocessing
        if self.mosaic is not None:
            usable = confident_images(classifier, images, batch_size, num_workers)
            # Mosaics are composed by folder names; labels of the model follow.
            return with_model_labels(make_mosaics(images, self.mosaic, self.limit, usable=usable), classifier)
        if self.explained == LABEL:
            images = with_model_labels(images, classifier)
        if self.boxes:
            return attach_boxes(images, preprocessing).subsample(self.limit)
        images = images.subsample(self.limit)
        if self.masks is not None:
            images = attach_masks(images, preprocessing, self.masks, self.root or Path())
        else:
            images = attach_ground_truth(images, preprocessing)
        if plan.needs_ground_truth and not isinstance(images, GroundTruthImages):
            raise InvalidInputError(
                f"expected ground truth for {', '.join(plan.needs_ground_truth)}, found none beside the images; use a folder of `vitrail "
                "generate`, or (on the command line) --masks, --boxes or --mosaic"
            )
        return images

    def describe_in_words(self, source: str, is_limited: bool) -> str:
        """Describe how the images were chosen, to follow their number.

        Args:
            source: Where they come from.
            is_limited: Whether there were more than the limit.
        """
        if self.mosaic is not None:
            return f"mosaics of {self.mosaic}x{self.mosaic} confidently classified images of {source}"
        return f"evenly spread over {source}" if is_limited else f"all of {source}"

    def describe(self) -> dict[str, Any]:
        """Return the settings for the manifest of a run, ready for JSON."""
        masks = None if self.masks is None else str(real_path(self.masks))
        return {"limit": self.limit, "masks": masks, "boxes": self.boxes, "mosaic": self.mosaic}
