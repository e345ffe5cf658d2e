"""Networks that vitrail defines, and weight files."""

from vitrail.models.hit import HIT_SIZES, HiT, HiTConfig

__all__ = ["HIT_SIZES", "HiT", "HiTConfig"]
