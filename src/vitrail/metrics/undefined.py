"""Undefined numbers (NaN or infinite): left out of means, and reported."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def replace_infinite(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Replace infinite values by NaN, since neither can be averaged."""
    return values.where(values.isfinite(), torch.nan)


def mean_over_defined(values: Float[Tensor, "b ..."], defined: Bool[Tensor, "b ..."]) -> Float[Tensor, "..."]:
    """Return the mean over the images where values are defined; NaN if there are none."""
    if bool(defined.all()):
        return values.mean(0)
    return values.where(defined, 0).sum(0) / defined.sum(0)


def describe_undefined(counts: dict[str, int], num_images: int) -> str:
    """Describe on how many images each measure is undefined; empty if all are defined everywhere."""
    parts = [f"{name} for {count} of {num_images} images" for name, count in counts.items() if count]
    return f"undefined, and left out of means: {', '.join(parts)}" if parts else ""
