"""Saved models are the same when they are loaded."""

import pytest
import torch

import networks
import vitrail
from vitrail.errors import UnsupportedModelError


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_is_the_same_when_loaded(tmp_path, half):
    original = networks.network("hit-pooled")
    vitrail.save(original, tmp_path / "mine.safetensors", half=half, notes={"trained on": "noise"})
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    assert (again.class_names, again.preprocessing) == (original.class_names, original.preprocessing)
    images = networks.images("hit-pooled")
    tolerance = 1e-2 if half else 0
    torch.testing.assert_close(again.logits(images), original.logits(images), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["timm", "hf-vit", "torchvision"])
def test_only_our_own_networks_are_saved(tmp_path, name):
    with pytest.raises(UnsupportedModelError, match=r"expected a HiT, got .*V.*T.*; save it by the library"):
        vitrail.save(networks.network(name), tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())
