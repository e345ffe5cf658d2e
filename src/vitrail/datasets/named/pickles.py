"""Reading a pickle without running what it says: arrays of numbers, texts, lists and dictionaries only."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.files import regular_file
from vitrail.datasets.named.annotations import damaged


def read_pickle(path: Path) -> Any:
    """Read plain data from a pickle, such as a batch of CIFAR-10.

    Raises:
        FileNotFoundError: No such file.
        InvalidInputError: It is damaged, or asks for anything but plain data.
    """
    with regular_file(path).open("rb") as file:
        try:
            content = _PlainUnpickler(file, encoding="latin1").load()
        except OSError:
            raise
        except Exception as error:  # Damaged pickles raise nearly anything.
            raise damaged(path, f"expected arrays and lists in a pickle, {error}") from error
    if isinstance(content, dict):
        return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}
    return content.array if isinstance(content, _Array) else content


class _NumberType:
    """A kind of numbers. Not numpy's own, which takes flags from a file that let it read bytes as pointers."""

    def __init__(self, code: str, align: Any = False, copy: Any = False) -> None:
        self.kind = np.dtype(code)
        if self.kind.kind not in "biuf":
            raise pickle.UnpicklingError(f"it asks for an array of {self.kind}, which are no numbers")

    def __setstate__(self, state: Any) -> None:
        order, parts = state[1], state[2:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in parts):
            raise pickle.UnpicklingError("it asks for an array of numbers with parts")
        self.kind = self.kind.newbyteorder(order)


class _Array:
    """What an array begins as; its content follows as a state."""

    def __init__(self, _kind: Any, _shape: Any, _code: Any) -> None:
        self.array = np.empty(0, np.int8)

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, by_columns, content = state
        if not isinstance(kind, _NumberType) or not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("it asks for an array of something else than numbers")
        # Bytes of Python 2 come as text.
        content = content.encode("latin1") if isinstance(content, str) else content
        self.array = np.frombuffer(content, kind.kind).reshape(shape, order="F" if by_columns else "C")


def _number_type(*described: Any) -> _NumberType:
    return _NumberType(*described)


def _empty_array(*described: Any) -> _Array:
    return _Array(*described)


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
