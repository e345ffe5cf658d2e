"""Birds whose species differ in one part of the body: a fine-grained task with a known answer."""

from vitrail.datasets.synthetic.birds.anatomy import PARTS, SPECIES, separating_parts
from vitrail.datasets.synthetic.birds.task import Birds

__all__ = ["PARTS", "SPECIES", "Birds", "separating_parts"]
