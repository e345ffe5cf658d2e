"""The models that visitors may choose from: each loaded once, used by one request at a time."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import final

from vitrail.adapters import Classifier, load
from vitrail.errors import InvalidInputError
from vitrail.registry import unknown_name


@final
class ModelShelf:
    """Models by name; none but those named here is ever loaded, so that a visitor can name no path and no repository.

    Args:
        names: As `vitrail.load` takes them.
        most: At most so many stay in memory, those used last; all of them if None.
        loader: From a name to a model.
    """

    def __init__(self, names: Sequence[str], most: int | None = None, loader: Callable[[str], Classifier] = load) -> None:
        if not names or len(set(names)) < len(names):
            raise InvalidInputError(f"expected at least one model, each once, got {', '.join(names) or 'none'}")
        if most is not None and most < 1:
            raise InvalidInputError(f"expected room for at least one model, got {most}")
        self.names = tuple(names)
        self._most, self._loader = most, loader
        # Hooks and modes belong to a network: two requests at once would meet in it.
        self._locks = {name: Lock() for name in names}
        self._loaded: OrderedDict[str, Classifier] = OrderedDict()
        self._shelf_lock = Lock()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, the one used last at the end."""
        with self._shelf_lock:
            return tuple(self._loaded)

    @contextmanager
    def use(self, name: str) -> Iterator[Classifier]:
        """Have a model for oneself, for the time of the block.

        Raises:
            UnknownNameError: A model that is not offered.
        """
        if name not in self._locks:
            raise unknown_name("model", str(name)[:80], list(self.names))
        with self._locks[name]:
            yield self._fetch(name)

    def _fetch(self, name: str) -> Classifier:
        with self._shelf_lock:
            classifier = self._loaded.get(name)
        if classifier is None:
            classifier = self._loader(name)
        with self._shelf_lock:
            self._loaded[name] = classifier
            self._loaded.move_to_end(name)
            # A model that is in use stays alive with its user.
            while self._most is not None and len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
        return classifier
