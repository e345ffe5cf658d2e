"""Convert between Hugging Face's image processor files and `Preprocessing`."""

from typing import Any

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, UnsupportedModelError

PROCESSOR = "preprocessor_config.json"

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""torchvision's name by Pillow's number, which the files use."""


def processor_preprocessing(described: dict[str, Any], default: Preprocessing) -> Preprocessing:
    """Convert an image processor's description.

    Args:
        described: A `preprocessor_config.json`.
        default: Values for missing fields.

    Raises:
        InvalidInputError: It does more than resizing, cropping and normalizing.
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError: It is invalid.
    """
    size = described.get("size", {"height": default.size[0], "width": default.size[1]})
    if isinstance(size, int):  # For ConvNeXt, the shorter side.
        size = {"shortest_edge": size} if "crop_pct" in described else {"height": size, "width": size}
    shortest = size.get("shortest_edge")
    if shortest is None and not {"height", "width"} <= set(size):
        raise InvalidInputError(f"expected a size of height and width or shortest_edge in {PROCESSOR}, got {size}")
    resized = (shortest, shortest) if shortest is not None else (size["height"], size["width"])
    crop = described.get("crop_size", resized) if described.get("do_center_crop", "crop_size" in described) else resized
    crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"]) if isinstance(crop, dict) else crop
    if not described.get("do_rescale", True) or abs(described.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise InvalidInputError(
            f"expected pixels scaled to [0, 1] in {PROCESSOR}, got rescale_factor {described.get('rescale_factor')}"
        )
    crop, resized, mode = _apply_crop_fraction(described, shortest, crop, resized)
    normalized = described.get("do_normalize", True)
    return Preprocessing(
        size=(int(crop[0]), int(crop[1])),
        crop_fraction=min(crop[0] / resized[0], 1.0),
        crop_mode=mode,
        interpolation=RESAMPLING.get(described.get("resample", -1), default.interpolation),
        mean=tuple(described.get("image_mean", default.mean)) if normalized else (0.0,) * default.num_channels,
        std=tuple(described.get("image_std", default.std)) if normalized else (1.0,) * default.num_channels,
    ).for_channels(default.num_channels)


def _apply_crop_fraction(described: dict[str, Any], shortest: Any, crop: Any, resized: Any) -> tuple[Any, Any, str]:
    """Apply ConvNeXt's rule: below 384 pixels crop a share of the resized photo, from there on stretch the whole photo.

    Returns:
        The size of the crop, the size before it, and the crop mode.
    """
    if shortest is None:
        return crop, resized, "squash"
    if described.get("crop_pct") is None or described.get("crop_size") is not None:
        return crop, resized, "center"
    if shortest >= 384:
        return crop, resized, "squash"
    return crop, (int(shortest / described["crop_pct"]),) * 2, "center"


def processor_description(preprocessing: Preprocessing) -> dict[str, Any]:
    """Convert a preprocessing to a `preprocessor_config.json`.

    Raises:
        UnsupportedModelError: No processor of transformers does the same.
    """
    height, width = preprocessing.size
    resized_height, resized_width = (int(side / preprocessing.crop_fraction + 1e-6) for side in preprocessing.size)
    numbers = {name: number for number, name in RESAMPLING.items()}
    centered = preprocessing.crop_mode == "center"
    if not preprocessing.fixed or (centered and height != width) or preprocessing.interpolation not in numbers:
        raise UnsupportedModelError(
            f"expected a preprocessing that transformers can do (square crops, or squashing; {', '.join(numbers)}), got "
            f"{preprocessing}; save the model by vitrail.save"
        )
    return {
        "image_processor_type": "CLIPImageProcessor" if centered else "DeiTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": resized_height} if centered else {"height": resized_height, "width": resized_width},
        "resample": numbers[preprocessing.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_convert_rgb": len(preprocessing.mean) == 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
