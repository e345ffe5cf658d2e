"""Folders of other libraries, a config.json beside weights: looked at before their library builds what they ask for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vitrail.core.errors import CheckpointError
from vitrail.core.files import regular_file
from vitrail.core.json_io import read_json
from vitrail.models.checkpoints import MAX_LISTED, read_checkpoint
from vitrail.models.limits import check_numbers

CONFIG = "config.json"
PREFERRED = (
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth", "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
)  # fmt: skip
"""Names of files of weights, in the order in which timm and transformers look for them."""

SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
SAFE, PICKLED = ".safetensors", (".bin", ".pth", ".pt", ".tar")

FLOATING = ("F", "BF")
"""How safetensors' names of floating-point numbers begin."""

BYTES = ("I8", "U8", "I16", "U16", "torch.int8", "torch.uint8", "torch.int16", "torch.uint16")
"""Numbers that stand for weights in a code of their own."""


def read_folder_config(folder: str | Path) -> dict[str, Any]:
    """Read a folder's config.json.

    Raises:
        CheckpointError: It cannot be read, or its numbers are those of no network.
    """
    path = Path(folder) / CONFIG
    try:
        config = read_json(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"expected the config.json of timm (an object with an architecture) or of transformers (with a model_type) in {folder}, got a "
            f"{type(config).__name__}"
        )
    check_numbers(config, str(path))
    return config


def check_weight_files(folder: str | Path) -> int:
    """Look at a folder's weights before their library reads them, which would turn any numbers into weights.

    Returns:
        How many bytes they have.

    Raises:
        CheckpointError: A file is no regular one, is damaged or unsafe, or holds other than floating-point weights.
    """
    num_bytes = 0
    for path in _files(Path(folder)):
        try:
            num_bytes += regular_file(path).stat().st_size
            odd = [f"{name} ({kind})" for name, kind in _kinds(path).items() if _is_odd(name, kind)]
        except OSError as error:
            raise CheckpointError(f"cannot load the weights of {folder}: {path.name}: {error.strerror or error}") from error
        except CheckpointError as error:
            raise CheckpointError(f"cannot load the weights of {folder}: {error}") from error
        if odd:
            more = f" and {len(odd) - MAX_LISTED} more" if len(odd) > MAX_LISTED else ""
            raise CheckpointError(f"expected floating-point weights in {path}, got {', '.join(odd[:MAX_LISTED])}{more}")
    return num_bytes


def _files(folder: Path) -> list[Path]:
    """The files that will be read; other files may lie beside them."""
    whole = [folder / name for name in PREFERRED if (folder / name).exists()][:1]
    shards = next((found for pattern in SHARDS if (found := sorted(folder.glob(pattern)))), [])
    return whole or shards or sorted(path for path in folder.iterdir() if path.suffix in (SAFE, *PICKLED))


def _kinds(path: Path) -> Mapping[str, str]:
    """The kind of numbers of every tensor in a file."""
    if path.suffix in PICKLED:
        return {name: str(tensor.dtype) for name, tensor in read_checkpoint(path).state.items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"damaged or truncated safetensors file {path}: {error}") from error


def _is_odd(name: str, kind: str) -> bool:
    # Indices and counters are whole numbers in the files of all libraries.
    floating = kind.startswith(FLOATING) or (kind.startswith("torch.") and getattr(torch, kind[6:]).is_floating_point)
    return kind in BYTES or (name.endswith((".weight", ".bias")) and not floating)
