"""What visitors call a model: they need not learn where it lies on the disk."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError, VitrailError


@final
@dataclass(frozen=True)
class Offer:
    """A model on offer.

    Attributes:
        name: As `vitrail.load` takes it.
        path: The part of the name that is a path; empty if there is none.
    """

    name: str
    path: str = ""

    @classmethod
    def of(cls, name: str) -> "Offer":
        """Find the path in a name: `/models/birds.safetensors`, `hf:/models/birds`, `timm:local-dir:/models/birds`."""
        found = next(
            (each for each in (name, name.partition(":")[2], name.rpartition(":")[2]) if each and Path(each).exists()), ""
        )
        return cls(name, found)

    @property
    def label(self) -> str:
        """The name, without the folders of a path."""
        return self.name.removesuffix(self.path) + self._last if self.path else self.name

    @property
    def _last(self) -> str:
        last = Path(self.path).name
        return last if last not in ("", "..") else Path(self.path).resolve().name

    def without_folders(self, text: str) -> str:
        """A text in which the path is its last part."""
        wholes = {self.path, str(Path(self.path)), str(Path(self.path).resolve())} if self.path else set[str]()
        # The longest first: one may be a part of another. What is no more than a name tells no folder.
        for whole in sorted((each for each in wholes if len(Path(each).parts) > 1), key=len, reverse=True):
            text = text.replace(whole, self._last)
        return text

    def load(self, loader: Callable[[str], Classifier]) -> Classifier:
        """Load the model; neither its own name nor an error tells the path.

        Raises:
            VitrailError: It cannot be loaded.
        """
        try:
            classifier = loader(self.name)
        except VitrailError as error:
            told = self.without_folders(str(error))
            if told == str(error):
                raise
            raise VitrailError(told) from error
        return replace(classifier, name=self.without_folders(classifier.name)) if self.path else classifier


def labels(names: Sequence[str]) -> Mapping[str, Offer]:
    """Models by what visitors call them, in the given order.

    Raises:
        InvalidInputError: Two would be called the same.
    """
    offers = [Offer.of(name) for name in names]
    shared = [label for label, count in Counter(offer.label for offer in offers).items() if count > 1]
    if shared:
        paths = " and ".join(offer.name for offer in offers if offer.label == shared[0])
        raise InvalidInputError(
            f"expected models that are called differently, got {paths}, which visitors would both see as {shared[0]!r}; rename or link one"
        )
    return {offer.label: offer for offer in offers}
