"""vit-pytorch (lucidrains) as a library of networks: networks that a user has built and trained."""

from typing import Any, ClassVar, final

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.library import Library
from vitrail.adapters.vit_pytorch.adapter import adapt_vit_pytorch
from vitrail.core.errors import InvalidInputError


@final
class VitPytorchLibrary(Library):
    """Classifiers of vit-pytorch, which has no trained weights and no names of networks."""

    title: ClassVar[str] = "vit-pytorch"

    adapt = staticmethod(adapt_vit_pytorch)

    def load(self, name: str, **options: Any) -> Classifier:
        raise InvalidInputError(
            f"expected a library with trained networks, got vit-pytorch:{name}; build the network, load its weights, and pass it to "
            "vitrail.adapt"
        )
