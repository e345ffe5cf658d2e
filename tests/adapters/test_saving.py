"""Saved models load unchanged."""

from dataclasses import replace

import networks
import pytest
import timm
import torch
import transformers
from PIL import Image

import vitrail
from vitrail.adapters import Preprocessing, build, export_huggingface
from vitrail.adapters.build_spec import BuildSpec
from vitrail.adapters.plain import adapt_plain
from vitrail.core.errors import CheckpointError, OutputError, UnsupportedModelError
from vitrail.models.checkpoints import write_checkpoint


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_is_the_same_when_loaded(tmp_path, half):
    original = networks.network("hit-pooled")
    vitrail.save(original, tmp_path / "mine.safetensors", half=half, notes={"trained on": "noise"})
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    assert (again.class_names, again.preprocessing) == (original.class_names, original.preprocessing)
    images = networks.images("hit-pooled")
    tolerance = 1e-2 if half else 0
    torch.testing.assert_close(again.logits(images), original.logits(images), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_networks_that_came_from_elsewhere_are_not_saved(tmp_path, name):
    """vitrail cannot rebuild them; a Hugging Face model has a configuration."""
    with pytest.raises(
        UnsupportedModelError,
        match=r"expected a network that vitrail built, or read from its own files, got .*V.*T.*; save it by the library",
    ):
        vitrail.save(networks.network(name), tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name.startswith("hf-")])
def test_hugging_face_models_are_saved_with_their_configuration(tmp_path, name):
    original = networks.network(name)
    vitrail.save(original, tmp_path / "mine.safetensors")
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    images = networks.images(name)
    assert type(again.module) is type(original.module)
    torch.testing.assert_close(again.logits(images), original.logits(images), rtol=0, atol=0)


def test_a_custom_head_is_refused(tmp_path):
    network = networks.huggingface("ViT")
    network.classifier = torch.nn.Sequential(torch.nn.Linear(24, 9), torch.nn.Linear(9, 5))
    with pytest.raises(UnsupportedModelError, match=r"got another in classifier.*; a custom head cannot be saved"):
        vitrail.save(vitrail.adapt(network), tmp_path / "mine.safetensors")


TIMM = {"name": "resnet10t", "options": {"num_classes": 5, "in_chans": 3}}
VIT = {"model_type": "vit", "num_labels": 5, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("timm", {"name": "hf-hub:owner/name", "options": {}}, "expected the name of a timm model"),
        ("timm", {"name": "local-dir:/tmp", "options": {}}, "expected the name of a timm model"),
        ("timm", {"name": "resnet10t", "options": {"checkpoint_path": "evil.pth"}}, "got checkpoint_path"),
        ("timm", {"name": "resnet10t", "options": {"pretrained": True}}, "got pretrained"),
        ("timm", {"name": "resnet10t", "options": {"pretrained_cfg": {"file": "evil.pth"}}}, "got pretrained_cfg"),
        ("timm", {"name": "resnet10t", "options": {"features_only": True}}, "got features_only"),
        ("timm", {"name": "resnet10t", "options": ["num_classes"]}, "expected the name of a timm model and its options"),
        ("timm", {"name": "resnet10t", "options": {"act_layer": "os.system"}}, "not one that this version understands"),
        ("timm", {"name": "resnet10t"}, "not one that this version understands"),
        ("torchvision", {"name": "resnet18", "options": {"weights": "DEFAULT"}}, "options of its shape"),
        ("torchvision", {"name": "resnet18", "options": {"pretrained": True}}, "options of its shape"),
        ("torchvision", {"name": "fasterrcnn_resnet50_fpn", "options": {}}, "unknown torchvision model"),
        ("huggingface", VIT | {"auto_map": {"AutoConfig": "evil.Config"}}, "expected fields of the configuration of a vit"),
        ("huggingface", VIT | {"attn_implementation": "owner/kernel"}, "got attn_implementation"),
        ("huggingface", VIT | {"_attn_implementation": "owner/kernel"}, "got _attn_implementation"),
        ("huggingface", VIT | {"quantization_config": {"a": 1}}, "got quantization_config"),
        ("huggingface", VIT | {"hidden_size": {"a": 1}}, "got nested ones"),
        ("huggingface", VIT | {"model_type": "evil"}, "expected a type of model that this version of transformers knows"),
        ("huggingface", {"model_type": "timm_wrapper", "architecture": "local-dir:x"}, "expected a type of model"),
        ("huggingface", {"model_type": "bert"}, "cannot build a classifier of type bert"),
        ("evil", {}, "'evil'"),
    ],
)
def test_descriptions_that_ask_for_more_than_a_network(tmp_path, architecture, config, message, monkeypatch):
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("nothing is to be read"))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("nothing is to be fetched"))
    described = {"architecture": architecture, "config": config, "preprocessing": {}, "class_names": [], "view": "plain"}
    write_checkpoint(tmp_path / "odd.safetensors", torch.nn.Linear(2, 2), described)
    with pytest.raises(CheckpointError, match=message):
        vitrail.load(tmp_path / "odd.safetensors")


