"""Reading a pickle without running what it says: arrays of numbers, texts, lists and dictionaries only."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.named.annotations import damaged


def read_pickle(path: Path) -> Any:
    """Read plain data from a pickle, such as a batch of CIFAR-10.

    Raises:
        FileNotFoundError: No such file.
        InvalidInputError: It is damaged, or asks for anything but plain data.
    """
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin1").load()
        except OSError:
            raise
        except Exception as error:  # Damaged pickles raise nearly anything.
            raise damaged(path, f"expected arrays and lists in a pickle, {error}") from error


def _empty_array(_kind: Any, _shape: Any, _code: Any) -> np.ndarray:
    """What an array begins as; its content follows as a state, which numpy checks."""
    return np.empty(0, np.int8)


def _number_type(code: str, align: Any = False, copy: Any = False) -> np.dtype[Any]:
    kind = np.dtype(code, bool(align), bool(copy))
    if kind.kind not in "biuf":
        raise pickle.UnpicklingError(f"it asks for an array of {kind}, which are no numbers")
    return kind


def _latin1(text: str, _codec: str = "latin1") -> bytes:
    """How protocols below 3 write bytes."""
    return text.encode("latin1")


# An array's class is only named in the file, never called.
_ADMITTED: Mapping[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy", "ndarray"): "an array",
    ("numpy", "dtype"): _number_type,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("_codecs", "encode"): _latin1,
}


class _PlainUnpickler(pickle.Unpickler):
    """A pickle may name any function and have it called; this one finds only those above."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain data") from None
