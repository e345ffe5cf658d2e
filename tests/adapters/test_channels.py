"""Networks without three channels: grayscale works end to end, others raise clear errors."""

import json

import networks
import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vitrail
from vitrail.adapters import Preprocessing
from vitrail.adapters.huggingface.processor_files import processor_preprocessing
from vitrail.adapters.plain import adapt_plain
from vitrail.core.errors import InvalidInputError

GRAY = {
    "timm": lambda: networks.timm_vit(in_chans=1),
    "eva": lambda: networks.eva(in_chans=1),
    "hf-vit": lambda: networks.huggingface("ViT", num_channels=1),
    "hf-dinov2": lambda: networks.huggingface("Dinov2", num_channels=1),
    "hf-deit": lambda: networks.huggingface("DeiT", num_channels=1),
}
MANY = {
    "timm": lambda: networks.timm_vit(in_chans=4),
    "hf-vit": lambda: networks.huggingface("ViT", num_channels=4),
    "hf-deit": lambda: networks.huggingface("DeiT", num_channels=2),
}


def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", GRAY)
def test_gray_networks_explain_photos(name):
    classifier = vitrail.adapt(GRAY[name]())
    [mean], [std] = classifier.preprocessing.mean, classifier.preprocessing.std
    images = classifier.prepare(photo())
    assert images.shape == (1, 1, 32, 32)
    assert classifier.preprocessing.denormalize(images).shape == images.shape
    assert classifier.baseline("black", images).unique().tolist() == pytest.approx([-mean / std])
    explanation = vitrail.explain(classifier, photo(), method="rollout")
    assert torch.isfinite(explanation.relevance).all()


def test_colors_are_averaged_for_gray():
    assert Preprocessing(mean=(0.1, 0.2, 0.6), std=(0.2, 0.3, 0.4)).for_channels(1).mean == pytest.approx((0.3,))
    rgb = Preprocessing()
    assert rgb.for_channels(3) is rgb
    assert rgb.for_channels(4) is rgb


