"""Trained gates on disk: one safetensors file that says which network they explain."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vitrail.errors import CheckpointError, InvalidInputError
from vitrail.models.checkpoints import load_strictly, read_checkpoint, write_checkpoint
from vitrail.models.diffmask.network import DiffMask, DiffMaskConfig
from vitrail.models.diffmask.published import looks_published, published_config, published_state

EXPLAINER = "diffmask"


@dataclass(frozen=True)
class Explained:
    """The network that gates were trained on.

    Attributes:
        name: How its user called it.
        fingerprint: Of its weights (`weights_fingerprint`); empty where nobody wrote it down.
        num_prefix_tokens: Its class token and the like; -1 where nobody wrote it down.
    """

    name: str = ""
    fingerprint: str = ""
    num_prefix_tokens: int = -1


@dataclass(frozen=True, eq=False)
class TrainedMask:
    """Trained gates and what they belong to.

    Attributes:
        network: The gates.
        explained: The network that they were trained on.
        source: The file, for messages.
    """

    network: DiffMask
    explained: Explained = field(default_factory=Explained)
    source: str = "the given gates"


def write_mask(path: str | Path, mask: TrainedMask, *, half: bool = False, notes: Mapping[str, Any] | None = None) -> None:
    """Write gates as one safetensors file; the explained network is not in it.

    Args:
        path: The file.
        mask: Gates and what they belong to.
        half: Store half precision; it is loaded as single precision again.
        notes: More about them, ready for JSON, kept inside the file.

    Raises:
        OutputError: The file cannot be written; an older file is left whole.
    """
    described = {
        **(notes or {}),
        "explainer": EXPLAINER,
        "config": mask.network.config.to_dict(),
        "explained": asdict(mask.explained),
    }
    write_checkpoint(path, mask.network, described, torch.float16 if half else torch.float32)


def read_mask(path: str | Path) -> TrainedMask:
    """Read gates that `write_mask` wrote, or a checkpoint of the published code; nothing in it is executed.

    Raises:
        CheckpointError: Missing, damaged, unsafe, or no file of gates.
    """
    checkpoint = read_checkpoint(path)
    described = checkpoint.metadata
    if not described and looks_published(checkpoint.state):
        config, state = published_config(checkpoint), published_state(checkpoint.state)
        return TrainedMask(_filled(config, state, path), Explained(), str(path))
    if described.get("explainer") != EXPLAINER:
        what = f"a model ({described['architecture']})" if "architecture" in described else "something else"
        raise CheckpointError(
            f"expected a file of DiffMask gates, as vitrail train writes it from a recipe with a diffmask section, found {what} in "
            f"{path}; a model to explain goes into --model"
        )
    try:
        config = DiffMaskConfig(**described["config"])
        explained = Explained(**described["explained"])
    except (KeyError, TypeError, InvalidInputError) as error:
        raise CheckpointError(f"the description inside {path} is not one that this version understands: {error!r}") from error
    return TrainedMask(
        _filled(config, {name: tensor.float() for name, tensor in checkpoint.state.items()}, path), explained, str(path)
    )


def _filled(config: DiffMaskConfig, state: Mapping[str, torch.Tensor], path: str | Path) -> DiffMask:
    network = DiffMask(config)
    load_strictly(network, state, str(path))
    return network.eval()
