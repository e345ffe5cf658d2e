"""Folders of models without a classifier, and of networks of timm inside transformers."""

import logging

import huggingface_families as families
import networks
import pytest
import torch
import transformers

import vitrail
from vitrail.adapters import Preprocessing, ViTAdapter, adapt
from vitrail.adapters.plain import PlainClassifier
from vitrail.core.errors import CheckpointError

SAVED = [
    name if name in families.REPRESENTATIVES else pytest.param(name, marks=pytest.mark.slow)
    for name in families.NETWORKS
    if name in families.EMBEDDINGS and "-" not in name
]
"""Networks whose classes are saved as they are."""


@torch.no_grad()
@pytest.mark.parametrize("name", SAVED)
def test_a_folder_is_what_was_saved(tmp_path, name):
    network, images = families.NETWORKS[name](), torch.randn(2, 3, 32, 32)
    network.save_pretrained(tmp_path)
    loaded = vitrail.load(tmp_path, device="cpu")
    assert type(loaded.module) is type(network)
    assert isinstance(loaded, ViTAdapter)
    torch.testing.assert_close(loaded.logits(images), families.own_output(name, network, images))
    assert not loaded.class_names


@torch.no_grad()
def test_a_pooler_without_weights_is_left_out(tmp_path, caplog):
    """As in the published DINO: transformers would make up a pooler."""
    network, images = families.NETWORKS["ViTModel-no-pooler"](), torch.randn(2, 3, 32, 32)
    network.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        loaded = vitrail.load(tmp_path, device="cpu")
    assert "has no weights for its pooler" in caplog.text
    torch.testing.assert_close(loaded.logits(images), network(images).last_hidden_state[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("head", ["ViTForMaskedImageModeling", "ViTMAEForPreTraining"])
def test_other_heads_are_left_out(tmp_path, head):
    """As in the published ViT-MAE, which is saved with its decoder."""
    prefix = head.split("For")[0]
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    fields = decoder if prefix == "ViTMAE" else {"encoder_stride": 8}
    network, images = families.plain(head, prefix, **fields), torch.randn(2, 3, 32, 32)
    network.save_pretrained(tmp_path)
    loaded = vitrail.load(tmp_path, device="cpu")
    assert type(loaded.module).__name__ == f"{prefix}Model"
    own = families.own_output(f"{prefix}Model-no-pooler" if prefix == "ViT" else "ViTMAEModel", network.vit, images)
    torch.testing.assert_close(loaded.logits(images), own)


def test_random_weights(tmp_path):
    families.NETWORKS["DINOv3ViTModel"]().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert vitrail.load(tmp_path, device="cpu", pretrained=False).num_classes == 24


def test_missing_and_damaged_weights(tmp_path):
    network = families.NETWORKS["DINOv3ViTModel"]()
    state = {key: value for key, value in network.state_dict().items() if key != "norm.weight"}
    network.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match=r"found none for norm\.weight"):
        vitrail.load(tmp_path, device="cpu")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load the weights of"):
        vitrail.load(tmp_path, device="cpu")


CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CLIPModel", Preprocessing((32, 32), 1.0, "center", "bicubic", *CLIP_STATISTICS)),
        ("SiglipVisionModel", Preprocessing((32, 32), 1.0, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3)),
        ("Siglip2Model", Preprocessing((32, 32), 1.0, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)),
        ("DINOv3ViTModel", Preprocessing((32, 32), 1.0, "squash", "bilinear")),
    ],
)
def test_preprocessing_of_a_family(name, expected):
    assert adapt(families.NETWORKS[name]()).preprocessing == expected


@torch.no_grad()
def test_pixels_beyond_the_last_whole_patch(tmp_path):
    """As in SigLIP of 14-pixel patches on 384 pixels: the network itself drops them."""
    network = families.paired("SiglipVisionModel", "Siglip", image_size=36, patch_size=8)
    network.save_pretrained(tmp_path)
    loaded = vitrail.load(tmp_path, device="cpu")
    assert loaded.preprocessing.size == (32, 32)
    images = torch.randn(1, 3, 36, 36)
    torch.testing.assert_close(loaded.logits(images[..., :32, :32]), network(images).pooler_output)


def wrapped(kind: str, architecture: str, **fields) -> torch.nn.Module:
    config = transformers.TimmWrapperConfig(architecture=architecture, **fields)
    torch.manual_seed(0)
    return networks.shaken(getattr(transformers, kind)(config), spread=0.05)


SMALL_VIT = {"model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}, "num_labels": 5}


@torch.no_grad()
def test_a_vit_of_timm_inside_transformers(tmp_path):
    names = dict(enumerate(networks.CLASS_NAMES))
    described = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bilinear",
    }
    wrapper = wrapped(
        "TimmWrapperForImageClassification", "vit_tiny_patch16_224", **SMALL_VIT, id2label=names, pretrained_cfg=described
    )
    wrapper.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    for classifier in (adapt(wrapper), vitrail.load(f"hf:{tmp_path}", device="cpu")):
        assert isinstance(classifier, ViTAdapter)
        assert classifier.class_names == networks.CLASS_NAMES
        torch.testing.assert_close(classifier.logits(images), wrapper(images).logits)
        expected = Preprocessing((32, 32), 1.0, "squash", "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert classifier.preprocessing == expected
        with classifier.verified("attention", "parts", "removal", "head"):
            pass


@torch.no_grad()
def test_another_network_of_timm_inside_transformers():
    wrapper = wrapped("TimmWrapperForImageClassification", "resnet18", num_labels=5)
    classifier, images = adapt(wrapper), torch.randn(2, 3, 64, 64)
    assert isinstance(classifier, PlainClassifier)
    torch.testing.assert_close(classifier.logits(images), wrapper(images).logits)
    assert classifier.preprocessing.size == (224, 224)
