"""Finding trained gates by name, and making sure that they belong to a model."""

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


def bundled_masks() -> list[str]:
    """Names of the trained gates that come with the package."""
    folder = files("vitrail") / "bundled"
    return sorted(entry.name for entry in folder.iterdir() if (entry / WEIGHTS).is_file())


def find_mask(name: str | Path | None, vit: ViTAdapter) -> TrainedMask:
    """Read gates by name.

    Args:
        name: A file, the folder of a run, `vitrail:<bundled>`, or None for the bundled ones that were trained on this model.
        vit: The model.

    Raises:
        UnknownNameError: Nothing of that name, or nothing bundled for this model.
        CheckpointError: The file is damaged, unsafe, or no file of gates.
    """
    if name is None:
        return _bundled_for(vit)
    if isinstance(name, str) and name.startswith(BUNDLED):
        return _bundled(name.removeprefix(BUNDLED))
    path = Path(name)
    if not str(name) or not path.exists():
        bundled = " or ".join(BUNDLED + known for known in bundled_masks())
        raise UnknownNameError(
            f"no such file of DiffMask gates: {str(name)!r}; expected a file or the folder of a training run"
            + (f", or {bundled}" if bundled else "")
        )
    return read_mask(path / RUN_WEIGHTS if path.is_dir() else path)


def refuse_other_model(mask: TrainedMask, vit: ViTAdapter, check_weights: bool) -> None:
    """Refuse a model that the gates were not trained on.

    Raises:
        UnsupportedModelError: Another width, depth or number of prefix tokens, or other weights.
    """
    config, explained = mask.network.config, mask.explained
    shape = {
        "width": (config.width, vit.prefix_tokens.shape[-1]),
        "depth": (config.depth, len(vit.blocks)),
        "prefix tokens": (explained.num_prefix_tokens, vit.num_prefix_tokens),
    }
    for what, (expected, got) in shape.items():
        if expected not in (-1, got):
            raise UnsupportedModelError(
                f"expected a ViT with {what}: {expected}, as {mask.source} was trained on, got {vit.name} with {what}: {got}; train "
                "gates on this one, or load the other"
            )
    if not check_weights:
        return
    if not explained.fingerprint:
        logger.warning("%s does not say which weights it was trained on; its masks mean nothing on another model", mask.source)
    elif explained.fingerprint != weights_fingerprint(vit.module):
        raise UnsupportedModelError(
            f"{mask.source} was trained on other weights ({explained.name or 'no name'}) than those of {vit.name}: gates say what one "
            "network needs; train gates on this one, load the other, or, for the same weights in another precision, give "
            "check_weights=false"
        )


def _bundled(name: str) -> TrainedMask:
    if name not in bundled_masks():
        raise unknown_name("bundled DiffMask gates", name, bundled_masks())
    return read_mask(Path(str(files("vitrail") / "bundled" / name / WEIGHTS)))


def _bundled_for(vit: ViTAdapter) -> TrainedMask:
    """The bundled gates of this very model."""
    fingerprint = weights_fingerprint(vit.module)
    for name in bundled_masks():
        mask = _bundled(name)
        if mask.explained.fingerprint == fingerprint:
            return mask
    raise UnknownNameError(
        f"no bundled DiffMask gates were trained on {vit.name}; train some by `vitrail train` (configs/diffmask-*.yaml) and name them "
        "by checkpoint=RUN-FOLDER (--method-option diffmask.checkpoint=RUN-FOLDER)"
    )
