"""Birds whose species differ in one part of the body: a fine-grained task with a known answer."""

from vitrail.data.birds.anatomy import PARTS, SPECIES, separating_parts
from vitrail.data.birds.task import Birds

__all__ = ["PARTS", "SPECIES", "Birds", "separating_parts"]
