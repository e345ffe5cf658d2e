"""Find trained DiffMask gates by name, and check that they were trained on a model."""

import logging
from importlib.resources import files
from pathlib import Path

from vitrail.adapters import ViTAdapter
from vitrail.core.errors import UnknownNameError, UnsupportedModelError
from vitrail.core.registry import unknown_name
from vitrail.models.diffmask import TrainedMask, read_mask
from vitrail.models.fingerprint import weights_fingerprint

logger = logging.getLogger(__name__)

WEIGHTS = "mask.safetensors"
RUN_WEIGHTS = "best.safetensors"
BUNDLED = "vitrail:"


def list_bundled_masks() -> list[str]:
    """List the names of the trained gates that come with the package."""
    folder = files("vitrail") / "bundled"
    return sorted(entry.name for entry in folder.iterdir() if (entry / WEIGHTS).is_file())


def find_mask(name: str | Path | None, vit: ViTAdapter) -> TrainedMask:
    """Read trained gates.

    Args:
        name: A file, the folder of a training run, `vitrail:<bundled>`, or None for the bundled gates of this model.
        vit: The model to explain.

    Raises:
        UnknownNameError: No such file, or no bundled gates for this model.
        CheckpointError: The file is damaged, unsafe, or contains no gates.
    """
    if name is None:
        return _bundled_for(vit)
    if isinstance(name, str) and name.startswith(BUNDLED):
        return _bundled(name.removeprefix(BUNDLED))
    path = Path(name)
    if not str(name) or not path.exists():
        names = " or ".join(BUNDLED + known for known in list_bundled_masks())
        raise UnknownNameError(
            f"no such file of DiffMask gates: {str(name)!r}; expected a file or the folder of a training run"
            + (f", or {names}" if names else "")
        )
    return read_mask(path / RUN_WEIGHTS if path.is_dir() else path)


def check_trained_on(mask: TrainedMask, vit: ViTAdapter, check_weights: bool) -> None:
    """Check that gates were trained on this model.

    Args:
        mask: The gates.
        vit: The model to explain.
        check_weights: Whether the weights must match too, not only the shape.

    Raises:
        UnsupportedModelError: Another width, depth or number of prefix tokens, or other weights.
    """
    config, explained = mask.network.config, mask.explained
    shape = {
        "width": (config.width, vit.prefix_tokens.shape[-1]),
        "depth": (config.depth, len(vit.blocks)),
        "prefix tokens": (explained.num_prefix_tokens, vit.num_prefix_tokens),
    }
    for quantity, (expected, got) in shape.items():
        if expected not in (-1, got):
            raise UnsupportedModelError(
                f"expected a ViT with {quantity}: {expected}, on which {mask.source} was trained, got {vit.name} with {quantity}: {got}; "
                "train gates on this model, or load the other one"
            )
    if not check_weights:
        return
    if not explained.fingerprint:
        logger.warning(
            "%s does not record the weights it was trained on; its masks are meaningless for any other model", mask.source
        )
    elif explained.fingerprint != weights_fingerprint(vit.module):
        raise UnsupportedModelError(
            f"{mask.source} was trained on other weights ({explained.name or 'no name'}) than those of {vit.name}: gates only fit the "
            "weights they were trained on; train gates on this model, load the other one, or, for the same weights in another precision, "
            "set check_weights=false"
        )


def _bundled(name: str) -> TrainedMask:
    if name not in list_bundled_masks():
        raise unknown_name("bundled DiffMask gates", name, list_bundled_masks())
    return read_mask(Path(str(files("vitrail") / "bundled" / name / WEIGHTS)))


def _bundled_for(vit: ViTAdapter) -> TrainedMask:
    """Read the bundled gates that were trained on exactly these weights."""
    fingerprint = weights_fingerprint(vit.module)
    for name in list_bundled_masks():
        mask = _bundled(name)
        if mask.explained.fingerprint == fingerprint:
            return mask
    raise UnknownNameError(
        f"no bundled DiffMask gates were trained on {vit.name}; train some (see vitrail list recipes) and pass them "
        "as checkpoint=RUN-FOLDER (--method-option diffmask.checkpoint=RUN-FOLDER)"
    )
