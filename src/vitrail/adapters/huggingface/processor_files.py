"""Convert between Hugging Face's image processor files and `Preprocessing`."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, UnsupportedModelError

PROCESSOR = "preprocessor_config.json"
COMBINED_PROCESSOR = "processor_config.json"

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""torchvision's name by Pillow's number, which the files use."""


def processor_preprocessing(described: Any, default: Preprocessing) -> Preprocessing:
    """Convert an image processor's description.

    Args:
        described: A `preprocessor_config.json`.
        default: Values for missing fields.

    Raises:
        InvalidInputError: It is invalid, or does more than resizing, cropping and normalizing.
    """
    if not isinstance(described, Mapping):
        raise InvalidInputError(f"expected a JSON object in {PROCESSOR}, got a {type(described).__name__}")
    size = described.get("size", {"height": default.size[0], "width": default.size[1]})
    if isinstance(size, int):  # For ConvNeXt, the shorter side.
        size = {"shortest_edge": size} if "crop_pct" in described else {"height": size, "width": size}
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if shortest is None and not (isinstance(size, Mapping) and {"height", "width"} <= set(size)):
        raise InvalidInputError(f"expected a size of height and width or shortest_edge in {PROCESSOR}, got {size}")
    shortest = None if shortest is None else _read_pixels(shortest, "size")
    resized = (shortest, shortest) if shortest is not None else _read_sides(size, "size")
    cropped = _read_flag(described, "do_center_crop", "crop_size" in described)
    crop = _read_sides(described["crop_size"], "crop_size") if cropped and "crop_size" in described else resized
    factor = described.get("rescale_factor", 1 / 255)
    if not _read_flag(described, "do_rescale", True) or not _is_number(factor) or abs(factor * 255 - 1) > 1e-3:
        raise InvalidInputError(
            f"expected pixels scaled to [0, 1] in {PROCESSOR}, got rescale_factor {described.get('rescale_factor')}"
        )
    crop, resized, mode = _apply_crop_fraction(described, shortest, crop, resized)
    resample = described.get("resample")
    if resample is not None and (isinstance(resample, bool) or resample not in list(RESAMPLING)):
        known = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        raise InvalidInputError(f"expected a resample of {known} in {PROCESSOR}, got {resample!r}")
    normalized = _read_flag(described, "do_normalize", True)
    return Preprocessing(
        size=crop,
        crop_fraction=min(crop[0] / resized[0], 1.0),
        crop_mode=mode,
        interpolation=default.interpolation if resample is None else RESAMPLING[resample],
        mean=_read_per_channel(described, "image_mean", default.mean) if normalized else (0.0,) * default.num_channels,
        std=_read_per_channel(described, "image_std", default.std) if normalized else (1.0,) * default.num_channels,
    ).for_channels(default.num_channels)


def _apply_crop_fraction(
    described: Mapping[str, Any], shortest: int | None, crop: tuple[int, int], resized: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int], Literal["center", "squash"]]:
    """Apply ConvNeXt's rule: below 384 pixels crop a share of the resized photo, from there on stretch the whole photo.

    Returns:
        The size of the crop, the size before it, and the crop mode.
    """
    if shortest is None:
        return crop, resized, "squash"
    share = described.get("crop_pct")
    if share is None or described.get("crop_size") is not None:
        return crop, resized, "center"
    if not _is_number(share) or not 0 < share <= shortest:  # The photo is resized to at least a pixel.
        raise InvalidInputError(f"expected a crop_pct above 0, at most 1, in {PROCESSOR}, got {share!r}")
    if shortest >= 384:
        return crop, resized, "squash"
    return crop, (int(shortest / share),) * 2, "center"


def _read_sides(value: Any, field: str) -> tuple[int, int]:
    """Read height and width: one number for both, a list of two, or an object with both."""
    if isinstance(value, Mapping):
        value = [value.get("height"), value.get("width")]
    sides = value if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2:
        raise InvalidInputError(f"expected a {field} of height and width in {PROCESSOR}, got {value}")
    return _read_pixels(sides[0], field), _read_pixels(sides[1], field)


def _read_pixels(value: Any, field: str) -> int:
    if not _is_number(value) or value < 1 or value != int(value):
        raise InvalidInputError(f"expected a {field} of whole pixels, at least 1, in {PROCESSOR}, got {value!r}")
    return int(value)


def _read_per_channel(described: Mapping[str, Any], field: str, default: tuple[float, ...]) -> tuple[float, ...]:
    values = described.get(field, default)
    if not isinstance(values, list | tuple) or not all(map(_is_number, values)):
        raise InvalidInputError(f"expected a list with one number per channel as {field} in {PROCESSOR}, got {values!r}")
    return tuple(values)


def _read_flag(described: Mapping[str, Any], field: str, default: bool) -> bool:
    value = described.get(field, default)
    if value not in (True, False, None):
        raise InvalidInputError(f"expected {field} to be true or false in {PROCESSOR}, got {value!r}")
    return bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


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
