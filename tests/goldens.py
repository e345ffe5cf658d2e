"""Recorded networks of the published HiT, rebuilt."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from vitrail.models.hit import HiT

FOLDER = Path(__file__).parent / "goldens"

PRECISIONS = [(torch.float32, "out.", 1e-5), (torch.float64, "out64.", 1e-10)]
"""Working precision, where its outputs are recorded, and the relative tolerance."""


@dataclass(frozen=True)
class Golden:
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name.removeprefix("param."): tensor for name, tensor in self.tensors.items() if name.startswith("param.")}

    def model(self, dtype: torch.dtype = torch.float32) -> HiT:
        config = self.about["config"]
        model = HiT(
            image_size=(config["image_size"],) * 2,
            patch_size=config["patch_size"],
            depths=tuple(config.get("blocks", [config.get("num_layers")])),
            widths=tuple(config.get("block_dims", [config.get("hidden_dim")])),
            num_heads=config["num_heads"],
            mlp_ratio=float(config["mlp_ratio"]),
            num_classes=config["num_classes"],
            position_embedding=config.get("use_pos_tokens", True),
        )
        return model.load_published(self.weights).eval().to(dtype)

    def images(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.tensors["in.x"].to(dtype)


@lru_cache
def golden(name: str) -> Golden:
    return Golden(load_file(FOLDER / f"{name}.safetensors"), json.loads((FOLDER / f"{name}.json").read_text()))


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Largest difference over largest magnitude."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= relative * float(expected.abs().max())
