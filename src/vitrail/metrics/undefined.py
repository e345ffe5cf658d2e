"""Numbers that are undefined: never averaged, always told."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def defined_only(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The same, with NaN in place of what is infinite: no mean survives either."""
    return values.where(values.isfinite(), torch.nan)


def mean_of_defined(values: Float[Tensor, "b ..."], defined: Bool[Tensor, "b ..."]) -> Float[Tensor, "..."]:
    """The mean over the images where values are defined; NaN where they are nowhere."""
    if bool(defined.all()):
        return values.mean(0)
    return values.where(defined, 0).sum(0) / defined.sum(0)


def describe_undefined(counts: dict[str, int], num_images: int) -> str:
    """What is undefined, in words: a number of images by name; empty where all is defined everywhere."""
    words = [f"{name} for {count} of {num_images} images" for name, count in counts.items() if count]
    return f"undefined, and left out of means: {', '.join(words)}" if words else ""
