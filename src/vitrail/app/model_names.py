"""Display names of models, which hide where a model lies on the disk."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError, VitrailError


@final
@dataclass(frozen=True)
class OfferedModel:
    """A model that the service offers.

    Attributes:
        name: Name of the model, as `vitrail.load` takes it.
        path: The part of the name that is a path; empty if there is none.
    """

    name: str
    path: str = ""

    @classmethod
    def of(cls, name: str) -> "OfferedModel":
        """Find the path in a name: `/models/birds.safetensors`, `hf:/models/birds`, `timm:local-dir:/models/birds`, `/nets.py:birds`."""
        candidates = (name, name.partition(":")[2], name.rpartition(":")[2], name.rpartition(":")[0])
        return cls(name, next((path for path in candidates if path and Path(path).exists()), ""))

    @property
    def display_name(self) -> str:
        """The name with the last part of the path only."""
        return self.name.replace(self.path, self._last, 1) if self.path else self.name

    @property
    def _last(self) -> str:
        last = Path(self.path).name
        return last if last not in ("", "..") else Path(self.path).resolve().name

    def hide_folders(self, text: str) -> str:
        """Replace the path by its last part in a text."""
        paths = {self.path, str(Path(self.path)), str(Path(self.path).resolve())} if self.path else set[str]()
        # The longest first, since one may contain another. A path of one part has no folders.
        for path in sorted((path for path in paths if len(Path(path).parts) > 1), key=len, reverse=True):
            text = text.replace(path, self._last)
        return text

    def load(self, loader: Callable[[str], Classifier]) -> Classifier:
        """Load the model; neither its name nor an error contains folders.

        Raises:
            VitrailError: It cannot be loaded.
        """
        try:
            classifier = loader(self.name)
        except VitrailError as error:
            message = self.hide_folders(str(error))
            if message == str(error):
                raise
            raise VitrailError(message) from error
        return replace(classifier, name=self.hide_folders(classifier.name)) if self.path else classifier


def map_display_names(names: Sequence[str]) -> Mapping[str, OfferedModel]:
    """Return the models by display name, in the given order.

    Raises:
        InvalidInputError: Two models have the same display name.
    """
    models = [OfferedModel.of(name) for name in names]
    duplicates = [name for name, count in Counter(model.display_name for model in models).items() if count > 1]
    if duplicates:
        paths = " and ".join(model.name for model in models if model.display_name == duplicates[0])
        raise InvalidInputError(
            f"expected models with different display names, got {paths}, which users would both see as {duplicates[0]!r}; "
            "rename one or link to it"
        )
    return {model.display_name: model for model in models}
