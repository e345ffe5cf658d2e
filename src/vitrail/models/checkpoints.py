"""Read weight files without running code in them, and write vitrail's own.

A vitrail file is a safetensors file whose metadata holds, as JSON under the key "vitrail", the architecture, its configuration, the
preprocessing and the class names. Weights may be stored in half precision; they are loaded as float32.
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

from vitrail.core.errors import CheckpointError, OutputError, failures_as, first_line
from vitrail.core.files import atomic_write, regular_file
from vitrail.core.json_io import json_text, parse_json
from vitrail.core.listing import MAX_LISTED, shorten_list
from vitrail.models.file_contents import choose_state, find_states, find_tensor_fault, refuse_zip_bomb
from vitrail.models.stand_ins import STAND_INS

METADATA_KEY = "vitrail"

PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of files that are no weights: someone swapped the model and the photo."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a weight file.

    Attributes:
        state: Named tensors: those under "model" or "state_dict" in a file that holds several groups.
        metadata: vitrail's description of the model; empty for other files.
        extra: Plain values beside the tensors, e.g. the training arguments of a published file.
        states: All groups of named tensors, by their key in the file ("" at its top), e.g. also "state_dict_ema".
    """

    state: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    states: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a weight file, whose format is recognized by its content.

    Pickled files are read with `weights_only=True`. Besides tensors and plain values they may hold `argparse.Namespace` and objects of
    `STAND_INS`, of which only the state is read. Their code is not run, and their libraries need not be installed.

    Raises:
        CheckpointError: The file is missing, damaged, not a regular file, holds objects whose code would have to run, or tensors that
            are not plain numbers or larger than their stored data.
    """
    path = Path(path)
    with failures_as(CheckpointError, f"cannot read the checkpoint {path}"), regular_file(path).open("rb") as file:
        head = file.read(16)
    checkpoint = _read_safetensors(path) if head[8:9] == b"{" else _read_pickled(path)
    tensors = [item for state in checkpoint.states.values() for item in state.items()]
    invalid = [f"{name} ({fault})" for name, tensor in tensors if (fault := find_tensor_fault(tensor))]
    if invalid:
        raise CheckpointError(
            f"expected tensors of real numbers in {path}, got {shorten_list(invalid)}; convert them to float32 first"
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
        module: Provides the weights.
        metadata: The description, ready for JSON.
        dtype: Precision in the file.
        omit: Names of weights to leave out.

    Raises:
        OutputError: The file cannot be written; an older file stays intact.
    """
    kept = {name: tensor for name, tensor in module.state_dict().items() if name not in omit}
    state = {name: _convert_for_storage(tensor, dtype) for name, tensor in kept.items()}
    # A single key, because safetensors writes several in random order, and equal content should give equal bytes.
    write_tensors(path, state, {METADATA_KEY: json_text(metadata)})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as one safetensors file.

    Raises:
        OutputError: The file cannot be written; an older file stays intact.
    """
    full_disk = (SafetensorError,)  # Instead of an OSError.
    with (
        atomic_write(path) as partial,
        failures_as(OutputError, f"cannot write {path}", "; what was there before is unchanged", full_disk),
    ):
        save_file(dict(tensors), partial, metadata=None if metadata is None else dict(metadata))


def _convert_for_storage(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy, because safetensors refuses tensors that share memory; integers keep their type."""
    if not tensor.is_floating_point():
        return tensor.detach().to("cpu", copy=True).contiguous()
    stored = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    # Running variances may exceed the range of half precision and become infinite.
    too_large = bool(torch.isinf(stored).any()) and not bool(torch.isinf(tensor).any())
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous() if too_large else stored


def to_single_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert floating-point weights to single precision; leave other types, for later checks to refuse."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Copy `state` into `module`; all names and shapes must match.

    Args:
        module: Receives the weights.
        state: Named weights.
        source: Origin of the weights, for messages.
        optional: Names that may be missing; the module keeps its own values.

    Raises:
        CheckpointError: The message lists the first missing, unknown and mismatched names; the module is unchanged.
    """
    current = module.state_dict()
    expect_fit(current, state, source, optional)
    not_finite = [f"{name}: not finite" for name, tensor in state.items() if not torch.isfinite(tensor.float()).all()]
    _refuse(not_finite, source)
    module.load_state_dict({**current, **state})


def expect_fit(current: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Refuse weights whose names, shapes or types are not those of a model. Values are not checked.

    Args:
        current: The model's own weights, which may be on the meta device.
        state: Named weights.
        source: Origin of the weights, for messages.
        optional: Names that may be missing.

    Raises:
        CheckpointError: The message lists the first missing, unknown and mismatched names.
    """
    complaints = [
        f"missing {name} {tuple(tensor.shape)}"
        for name, tensor in current.items()
        if name not in state and name not in optional
    ]
    complaints += [f"unknown {name}" for name in state if name not in current]
    complaints += [
        f"{name}: expected {tuple(current[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name in current and current[name].shape != tensor.shape
    ]
    complaints += [
        f"{name}: expected floating-point numbers, got {tensor.dtype}"
        for name, tensor in state.items()
        if name in current and current[name].is_floating_point() and not tensor.is_floating_point()
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
    with failures_as(CheckpointError, f"the description inside {path} is not JSON", causes=(ValueError,)):
        described = parse_json(metadata.get(METADATA_KEY, "{}"))
    if not isinstance(described, dict):
        raise CheckpointError(f"expected a JSON object as the description inside {path}, got {type(described).__name__}")
    return Checkpoint(state, described, states={"": state})


def _read_pickled(path: Path) -> Checkpoint:
    refuse_zip_bomb(path)
    try:
        stand_ins = [(kind, name) for name, kind in STAND_INS.items()]
        with torch.serialization.safe_globals([argparse.Namespace, *stand_ins]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.findall(r"(?:GLOBAL|global) ([\w.]+) (?:was not|whose module)", str(error))
        if refused:
            raise CheckpointError(
                f"refused {path}: it holds {', '.join(refused)}, which would have to be executed; expected tensors and plain values. "
                "Where you trust it, store its weights alone, torch.save(model.state_dict(), file), or give the network itself: "
                "vitrail.adapt(model)"
            ) from error
        remedy = "; it looks like a photo: the model comes before the photos" if path.suffix.lower() in PHOTOS else ""
        raise CheckpointError(f"damaged checkpoint, or no file of weights: {path}{remedy}") from error
    except Exception as error:  # A damaged zip or pickle fails in many ways: RuntimeError, EOFError, KeyError, ...
        raise CheckpointError(f"damaged checkpoint, or no file of weights: {path} ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"expected a dictionary of tensors in {path}, got {type(content).__name__}")
    states = find_states(content)
    if not states:
        raise CheckpointError(
            f"expected named tensors in {path}, found none; top-level keys: {', '.join(map(str, list(content)[:8]))}"
        )
    key = choose_state(states)
    extra = {name: value for name, value in content.items() if name != key and not isinstance(value, Tensor)}
    return Checkpoint(states[key], extra=extra, states=states)
