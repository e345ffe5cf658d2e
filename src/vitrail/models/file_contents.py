"""What a file of weights may hold: no more than its bytes, and numbers that weights can be."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError

MAX_COMPRESSION = 20
"""How many times its size a zipped file may unpack to; torch does not compress, and trained weights hardly can be."""


def refuse_bomb(path: Path) -> None:
    """Refuse a zipped file that says of itself that it unpacks to far more than it holds.

    Raises:
        CheckpointError: It does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return  # Not zipped, or damaged: torch says so.
    unpacked, stored = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    size = path.stat().st_size
    if unpacked > size * MAX_COMPRESSION or stored > size:
        raise CheckpointError(
            f"refused {path}: it has {size:,} bytes and would unpack to {unpacked:,}; expected a file as torch.save writes it"
        )


def oddity(tensor: Tensor) -> str | None:
    """Why a tensor cannot be a weight, or None."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return "sparse, quantized or without values"
    if tensor.is_complex():
        return "complex numbers"
    # A view may show few numbers as many, and copying it would make them so.
    return "larger than what is stored of it" if tensor.nbytes > tensor.untyped_storage().nbytes() else None
