"""Reading a pickle safely: only arrays of numbers, strings, lists and dictionaries, and no code.

Not torch.load(weights_only=True), which reads torch's own files, nor pickle.load, as torchvision does, which runs code from the file.
"""

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
        FileNotFoundError: The file does not exist.
        InvalidInputError: It is damaged, or contains anything but plain data.
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
    """Stand-in for numpy.dtype, which would accept flags from the file that make it read bytes as pointers."""

    def __init__(self, code: str, align: Any = False, copy: Any = False) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it contains an array of {self.dtype}, which are not numbers")

    def __setstate__(self, state: Any) -> None:
        byte_order, sub_types = state[1], state[2:5]
        if byte_order not in ("<", ">", "=", "|") or any(sub_type is not None for sub_type in sub_types):
            raise pickle.UnpicklingError("it contains a structured array")
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """Stand-in for an array, which a pickle first creates empty and then fills by `__setstate__`."""

    def __init__(self, _type: Any, _shape: Any, _code: Any) -> None:
        self.array = np.empty(0, np.int8)

    def __setstate__(self, state: Any) -> None:
        _version, shape, number_type, column_major, content = state
        if not isinstance(number_type, _NumberType) or not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("it contains an array of anything but numbers")
        # Bytes pickled by Python 2 arrive as text.
        content = content.encode("latin1") if isinstance(content, str) else content
        self.array = np.frombuffer(content, number_type.dtype).reshape(shape, order="F" if column_major else "C")


def _make_number_type(*arguments: Any) -> _NumberType:
    return _NumberType(*arguments)


def _make_array(*arguments: Any) -> _Array:
    return _Array(*arguments)


def _encode_latin1(text: str, _codec: str = "latin1") -> bytes:
    """Return bytes that a protocol below 3 wrote as text."""
    return text.encode("latin1")


# A pickle names the class of an array without calling it, so a placeholder is enough.
_ALLOWED: Mapping[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy", "ndarray"): "an array",
    ("numpy", "dtype"): _make_number_type,
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("_codecs", "encode"): _encode_latin1,
}


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler that resolves only the names above, so that a pickle cannot call arbitrary functions."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not plain data") from None
