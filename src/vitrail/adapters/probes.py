"""Read linear probes from files: a weight and a bias, whatever they are called."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.core.files import regular_file
from vitrail.models.checkpoints import read_checkpoint
from vitrail.models.file_contents import refuse_zip_bomb

WEIGHTS = {"weight": "bias", "coef_": "intercept_"}
"""Names of the bias by those of the weight: torch's and scikit-learn's."""


def read_probe(path: str | Path) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"] | None]:
    """Read a linear layer from a safetensors file, a file of torch (without running code in it), or numpy's .npz.

    Its weight has the shape (classes, width of the embedding) and its name ends in "weight" or "coef_"; there may be a bias beside it.

    Raises:
        CheckpointError: The file is damaged or unsafe, or holds anything else.
    """
    path = Path(path)
    state = _read_npz(path) if path.suffix.lower() == ".npz" else read_checkpoint(path).state
    names = [name for name, values in state.items() if values.ndim == 2 and name.rpartition(".")[2] in WEIGHTS]
    if len(names) == 1:
        prefix, dot, last = names[0].rpartition(".")
        bias_name = prefix + dot + WEIGHTS[last]
        weight, bias = state[names[0]].float(), state.get(bias_name)
        if set(state) <= {names[0], bias_name} and (bias is None or bias.shape == weight.shape[:1]):
            return weight, None if bias is None else bias.float()
    shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in list(state.items())[:6])
    raise CheckpointError(
        f"expected a linear probe in {path}, a weight (classes, width) and at most a bias (classes,), got {shapes or 'nothing'}; save only "
        "the state dict of its linear layer"
    )


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        regular_file(path)
        refuse_zip_bomb(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in arrays.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"cannot read the linear probe {path}: {error}") from error
