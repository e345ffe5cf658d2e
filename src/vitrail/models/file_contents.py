"""Find the weights in a pickled file; refuse files that unpack to far more than their size, and tensors that cannot be weights."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError

MAX_COMPRESSION = 20
"""Largest ratio of unpacked to packed size. torch does not compress, and trained weights hardly compress."""

STATES = ("model", "state_dict")
"""Keys of the weights in training files, the first that exists counts; other groups are chosen by what fits the network."""

MAX_DEPTH = 2
"""Nesting of groups of weights in a file."""


def find_states(content: Mapping[Any, Any], key: str = "", depth: int = 0) -> dict[str, dict[str, Tensor]]:
    """Return all groups of named tensors in the content of a file, by key; keys of nested groups are joined by dots."""
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    found = {key: tensors} if tensors else {}
    for name, value in content.items() if depth < MAX_DEPTH else ():
        if isinstance(name, str) and isinstance(value, Mapping):
            found |= find_states(value, f"{key}.{name}" if key else name, depth + 1)
    return found


def choose_state(states: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Return the key of the group that is a file's weights, where no network tells: of several unknown ones the largest."""
    known = next((key for key in (*STATES, "") if key in states), None)
    return max(states, key=lambda key: len(states[key])) if known is None else known


def refuse_zip_bomb(path: Path) -> None:
    """Refuse a zip file that declares far more unpacked data than its size.

    Raises:
        CheckpointError: It exceeds `MAX_COMPRESSION`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return  # Not a zip file, or damaged, which torch reports.
    unpacked, stored = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    size = path.stat().st_size
    if unpacked > size * MAX_COMPRESSION or stored > size:
        raise CheckpointError(
            f"refused {path}: it has {size:,} bytes and would unpack to {unpacked:,}; expected a file as torch.save writes it"
        )


def find_tensor_fault(tensor: Tensor) -> str | None:
    """Return why a tensor cannot be a weight, or None."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return "sparse, quantized or without values"
    if tensor.is_complex():
        return "complex numbers"
    # An expanded view of few numbers would become large when copied.
    return "larger than what is stored of it" if tensor.nbytes > tensor.untyped_storage().nbytes() else None
