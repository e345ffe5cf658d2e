"""The data set of birds whose species differ in one body part."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.mask_files import Mask
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SYNTHETIC, SyntheticDataset, SyntheticSample
from vitrail.datasets.synthetic.birds.anatomy import PARTS, SPECIES, deciding_parts
from vitrail.datasets.synthetic.birds.bird import paint_bird
from vitrail.datasets.synthetic.birds.canvas import Canvas
from vitrail.datasets.synthetic.birds.cue import choose_cue, paint_cue
from vitrail.datasets.synthetic.birds.perch import paint_perch
from vitrail.datasets.synthetic.birds.plumage import Plumage
from vitrail.datasets.synthetic.birds.pose import Pose
from vitrail.datasets.synthetic.birds.scene import apply_light, paint_background


@SYNTHETIC.register("birds")
@dataclass(frozen=True)
class Birds(SyntheticDataset):
    """Small birds on a branch; every species is the common bird with a variant of one part.

    Pose, position, size, light, background and all colors that do not mark a species vary from bird to bird. Besides the ground truth,
    a sample has masks of the parts ("beak", "wing", "tail", "crest", "legs", "breast"; the crest of most birds is empty), of the whole
    "bird" and, with `spurious`, of the "cue". A mask contains the pixels that show the part in more than half of their area.

    The ground truth of a species is the part that differs from the common bird. The ground truth of the common bird, class 0, consists
    of all parts in which another class of the data set differs.

    Args:
        size: Height and width in pixels, 64 to 256.
        num_classes: Number of species, 2 to 13, in the order of `SPECIES`.
        spurious: Above 0, a spurious cue, a flower, grows beside the bird. With this probability its color indicates the class of the
            bird, else a random other class. So 1 / num_classes makes it uninformative, and 1 makes it perfectly predictive. Birds and
            scenes do not depend on this value.

    Raises:
        InvalidInputError: A field is out of range.
    """

    size: int = 96
    num_classes: int = 9
    spurious: float = 0.0

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 256:
            raise InvalidInputError(f"expected a size of 64 to 256 pixels, got {self.size}")
        if not 2 <= self.num_classes <= len(SPECIES):
            raise InvalidInputError(f"expected 2 to {len(SPECIES)} classes, got {self.num_classes}")
        if not 0 <= self.spurious <= 1:
            raise InvalidInputError(f"expected spurious to be a probability from 0 to 1, got {self.spurious}")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(species.name for species in SPECIES[: self.num_classes])

    @property
    def image_size(self) -> tuple[int, int]:
        return self.size, self.size

    def draw(self, split: str, index: int) -> SyntheticSample:
        if index < 0:
            raise InvalidInputError(f"expected an index of at least 0, got {index}")
        return self.paint(index % self.num_classes, self.random(split, index))

    def paint(self, label: int, random: np.random.Generator) -> SyntheticSample:
        """Draw a bird of a class. With equal random numbers, two classes differ only in their separating parts.

        Raises:
            InvalidInputError: There is no such class.
        """
        if not 0 <= label < self.num_classes:
            raise InvalidInputError(f"expected a class of 0 to {self.num_classes - 1}, got {label}")
        skeleton, plumage = Pose.sample(random).place(self.size, random), Plumage.sample(random)
        canvas = Canvas(paint_background(self.size, random))
        cue = choose_cue(label, self.num_classes, self.spurious, random)
        paint_perch(canvas, skeleton, self.size, random)
        paint_cue(canvas, cue if self.spurious else None, skeleton, self.size, random)
        paint_bird(canvas, skeleton, plumage, label, random)
        pixels = np.clip(apply_light(canvas, skeleton, random).round(), 0, 255).astype(np.uint8)
        return SyntheticSample(Image.fromarray(pixels), label, self._masks(canvas, label))

    def _masks(self, canvas: Canvas, label: int) -> dict[str, Mask]:
        masks: dict[str, Mask] = {part: canvas.mask(part) for part in PARTS}
        deciding = np.any([masks[part] for part in deciding_parts(label, self.num_classes)], axis=0)
        masks |= {"bird": canvas.mask("bird"), GROUND_TRUTH: deciding}
        return masks | {"cue": canvas.mask("cue")} if self.spurious else masks
