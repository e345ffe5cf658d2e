"""Birds whose species differ in one body part: a fine-grained synthetic data set."""

from vitrail.datasets.synthetic.birds.anatomy import PARTS, SPECIES, separating_parts
from vitrail.datasets.synthetic.birds.dataset import Birds

__all__ = ["PARTS", "SPECIES", "Birds", "separating_parts"]
