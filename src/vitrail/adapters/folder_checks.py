"""Check folders of other libraries (a config.json beside weights) before their library builds the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vitrail.core.errors import CheckpointError, failures_as
from vitrail.core.files import regular_file
from vitrail.core.json_io import read_json
from vitrail.core.listing import shorten_list
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.limits import check_numbers

CONFIG = "config.json"
PREFERRED = (
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth", "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
)  # fmt: skip
"""Names of weight files, in the order in which timm and transformers look for them."""

SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
SAFE, PICKLED = ".safetensors", (".bin", ".pth", ".pt", ".tar")

FLOATING = ("F", "BF")
"""Prefixes of safetensors' floating-point types."""

BYTES = ("I8", "U8", "I16", "U16", "torch.int8", "torch.uint8", "torch.int16", "torch.uint16")
"""Types of quantized weights."""


def read_folder_config(folder: str | Path) -> dict[str, Any]:
    """Read a folder's config.json.

    Raises:
        CheckpointError: It cannot be read, or its numbers are out of range.
    """
    path = Path(folder) / CONFIG
    with failures_as(CheckpointError, f"cannot read {path}", causes=(OSError, ValueError)):
        config = read_json(path)
    if not isinstance(config, dict):
        raise CheckpointError(
            f"expected the config.json of timm (an object with an architecture) or of transformers (with a model_type) in {folder}, got a "
            f"{type(config).__name__}"
        )
    check_numbers(config, str(path))
    return config


def check_weight_files(folder: str | Path) -> int:
    """Check a folder's weight files before their library reads them, which would cast any numbers to weights.

    Returns:
        Their size in bytes.

    Raises:
        CheckpointError: A file is not regular, is damaged or unsafe, or holds weights that are not floating-point numbers.
    """
    num_bytes = 0
    for path in _list_weight_files(Path(folder)):
        failed = f"cannot load the weights of {folder}"
        with failures_as(CheckpointError, failed, causes=(CheckpointError,)), failures_as(CheckpointError, path.name):
            num_bytes += regular_file(path).stat().st_size
            invalid = [f"{name} ({dtype})" for name, dtype in _read_dtypes(path).items() if _is_invalid(name, dtype)]
        if invalid:
            raise CheckpointError(f"expected floating-point weights in {path}, got {shorten_list(invalid)}")
    return num_bytes


def _list_weight_files(folder: Path) -> list[Path]:
    """List the files that the library will read."""
    whole = [folder / name for name in PREFERRED if (folder / name).exists()][:1]
    shards = next((paths for pattern in SHARDS if (paths := sorted(folder.glob(pattern)))), [])
    return whole or shards or sorted(path for path in folder.iterdir() if path.suffix in (SAFE, *PICKLED))


def _read_dtypes(path: Path) -> Mapping[str, str]:
    """Return the data type of every tensor in a file, by name."""
    if path.suffix in PICKLED:
        return {name: str(tensor.dtype) for name, tensor in read_checkpoint(path).state.items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"damaged or truncated safetensors file {path}: {error}") from error


def _is_invalid(name: str, dtype: str) -> bool:
    # Indices and counters are integers in the files of all libraries.
    floating = dtype.startswith(FLOATING) or (dtype.startswith("torch.") and getattr(torch, dtype[6:]).is_floating_point)
    return dtype in BYTES or (name.endswith((".weight", ".bias")) and not floating)


def short_path(path: str | Path) -> str:
    """Return the last two parts of a path, which name a model in tables as owner and name do: `run/checkpoint-500`."""
    return "/".join(Path(path).resolve().parts[-2:])
