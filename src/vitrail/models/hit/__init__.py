"""HiT, the Hindered Transformer: configuration, network, and exact contributions."""

from vitrail.models.hit.config import HIT_SIZES, HiTConfig
from vitrail.models.hit.contributions import Contributions
from vitrail.models.hit.network import HiT

__all__ = ["HIT_SIZES", "Contributions", "HiT", "HiTConfig"]
