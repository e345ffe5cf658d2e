"""Transfer trained weights into a timm network, resized by timm's own code for its architecture."""

from collections.abc import Mapping
from operator import mul
from typing import Any

import timm
from torch import Tensor, nn

from vitrail.adapters.build_spec import BuildSpec
from vitrail.adapters.fit_weights import TrainedWeights, head_names, refuse_extra_blocks
from vitrail.adapters.plain import count_head_outputs
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.load_report import LoadReport


def transfer_to_timm(
    module: nn.Module, build_spec: BuildSpec, weights: TrainedWeights, source: str, keep_head: bool
) -> LoadReport:
    """Copy trained weights into a timm network of the same architecture.

    Raises:
        CheckpointError: The weights do not fit the network; the module is unchanged.
    """
    current, heads = module.state_dict(), head_names(module)
    missing = [name for name in current if name not in weights.state and name not in heads]
    if missing:
        raise CheckpointError(f"{source} does not fit this model: missing {', '.join(missing[:5])}")
    unused = tuple(name for name in weights.state if name not in current)
    refuse_extra_blocks(unused, current, source)
    classes = next((len(weights.state[name]) for name in heads if name in weights.state), 0)
    new = heads if not keep_head or classes != count_head_outputs(module) else []
    try:
        copy = _build_resized_copy(module, build_spec, weights, -1 if new else classes)
    except Exception as error:  # Mismatched shapes fail anywhere.
        raise CheckpointError(f"{source} does not fit this model: {' '.join(str(error).split())[:300]}") from error
    fitted = {name: tensor for name, tensor in copy.state_dict().items() if name not in new}
    load_strictly(module, fitted, source, optional=new)
    return LoadReport(tuple(fitted), tuple(new), unused)


def _build_resized_copy(module: Any, build_spec: BuildSpec, weights: TrainedWeights, classes: int) -> nn.Module:
    """Build a second network, into which timm loads the weights as if it had fetched them."""
    name, options = build_spec.config["name"], dict(build_spec.config["options"])
    size = _trained_size(weights) or timm.models.get_pretrained_cfg(name).input_size[1:]
    built_for = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if built_for is not None:
        options["img_size"] = built_for  # Else timm would take the size of the weights for the network's.
    overlay = {
        "state_dict": {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in weights.state.items()},
        "source": "",
        "custom_load": False,
        "label_offset": 0,
        "input_size": (_channels(weights.state), *size),
        "num_classes": classes,  # timm drops the head where this is not the network's own number.
    }
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)


def _trained_size(weights: TrainedWeights) -> tuple[int, ...] | None:
    patch = weights.state.get("patch_embed.proj.weight")
    return None if weights.grid is None or patch is None else tuple(map(mul, weights.grid, patch.shape[-2:]))


def _channels(state: Mapping[str, Tensor]) -> int:
    return next((tensor.shape[1] for tensor in state.values() if tensor.ndim == 4), 3)
