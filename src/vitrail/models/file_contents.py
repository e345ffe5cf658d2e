"""Refuse weight files that unpack to far more than their size, and tensors that cannot be weights."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError

MAX_COMPRESSION = 20
"""Largest ratio of unpacked to packed size. torch does not compress, and trained weights hardly compress."""


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
