"""A fine-grained task: birds of species that differ in one part of the body."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.synthetic.base import ANSWER, SYNTHETIC, Mask, SyntheticDataset, SyntheticSample
from vitrail.datasets.synthetic.birds.anatomy import PARTS, SPECIES, deciding_parts
from vitrail.datasets.synthetic.birds.background import paint_background
from vitrail.datasets.synthetic.birds.bird import paint_bird
from vitrail.datasets.synthetic.birds.canvas import Canvas
from vitrail.datasets.synthetic.birds.cue import choose_cue, paint_cue
from vitrail.datasets.synthetic.birds.light import lit
from vitrail.datasets.synthetic.birds.perch import paint_perch
from vitrail.datasets.synthetic.birds.plumage import Plumage
from vitrail.datasets.synthetic.birds.pose import Pose


@SYNTHETIC.register("birds")
@dataclass(frozen=True)
class Birds(SyntheticDataset):
    """Small birds on a branch; every species is the common bird with one part of another kind.

    Pose, place, size, light, background and all colors that no species is told by vary from bird to bird. Besides the
    answer, a sample has a mask per part ("beak", "wing", "tail", "crest", "legs", "breast"; empty where a bird has no
    crest), of the whole "bird" and, where there is one, of the "cue". A mask holds the pixels of which more than half is
    visible as the part.

    The answer of a species is the part that the common bird has of another kind. That of the common bird, class 0, is every
    part of it that another class of the task could have had different.

    Args:
        seed: Another seed, other images.
        size: Height and width in pixels, 64 to 256.
        num_classes: How many of the species, 2 to 13, in the order of `SPECIES`.
        spurious: Above 0, a flower grows beside the bird: with this probability it has the color that goes with the bird's
            own class, else that of another class, each as likely. So 1 / num_classes says nothing of the class, and 1 all.
            The birds and scenes are the same for every value.

    Raises:
        InvalidInputError: A field out of its range.
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
            raise InvalidInputError(f"expected a spurious share of 0 to 1, got {self.spurious}")

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
        """Draw a bird of a class; from the same random numbers, two classes differ in nothing but their separating parts.

        Raises:
            InvalidInputError: No such class.
        """
        if not 0 <= label < self.num_classes:
            raise InvalidInputError(f"expected a class of 0 to {self.num_classes - 1}, got {label}")
        skeleton, plumage = Pose.sample(random).place(self.size, random), Plumage.sample(random)
        canvas = Canvas(paint_background(self.size, random))
        cue = choose_cue(label, self.num_classes, self.spurious, random)
        paint_perch(canvas, skeleton, self.size, random)
        paint_cue(canvas, cue if self.spurious else None, skeleton, self.size, random)
        paint_bird(canvas, skeleton, plumage, label, random)
        pixels = np.clip(lit(canvas, skeleton, random).round(), 0, 255).astype(np.uint8)
        return SyntheticSample(Image.fromarray(pixels), label, self._masks(canvas, label))

    def _masks(self, canvas: Canvas, label: int) -> dict[str, Mask]:
        masks: dict[str, Mask] = {part: canvas.mask(part) for part in PARTS}
        answer = np.any([masks[part] for part in deciding_parts(label, self.num_classes)], axis=0)
        masks |= {"bird": canvas.mask("bird"), ANSWER: answer}
        return masks | {"cue": canvas.mask("cue")} if self.spurious else masks
