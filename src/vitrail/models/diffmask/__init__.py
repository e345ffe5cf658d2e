"""Vision DiffMask: gates on the hidden states of a frozen ViT."""

from vitrail.models.diffmask.files import Explained, TrainedMask, read_mask, write_mask
from vitrail.models.diffmask.hard_concrete import HardConcrete
from vitrail.models.diffmask.network import DiffMask, DiffMaskConfig, Gate, Votes

__all__ = [
    "DiffMask",
    "DiffMaskConfig",
    "Explained",
    "Gate",
    "HardConcrete",
    "TrainedMask",
    "Votes",
    "read_mask",
    "write_mask",
]
