"""The pool of offered models: each is loaded once and used by one request at a time."""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import final

from vitrail.adapters import Classifier
from vitrail.api.loading import load
from vitrail.app.model_names import map_display_names
from vitrail.core.errors import InvalidInputError, VitrailError
from vitrail.core.registry import unknown_name

STOPPING = "the server is being stopped; try again when it is back"


@final
class ModelPool:
    """Models by display name. No other model is ever loaded: clients cannot name a path or a repository.

    A model in use stays alive until its request is answered, so that there may be more than `max_loaded` in memory, by one for
    every request that is being worked on.

    Args:
        names: Names of the models, as `vitrail.load` takes them.
        max_loaded: Number of models that stay in memory, the most recently used ones; all if None.
        loader: Loads a model by name.

    Attributes:
        names: Display names, see `vitrail.app.model_names`.
    """

    def __init__(self, names: Sequence[str], max_loaded: int | None = None, loader: Callable[[str], Classifier] = load) -> None:
        if not names or len(set(names)) < len(names):
            raise InvalidInputError(f"expected at least one model, each once, got {', '.join(names) or 'none'}")
        if max_loaded is not None and max_loaded < 1:
            raise InvalidInputError(f"expected room for at least one model, got {max_loaded}")
        self._models = map_display_names(names)
        self.names = tuple(self._models)
        self._max_loaded, self._loader = max_loaded, loader
        # Hooks and modes belong to a network: two requests at once would interfere.
        self._locks = {name: Lock() for name in self.names}
        self._loaded: OrderedDict[str, Classifier] = OrderedDict()
        self._num_loading = 0
        self._pool_lock, self._stopping = Lock(), Event()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, the most recently used one last."""
        with self._pool_lock:
            return tuple(self._loaded)

    def stop(self) -> None:
        """Refuse all further uses."""
        self._stopping.set()

    @contextmanager
    def use(self, name: str) -> Iterator[Classifier]:
        """Use a model exclusively for the block.

        Raises:
            UnknownNameError: The model is not offered.
            VitrailError: It cannot be loaded, or the server is being stopped.
        """
        if name not in self._locks:
            raise unknown_name("model", str(name)[:80], list(self.names))
        with self._locks[name]:
            # Checked here for requests that waited for the model while the server was stopped.
            if self._stopping.is_set():
                raise VitrailError(STOPPING)
            yield self._fetch(name)

    def _fetch(self, name: str) -> Classifier:
        with self._pool_lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            self._num_loading += 1
            # Before the new model is loaded: both together might not fit.
            self._evict_models()
        try:
            # Networks with reference cycles are freed only by the garbage collector.
            gc.collect()
            classifier = self._models[name].load(self._loader)
        except BaseException:
            with self._pool_lock:
                self._num_loading -= 1
            raise
        with self._pool_lock:
            self._num_loading -= 1
            self._loaded[name] = classifier
            self._evict_models()
        return classifier

    def _evict_models(self) -> None:
        while self._max_loaded is not None and self._loaded and len(self._loaded) + self._num_loading > self._max_loaded:
            self._loaded.popitem(last=False)