def test_a_gray_model_of_hugging_face_from_a_folder(tmp_path):
    networks.huggingface("ViT", num_channels=1).save_pretrained(tmp_path)
    for described in ({}, {"do_normalize": False}, {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
        classifier = vitrail.load(tmp_path, device="cpu")
        assert classifier.preprocessing.num_channels == 1
        assert vitrail.explain(classifier, photo(), method="rollout").relevance.shape == (1, 4, 4)


@pytest.mark.parametrize("name", MANY)
def test_others_take_tensors_and_refuse_photos(name):
    module = MANY[name]()
    classifier = vitrail.adapt(module)
    channels = next(tensor.shape[1] for tensor in module.parameters() if tensor.ndim == 4)
    with pytest.raises(InvalidInputError, match=r"expected (images of \d channels|a photo of \d channels)"):
        vitrail.explain(classifier, photo())
    images = torch.randn(1, channels, 32, 32)
    assert torch.isfinite(vitrail.explainers.make_explainer("rollout", classifier).explain(images).relevance).all()


def test_black_of_four_channels():
    images = torch.randn(1, 4, 32, 32)
    with pytest.raises(InvalidInputError, match=r"expected a preprocessing of 4 channels to compute black for .* of 3; give"):
        vitrail.adapt(MANY["timm"]()).baseline("black", images)
    own = Preprocessing((32, 32), 1.0, mean=(0.1, 0.2, 0.3, 0.4), std=(0.5,) * 4)
    black = vitrail.adapt(MANY["timm"](), preprocessing=own).baseline("black", images)
    assert black[0, :, 0, 0].tolist() == pytest.approx([-0.2, -0.4, -0.6, -0.8])


def test_a_plain_network_of_four_channels():
    classifier = adapt_plain(
        timm.create_model("resnet10t", in_chans=4, num_classes=3).eval(), "net", (), Preprocessing((32, 32))
    )
    with pytest.raises(InvalidInputError, match="net takes no images of 3 channels"):
        classifier.logits(classifier.prepare(photo()))


@pytest.mark.parametrize(
    "described",
    [
        {"size": {"shortest_edge": 0}},
        {"size": {"height": 0, "width": 0}},
        {"crop_size": [1]},
        {"crop_size": []},
        {"size": 224, "crop_pct": 0},
        {"size": {"shortest_edge": float("nan")}},
        {"size": {"height": float("inf"), "width": 8}},
        {"image_std": [0.0, 0.5, 0.5]},
        {"image_mean": [float("nan")] * 3},
        {"rescale_factor": "x"},
        {"resample": [3]},
    ],
    ids=str,
)
def test_processors_that_ask_for_nothing_possible(tmp_path, described):
    networks.huggingface("ViT").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    with pytest.raises(
        vitrail.core.errors.CheckpointError, match=r"preprocessor_config.json of .* is not one that this version"
    ):
        vitrail.load(tmp_path, device="cpu")


def test_a_silent_processor_of_a_gray_model():
    default = Preprocessing((32, 32), 1.0, mean=(0.4,), std=(0.2,))
    assert processor_preprocessing({}, default).mean == (0.4,)


@pytest.mark.parametrize(
    "described",
    [{"crop_pct": -1}, {"mean": ["a", "b", "c"]}, {"crop_pct": "x"}, {"std": [0, 0, 0]}, {"mean": None, "std": 3}],
    ids=str,
)
def test_preprocessing_of_timm_that_makes_no_sense(described):
    module = networks.timm_vit()
    module.pretrained_cfg = timm.models.get_pretrained_cfg("vit_tiny_patch16_224").to_dict() | described
    with pytest.raises(vitrail.core.errors.VitrailError):
        vitrail.adapt(module)


@pytest.mark.parametrize("device", ["hpu", "meta", "nonsense", "cuda:99", "vulkan", "cpu:x"])
def test_devices_are_checked_before_anything_is_loaded(device, monkeypatch):
    monkeypatch.setattr("vitrail.adapters.local_files.read_checkpoint", lambda *_: pytest.fail("read first"))
    monkeypatch.setattr("vitrail.adapters.timm.library.TimmLibrary.load", lambda *_, **__: pytest.fail("fetched first"))
    for name in ("vitrail:hit-cifar10", "timm:vit_tiny_patch16_224"):
        with pytest.raises(InvalidInputError, match=r"cannot use device .*; expected cpu, cuda, cuda:0 or mps"):
            vitrail.load(name, device=device)


def test_the_normalization_of_custom_channels(tmp_path):
    (tmp_path / "nets.py").write_text(
        "import timm\n\n\ndef six():\n"
        "    return timm.create_model('vit_tiny_patch16_224', img_size=32, in_chans=6, depth=1, embed_dim=24, num_heads=3)\n"
    )
    name = f"{tmp_path}/nets.py:six"
    samples = np.random.default_rng(0).integers(0, 256, (40, 40, 6), dtype=np.uint8)
    np.save(tmp_path / "photo.npy", samples)
    classifier = vitrail.load(name, device="cpu", mean=0.5, std=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (classifier.preprocessing.mean, classifier.preprocessing.std) == ((0.5,) * 6, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    explanation = vitrail.explain(classifier, tmp_path / "photo.npy", method="occlusion")
    assert explanation.relevance.std() > 0
    with pytest.raises(InvalidInputError, match=r"or load the network with these numbers \(--mean, --std\)"):
        vitrail.explain(vitrail.load(name, device="cpu"), tmp_path / "photo.npy", method="occlusion")
    with pytest.raises(InvalidInputError, match="expected mean and std of 6 numbers, one per channel, or of one for all, got"):
        vitrail.load(name, device="cpu", mean=[0.5, 0.5], std=1.0)
    with pytest.raises(InvalidInputError, match="expected mean and std together, got mean alone"):
        vitrail.load(name, device="cpu", mean=0.5)
