"""Weights that only look like those of a HiT or an INTR are refused with advice."""

import re

import networks
import pytest
import torch
from safetensors.torch import save_file

import vitrail
from goldens import golden
from vitrail.core.errors import CheckpointError


def trained_as_published():
    """A HiT without pooling after training: the unused norm of the last layer is unchanged."""
    state = dict(golden("hit_nopool").weights)
    last = "encoder.layers.encoder_layer_2.ln_2"
    return state | {f"{last}.weight": torch.ones(48), f"{last}.bias": torch.zeros(48)}


STATES = {
    "trained": lambda: networks.torchvision_vit().state_dict(),
    "untrained": lambda: networks.TorchvisionVisionTransformer(32, 8, 2, 3, 24, 48, num_classes=5).state_dict(),
    "one layer": lambda: networks.torchvision_vit(num_layers=1).state_dict(),
    "another last norm": lambda: golden("hit_nopool").weights,
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("nested", [True, False], ids=["training file", "bare state"])
def test_a_torchvision_vit_is_no_hit(tmp_path, kind, nested):
    path = tmp_path / "weights.pth"
    state = STATES[kind]()
    torch.save({"model": state} if nested else state, path)
    with pytest.raises(
        CheckpointError, match=r"cannot tell what model .*name it hit:.*--model torchvision:vit_b_16 --weights .*vitrail.adapt"
    ):
        vitrail.load(path, device="cpu", num_heads=3)
    torch.save(state, path)
    assert vitrail.load(f"hit:{path}", device="cpu", num_heads=3).num_classes == 5  # The user says so.


def test_a_trained_hit_without_pooling_is_recognized(tmp_path):
    save_file(trained_as_published(), tmp_path / "weights.safetensors")
    loaded = vitrail.load(tmp_path / "weights.safetensors", device="cpu", num_heads=4)
    assert loaded.module.config.depths == (3,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (networks.timm_vit, "those of a ViT of timm, DeiT, MAE or DINO"),
        (lambda: networks.huggingface("ViT"), "those of a ViT of Hugging Face"),
        (lambda: networks.huggingface("Dinov2"), "those of a ViT of Hugging Face"),
        (lambda: networks.timm.create_model("resnet18"), "those of a ResNet"),
    ],
    ids=["timm", "hf-vit", "hf-dinov2", "resnet"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_other_libraries_get_advice_on_how_to_load_them(tmp_path, build, message, prefix):
    path = tmp_path / "weights.pth"
    torch.save({f"{prefix}{name}": tensor for name, tensor in build().state_dict().items()}, path)
    with pytest.raises(CheckpointError, match=f"{message}.*vitrail.adapt"):
        vitrail.load(path, device="cpu")


def test_stages_with_a_gap_end_at_once(tmp_path):
    state = dict(golden("hit_pool").weights)
    state["encoder.layers.block_999999999.encoder_layer_0.ln_1.weight"] = torch.ones(4)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=re.escape("expected the weights of a HiT")):
        vitrail.load(tmp_path / "weights.pth", device="cpu")
