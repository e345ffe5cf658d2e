"""The models that visitors may choose from: each loaded once, used by one request at a time."""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import final

from vitrail.adapters import Classifier, load
from vitrail.app.model_labels import labels
from vitrail.core.errors import InvalidInputError, VitrailError
from vitrail.core.registry import unknown_name

STOPPING = "the server is being stopped; ask again when it is back"


@final
class ModelPool:
    """Models by name; none but those named here is ever loaded, so that a visitor can name no path and no repository.

    A model that is in use stays alive until its question is answered: for as long there may be more than `most` in memory, by one for every
    question that is worked on.

    Args:
        names: As `vitrail.load` takes them.
        most: At most so many stay in memory, those used last; all of them if None.
        loader: From a name to a model.

    Attributes:
        names: What visitors call the models: the given names, but of paths only the last part, see `vitrail.app.model_labels`.
    """

    def __init__(self, names: Sequence[str], most: int | None = None, loader: Callable[[str], Classifier] = load) -> None:
        if not names or len(set(names)) < len(names):
            raise InvalidInputError(f"expected at least one model, each once, got {', '.join(names) or 'none'}")
        if most is not None and most < 1:
            raise InvalidInputError(f"expected room for at least one model, got {most}")
        self._labels = labels(names)
        self.names = tuple(self._labels)
        self._most, self._loader = most, loader
        # Hooks and modes belong to a network: two requests at once would meet in it.
        self._locks = {name: Lock() for name in self.names}
        self._loaded: OrderedDict[str, Classifier] = OrderedDict()
        self._coming = 0
        self._pool_lock, self._stopping = Lock(), Event()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, the one used last at the end."""
        with self._pool_lock:
            return tuple(self._loaded)

    def stop(self) -> None:
        """Lend no model from now on."""
        self._stopping.set()

    @contextmanager
    def use(self, name: str) -> Iterator[Classifier]:
        """Have a model for oneself, for the time of the block.

        Raises:
            UnknownNameError: A model that is not offered.
            VitrailError: It cannot be loaded, or the server is being stopped.
        """
        if name not in self._locks:
            raise unknown_name("model", str(name)[:80], list(self.names))
        with self._locks[name]:
            # Also for those that waited for the model when the end came.
            if self._stopping.is_set():
                raise VitrailError(STOPPING)
            yield self._fetch(name)

    def _fetch(self, name: str) -> Classifier:
        with self._pool_lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            self._coming += 1
            # Before the new one is there: both together might not fit.
            self._make_room()
        try:
            # A network in a circle of references is gone only when Python looks for them.
            gc.collect()
            classifier = self._labels[name].load(self._loader)
        except BaseException:
            with self._pool_lock:
                self._coming -= 1
            raise
        with self._pool_lock:
            self._coming -= 1
            self._loaded[name] = classifier
            self._make_room()
        return classifier

    def _make_room(self) -> None:
        while self._most is not None and self._loaded and len(self._loaded) + self._coming > self._most:
            self._loaded.popitem(last=False)
