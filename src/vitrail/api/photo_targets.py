"""The classes to explain, in any form that Python programs give them."""

from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.photo_objects import is_photo


class PhotoTargets:
    """The classes to explain, photo by photo.

    Args:
        target: A class index or name for all photos, or None for the predicted class; or for every photo one class or a list of classes;
            or, for a single photo, a list of classes.
        photos: The photos; only looked at to see whether they are a single one.
        classifier: Resolves names of classes.
    """

    def __init__(self, target: Any, photos: Any, classifier: Classifier) -> None:
        self.given, self.num_taken = target, 0
        self.common = target is None or (isinstance(target, Integral | str) and not isinstance(target, bool))
        if self.common:
            return
        try:
            targets = target.tolist() if isinstance(target, Tensor | np.ndarray) else list(target)
            targets = [one.tolist() if isinstance(one, Tensor | np.ndarray) else one for one in targets]
            nested = [list(one) if isinstance(one, tuple | list | range) else one for one in targets]
        except TypeError as error:
            raise InvalidInputError(f"expected a class, a class per photo, or lists of classes, got {target!r}") from error
        if _is_single(photos) and len(nested) != 1 and not any(isinstance(one, list) for one in nested):
            nested = [nested]
        self.classes = [
            [_resolve(name, classifier) for name in one] if isinstance(one, list) else [_resolve(one, classifier)]
            for one in nested
        ]
        if not all(self.classes):
            raise InvalidInputError(f"expected at least one class per photo, got {target!r}")
        known = len(photos) if isinstance(photos, list | tuple) and all(map(is_photo, photos)) else None
        if known is not None and known != len(self.classes):
            raise self._wrong_number(known)

    def take(self, count: int) -> list[list[Any]]:
        """Return the classes of the next photos; None is the predicted class.

        Raises:
            InvalidInputError: There are more photos than targets.
        """
        self.num_taken += count
        if self.common:
            return [[self.given]] * count
        if self.num_taken > len(self.classes):
            raise self._wrong_number(self.num_taken)
        return self.classes[self.num_taken - count : self.num_taken]

    def finish(self) -> None:
        """Check that every target had its photo.

        Raises:
            InvalidInputError: There are more targets than photos, or no photos.
        """
        if not self.num_taken:
            raise InvalidInputError("expected at least one photo, got none")
        if not self.common and self.num_taken != len(self.classes):
            raise self._wrong_number(self.num_taken)

    def _wrong_number(self, num_photos: int) -> InvalidInputError:
        return InvalidInputError(f"expected {num_photos} targets, one per photo, got {self.given!r}")


def _resolve(name: Any, classifier: Classifier) -> int:
    if isinstance(name, str):
        return classifier.class_index(name)
    if isinstance(name, bool) or not isinstance(name, Integral):
        raise InvalidInputError(f"expected classes as whole numbers or names, got {name!r}")
    return int(name)


def _is_single(photos: Any) -> bool:
    """Return whether photos are a single one, without consuming any."""
    if isinstance(photos, Tensor):
        return photos.ndim == 3 or len(photos) == 1
    if isinstance(photos, np.ndarray):
        return photos.ndim < 4 or len(photos) == 1
    return is_photo(photos) or (isinstance(photos, list | tuple) and len(photos) == 1 and _is_single(photos[0]))
