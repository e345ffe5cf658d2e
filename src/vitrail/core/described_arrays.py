"""Files of named arrays (.npz) with a description in JSON beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.core.files import atomic_write, regular_file
from vitrail.core.json_io import json_text, read_json


def write_arrays(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors to an .npz file, and a description to the .json file beside it; both appear once both are complete.

    Args:
        path: The .npz file.
        tensors: By name; half precision becomes single precision.
        description: Plain values.

    Raises:
        OutputError: A file cannot be written; existing files stay intact.
    """
    text = json_text(description, indent=2)
    arrays: dict[str, Any] = {
        # numpy has no bfloat16, and results are not stored in half precision.
        name: (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).detach().cpu().numpy()
        for name, value in tensors.items()
    }
    with atomic_write(path) as partial, atomic_write(path.with_suffix(".json")) as partial_json:
        np.savez_compressed(partial, **arrays)
        partial_json.write_text(text, encoding="utf-8")


def read_arrays(path: Path, file_format: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the tensors and the description that `write_arrays` wrote.

    Damaged files raise errors of many types: of zip archives, of JSON, of missing keys.

    Args:
        path: The .npz file.
        file_format: What the description must have as its "format".

    Raises:
        ValueError: The files are of another format.
    """
    description = read_json(path.with_suffix(".json"))
    with np.load(regular_file(path), allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if description.get("format") != file_format:
        raise ValueError(f"expected the format {file_format!r}, got {description.get('format')!r}")
    return tensors, description


def npz_path(path: str | Path) -> Path:
    """Return a path with the suffix .npz, which is appended where it is missing."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
