"""Files of `save_pretrained`, whose weights are named as in older versions of transformers, are a user's own weights."""

import pytest
import torch
import transformers
from huggingface_families import paired, plain
from networks import shaken
from safetensors.torch import load_file

import vitrail
from vitrail.core.errors import UnsupportedModelError

NETWORKS = {
    "vit": lambda: plain("ViTForImageClassification", "ViT"),
    "deit": lambda: plain("DeiTForImageClassification", "DeiT"),
    "dinov2": lambda: plain("Dinov2ForImageClassification", "Dinov2"),
    "beit": lambda: plain("BeitForImageClassification", "Beit", use_relative_position_bias=True),
    "ijepa": lambda: plain("IJepaForImageClassification", "IJepa"),
    "vit_msn": lambda: plain("ViTMSNForImageClassification", "ViTMSN"),
    "data2vec": lambda: plain("Data2VecVisionForImageClassification", "Data2VecVision"),
    "swin": lambda: _swin(),
}


def _swin():
    torch.manual_seed(0)
    config = transformers.SwinConfig(image_size=32, embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=2, num_labels=5)
    return shaken(transformers.SwinForImageClassification(config))


def _own_output(network, images):
    with torch.no_grad():
        output = network.eval()(images)
    return output.logits


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        pytest.param(layout, name, marks=[] if layout == "file" or name in ("vit", "swin") else pytest.mark.slow)
        for layout in ("file", "lightning", "in memory")
        for name in NETWORKS
    ],
)
def test_weights_of_a_folder(name, layout, tmp_path):
    network = NETWORKS[name]()
    network.save_pretrained(tmp_path / "trained")
    weights = tmp_path / "trained" / "model.safetensors"
    if layout == "lightning":
        state = {f"model.{key}": tensor for key, tensor in load_file(weights).items()}
        torch.save({"state_dict": state}, weights := tmp_path / "last.ckpt")
    if layout == "in memory":
        torch.save(network.state_dict(), weights := tmp_path / "state.pth")
    torch.manual_seed(1)
    shaken(other := NETWORKS[name](), spread=0.3).save_pretrained(tmp_path / "other")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = vitrail.load(f"hf:{tmp_path / 'other'}", weights=weights, device="cpu")
    with model.inspecting(), torch.no_grad():
        logits = model.logits(images)
    torch.testing.assert_close(logits, _own_output(network, images), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits, _own_output(other, images), atol=1e-2)


@pytest.mark.parametrize("kind", ["clip", "dinov3"])
def test_towers_take_weights_in_their_folder_only(kind, tmp_path):
    network = paired("CLIPModel", "CLIP", projected=True) if kind == "clip" else plain("DINOv3ViTModel", "DINOv3ViT")
    network.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=rf"is a {kind}\S* without one; to load weights of your own, put them into"):
        vitrail.load(f"hf:{tmp_path}", weights=tmp_path / "model.safetensors")


def test_other_number_of_classes_is_silent(tmp_path, capfd):
    names = {index: f"kind {index}" for index in range(4)}
    plain("ViTForImageClassification", "ViT", id2label=names).save_pretrained(tmp_path / "four")
    plain("ViTForImageClassification", "ViT", num_labels=3).save_pretrained(tmp_path / "three")
    capfd.readouterr()
    model = vitrail.load(f"hf:{tmp_path / 'four'}", weights=tmp_path / "three" / "model.safetensors", device="cpu")
    assert (model.num_classes, model.class_names) == (3, ())
    assert "num_labels" not in capfd.readouterr().err