def test_the_size_of_cells_is_saved(tmp_path):
    spec = BuildSpec("timm", TIMM)
    plain = replace(adapt_plain(timm.create_model("resnet10t", **TIMM["options"]), "mine", cell_size=8), build_spec=spec)
    vitrail.save(plain, tmp_path / "mine.safetensors")
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    assert again.grid_size(torch.zeros(1, 3, 32, 64)) == (4, 8)


def test_variances_beyond_half_precision_stay_whole(tmp_path):
    plain = build("timm:resnet10t", num_classes=5, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    plain.module.bn1.running_var.fill_(1e6)
    vitrail.save(plain, tmp_path / "mine.safetensors", half=True)
    assert vitrail.load(tmp_path / "mine.safetensors", device="cpu").module.bn1.running_var.eq(1e6).all()


def test_export_keeps_what_outputs_mean(tmp_path):
    export_huggingface(vitrail.adapt(networks.huggingface("ViT"), output="none"), tmp_path / "folder")
    assert vitrail.load(tmp_path / "folder", device="cpu").output == "none"


@torch.no_grad()
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing((32, 32), 0.875, "center", "bicubic"),
        Preprocessing((32, 32), 1.0, "center", "bilinear", (0.5,) * 3, (0.5,) * 3),
        Preprocessing((32, 48), 1.0, "squash", "bilinear"),
        Preprocessing((32, 32), 0.8, "squash", "bicubic"),
    ],
)
def test_export_for_hugging_face(tmp_path, preprocessing):
    """transformers and vitrail read it back with class names, the same logits and the same pixels."""
    original = vitrail.adapt(networks.huggingface("ViT"), class_names=networks.CLASS_NAMES, preprocessing=preprocessing)
    before = original.module.config.to_dict()
    export_huggingface(original, tmp_path / "folder")
    assert original.module.config.to_dict() == before
    images = networks.images("hf-vit")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "folder").eval()
    torch.testing.assert_close(theirs(images).logits, original.module(images).logits, rtol=0, atol=0)
    assert theirs.config.id2label == dict(enumerate(networks.CLASS_NAMES))
    again = vitrail.load(tmp_path / "folder", device="cpu")
    assert again.class_names == networks.CLASS_NAMES
    torch.testing.assert_close(again.logits(images), original.logits(images), rtol=0, atol=0)
    photo = photo_of_noise()
    expected = original.preprocessing(photo)
    torch.testing.assert_close(again.preprocessing(photo), expected)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    pixels = processor(photo, return_tensors="pt")["pixel_values"][0]
    assert pixels.shape == expected.shape
    assert (pixels - expected).abs().mean() < 0.02  # Two ways of rounding when photos are resized.


def test_what_hugging_face_cannot_hold_is_not_exported(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"expected a network of Hugging Face, got HiT; vitrail.save writes it"):
        export_huggingface(networks.network("hit"), tmp_path)
    odd = vitrail.adapt(networks.huggingface("ViT"), preprocessing=Preprocessing((32, 48)))
    with pytest.raises(UnsupportedModelError, match="expected a preprocessing that transformers can do"):
        export_huggingface(odd, tmp_path / "folder")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        export_huggingface(networks.network("hf-vit"), tmp_path / "full")
    export_huggingface(networks.network("hf-vit"), tmp_path / "full", overwrite=True)
    assert {entry.name for entry in (tmp_path / "full").iterdir()} == {
        "mine.txt",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def photo_of_noise() -> Image.Image:
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 9), size=(60, 90), mode="bicubic")[0].clamp(0, 1)
    return Image.fromarray((smooth * 255).to(torch.uint8).permute(1, 2, 0).numpy())
