"""Files of weights: reading them without running their code, and writing our own.

A vitrail file is one safetensors file whose metadata holds, as JSON under the key "vitrail", the architecture, its
configuration, the preprocessing and the class names. Weights may be stored in half precision; they are loaded as float32.
"""

import argparse
import pickle
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vitrail.core.errors import CheckpointError, OutputError
from vitrail.core.files import atomic_write, regular_file
from vitrail.core.json_io import json_text, parse_json
from vitrail.models.file_contents import oddity, refuse_bomb

METADATA_KEY = "vitrail"
MAX_LISTED = 6


class Inert:
    """Stands for an object of a foreign class in a pickled file: its state, and nothing that could be executed."""


STAND_INS: Mapping[str, type] = {
    "transformers.models.vit.configuration_vit.ViTConfig": Inert,
    **dict.fromkeys(
        (
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
            "lightning.fabric.utilities.data.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
        ),
        dict,
    ),
}
"""What stands for foreign classes that published checkpoints hold beside tensors: settings of Lightning, of a model."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        state: Named tensors.
        metadata: Our own description of the model; empty for files of others.
        extra: Plain values beside the tensors, e.g. the training arguments of a published file.
    """

    state: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of weights, recognized by its content.

    Pickled files are read with `weights_only=True`; beside tensors and plain values they may hold `argparse.Namespace`, and objects
    of `STAND_INS`, of which only the state is read. No code of theirs is run, and their libraries need not be there.

    Raises:
        CheckpointError: Missing, damaged, no regular file, or holding objects that would have to be executed, or tensors that are
            no plain numbers or larger than what the file holds of them.
    """
    path = Path(path)
    try:
        with regular_file(path).open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    checkpoint = _read_safetensors(path) if head[8:9] == b"{" else _read_pickled(path)
    odd = [f"{name} ({why})" for name, tensor in checkpoint.state.items() if (why := oddity(tensor))]
    if odd:
        more = f" and {len(odd) - MAX_LISTED} more" if len(odd) > MAX_LISTED else ""
        raise CheckpointError(
            f"expected tensors of real numbers in {path}, got {', '.join(odd[:MAX_LISTED])}{more}; convert them to float32 first"
        )
    return checkpoint


def write_checkpoint(
    path: str | Path,
    module: nn.Module,
    metadata: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    omit: Collection[str] = (),
) -> None:
    """Write a module's weights and its description as one safetensors file.

    Args:
        path: The file.
        module: Its weights are written.
        metadata: The description, ready for JSON.
        dtype: Precision on disk.
        omit: Names of weights that nothing depends on.

    Raises:
        OutputError: The file cannot be written; an older file is left whole.
    """
    kept = {name: tensor for name, tensor in module.state_dict().items() if name not in omit}
    state = {name: _stored(tensor, dtype) for name, tensor in kept.items()}
    # One key: of several, safetensors writes another one first each time, and equal files should be equal bytes.
    write_tensors(path, state, {METADATA_KEY: json_text(metadata)})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as one safetensors file.

    Raises:
        OutputError: The file cannot be written; an older file is left whole.
    """
    with atomic_write(path) as partial:
        try:
            save_file(dict(tensors), partial, metadata=None if metadata is None else dict(metadata))
        except SafetensorError as error:  # A full disk comes as one of these, not as an OSError.
            raise OutputError(f"cannot write {path}: {error}; what was there before is unchanged") from error


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy, because safetensors refuses tensors that share memory; counters keep their integers."""
    if not tensor.is_floating_point():
        return tensor.detach().to("cpu", copy=True).contiguous()
    stored = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    # Running variances may be beyond half precision, in which they would become infinite.
    too_large = bool(torch.isinf(stored).any()) and not bool(torch.isinf(tensor).any())
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous() if too_large else stored


def in_single(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in single precision; counters keep their integers, and so does what should not be integers, to be refused."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Copy `state` into `module`; every name and every shape must fit.

    Args:
        module: Takes the weights.
        state: Named weights.
        source: Where they come from, for messages.
        optional: Names that may be missing: the module keeps its own.

    Raises:
        CheckpointError: Lists the first missing, unknown and misshapen names. The module is unchanged then.
    """
    own = module.state_dict()
    expect_fit(own, state, source, optional)
    not_finite = [f"{name}: not finite" for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    _refuse(not_finite, source)
    module.load_state_dict({**own, **state})


def expect_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Refuse weights whose names, shapes or kinds of numbers are not those of a model; values are not looked at.

    Args:
        own: The model's own weights, which may be on the meta device.
        state: Named weights.
        source: Where they come from, for messages.
        optional: Names that may be missing.

    Raises:
        CheckpointError: Lists the first missing, unknown and misshapen names.
    """
    complaints = [
        f"missing {name} {tuple(tensor.shape)}" for name, tensor in own.items() if name not in state and name not in optional
    ]
    complaints += [f"unknown {name}" for name in state if name not in own]
    complaints += [
        f"{name}: expected {tuple(own[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    complaints += [
        f"{name}: expected floating-point numbers, got {tensor.dtype}"
        for name, tensor in state.items()
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point()
    ]
    _refuse(complaints, source)


def _refuse(complaints: list[str], source: str) -> None:
    if complaints:
        more = f"; and {len(complaints) - MAX_LISTED} more" if len(complaints) > MAX_LISTED else ""
        raise CheckpointError(f"{source} does not fit this model: {'; '.join(complaints[:MAX_LISTED])}{more}")


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"damaged or truncated safetensors file {path}: {error}") from error
    try:
        described = parse_json(metadata.get(METADATA_KEY, "{}"))
    except ValueError as error:
        raise CheckpointError(f"the description inside {path} is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise CheckpointError(f"expected a JSON object as the description inside {path}, got {type(described).__name__}")
    return Checkpoint(state, described)


def _read_pickled(path: Path) -> Checkpoint:
    refuse_bomb(path)
    try:
        stand_ins = [(kind, name) for name, kind in STAND_INS.items()]
        with torch.serialization.safe_globals([argparse.Namespace, *stand_ins]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.findall(r"(?:GLOBAL|global) ([\w.]+) (?:was not|whose module)", str(error))
        if refused:
            raise CheckpointError(
                f"refused {path}: it holds {', '.join(refused)}, which would have to be executed; expected tensors and plain values. "
                "Convert it to safetensors where you trust it"
            ) from error
        raise CheckpointError(f"damaged checkpoint, or no file of weights: {path}") from error
    except Exception as error:  # A damaged zip or pickle fails in many ways: RuntimeError, EOFError, KeyError, ...
        raise CheckpointError(
            f"damaged or truncated checkpoint {path}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"expected a dictionary of tensors in {path}, got {type(content).__name__}")
    nested = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict)), content)
    state = {name: value for name, value in nested.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(
            f"expected named tensors in {path}, found none; top-level keys: {', '.join(map(str, list(content)[:8]))}"
        )
    extra = {name: value for name, value in content.items() if value is not nested and not isinstance(value, Tensor)}
    return Checkpoint(state, extra=extra)
