"""Average the weights of several models of one shape, as in "Model soups" (Wortsman et al. 2022, arXiv:2203.05482).

python scripts/average_weights.py OUT FILE [FILE ...]

The files are those that vitrail writes (last.safetensors of a run); OUT gets the description of the last one.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def average(files: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the mean of the weights of the files, and the metadata of the last one."""
    sums, dtypes, metadata = dict[str, Tensor](), dict[str, torch.dtype](), dict[str, str]()
    for file in files:
        with safe_open(file, "pt") as opened:
            state, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118 (no mapping)
        if sums and {name: tensor.shape for name, tensor in state.items()} != {
            name: tensor.shape for name, tensor in sums.items()
        }:
            raise SystemExit(f"error: expected weights of one shape, got others in {file}")
        sums = {name: sums.get(name, 0) + tensor.double() for name, tensor in state.items()}
        dtypes = {name: tensor.dtype for name, tensor in state.items()}
    return {name: (total / len(files)).to(dtypes[name]) for name, total in sums.items()}, metadata


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    weights, described = average([Path(file) for file in sys.argv[2:]])
    save_file(weights, sys.argv[1], described)
