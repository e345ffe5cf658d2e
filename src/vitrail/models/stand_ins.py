"""Replacements of foreign objects in pickled checkpoints, so that their code need not run."""

from collections.abc import Mapping
from typing import Any


class Inert:
    """Replaces an object of a foreign class in a pickled file: holds its state, without code."""


class Ignored:
    """Replaces a value in a pickled file that is not needed, such as a path or a number of numpy among training settings."""

    def __init__(self, *_: Any) -> None:
        """Accept any arguments."""

    def __setstate__(self, _: Any) -> None:
        """Accept any state."""


STAND_INS: Mapping[str, type] = {
    "transformers.models.vit.configuration_vit.ViTConfig": Inert,
    **dict.fromkeys(
        (
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
            "lightning.fabric.utilities.data.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
        ),
        dict,
    ),
    **dict.fromkeys(
        (
            "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "pathlib.PosixPath",
            "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
        ),
        Ignored,
    ),
}  # fmt: skip
"""Replacements of foreign classes in checkpoints, such as settings of Lightning or of a model."""
