"""Read and write trained gates: one safetensors file that names the network they explain."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch

from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.core.options import check_option
from vitrail.models.checkpoints import Checkpoint, load_strictly, read_checkpoint, to_single_precision, write_checkpoint
from vitrail.models.diffmask.network import DiffMask, DiffMaskConfig
from vitrail.models.diffmask.published import is_published, published_config, published_state
from vitrail.models.fingerprint import weights_fingerprint

EXPLAINER = "diffmask"


@dataclass(frozen=True)
class Explained:
    """The network that gates were trained on.

    Attributes:
        name: Name of the network, as the user loaded it.
        fingerprint: Fingerprint of its weights (`weights_fingerprint`); empty if unknown.
        num_prefix_tokens: Number of its prefix tokens; -1 if unknown.
    """

    name: str = ""
    fingerprint: str = ""
    num_prefix_tokens: int = -1

    def __post_init__(self) -> None:
        # Values may come from a file and be of any type.
        for name, kind in get_type_hints(Explained).items():
            check_option(name, getattr(self, name), kind)


@dataclass(frozen=True, eq=False)
class TrainedMask:
    """Trained gates and the network that they explain.

    Attributes:
        network: The gates.
        explained: The network that they were trained on.
        source: The file, for messages.
    """

    network: DiffMask
    explained: Explained = field(default_factory=Explained)
    source: str = "the given set of gates"

    def __repr__(self) -> str:
        """Identify the gates in the description of a run."""
        return f"TrainedMask({self.explained.name!r}, gates {weights_fingerprint(self.network)})"


def write_mask(path: str | Path, mask: TrainedMask, *, half: bool = False, notes: Mapping[str, Any] | None = None) -> None:
    """Write gates as one safetensors file; the explained network is not in it.

    Args:
        path: The file.
        mask: The gates and the network that they explain.
        half: Whether to store half precision; loading returns single precision.
        notes: Further information, ready for JSON, to store in the file.

    Raises:
        OutputError: The file cannot be written; an older file stays intact.
    """
    described = {
        **(notes or {}),
        "explainer": EXPLAINER,
        "config": mask.network.config.to_dict(),
        "explained": asdict(mask.explained),
    }
    write_checkpoint(path, mask.network, described, torch.float16 if half else torch.float32)


def read_mask(path: str | Path) -> TrainedMask:
    """Read gates that `write_mask` wrote, or a checkpoint of the published code; code in it is never run.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or does not hold gates.
    """
    checkpoint = read_checkpoint(path)
    described = checkpoint.metadata
    if not described and is_published(checkpoint.state):
        config, state = published_config(checkpoint), published_state(checkpoint.state)
        return TrainedMask(_build_gates(config, state, path), Explained(), str(path))
    if described.get("explainer") != EXPLAINER:
        what = f"a model ({described['architecture']})" if "architecture" in described else "something else"
        raise CheckpointError(
            f"expected a file of DiffMask gates, as vitrail train writes it from a recipe with a diffmask section, found {what} in "
            f"{path}; a model to explain goes into --model"
        )
    try:
        config, explained = DiffMaskConfig(**described["config"]), Explained(**described["explained"])
    except (KeyError, TypeError, InvalidInputError, OverflowError) as error:
        raise CheckpointError(f"the description inside {path} is not one that this version understands: {error!r}") from error
    return TrainedMask(_build_gates(config, to_single_precision(checkpoint.state), path), explained, str(path))


def refuse_mask(checkpoint: Checkpoint, path: str | Path) -> None:
    """Refuse gates where a model is expected.

    Raises:
        CheckpointError: The checkpoint holds gates; the message says how to use them.
    """
    described = checkpoint.metadata
    if described.get("explainer") != EXPLAINER and (described or not is_published(checkpoint.state)):
        return
    explained = described.get("explained")
    name = explained.get("name") if isinstance(explained, Mapping) else None
    raise CheckpointError(
        f"{path} holds DiffMask gates, no model: load the model that they were trained on{f' ({name})' if name else ''}, and give them to "
        f"the method, by checkpoint={path} (--method diffmask --method-option diffmask.checkpoint={path})"
    )


def _build_gates(config: DiffMaskConfig, state: Mapping[str, torch.Tensor], path: str | Path) -> DiffMask:
    # Before building: a description may ask for more than fits into memory.
    stored = len({name.split(".")[1] for name in state if name.startswith("gates.")}), *_read_shape(state)
    if stored != (config.num_gates, config.num_hidden, 2 * config.width):
        raise CheckpointError(
            f"{path} does not fit its description: expected {config.num_gates} gates of {config.num_hidden} x {2 * config.width} weights, "
            f"got {stored[0]} of {' x '.join(map(str, stored[1:])) or 'none'}"
        )
    network = DiffMask(config)
    load_strictly(network, state, str(path))
    return network.eval()


def _read_shape(state: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """Return the shape of the first layer of the first gate."""
    weight = state.get("gates.0.inner.parametrizations.weight.original1")
    return () if weight is None else tuple(weight.shape)
