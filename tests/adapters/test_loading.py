"""Loading by name and from disk, recognized by content; downloads are mocked."""

import argparse
import json
import shutil
from dataclasses import replace

import networks
import pytest
import timm
import torch

import vitrail
from goldens import FOLDER, golden
from vitrail.adapters import Preprocessing, bundled_models, default_device
from vitrail.adapters.libraries import ENTRIES
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.models.checkpoints import write_checkpoint

NAMES = ["ant", "bee", "cat", "dog", "emu"]


def description(model, **changes):
    preprocessing = Preprocessing(size=model.config.image_size, crop_fraction=0.9, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    fields = {
        "architecture": "hit",
        "config": model.config.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "class_names": NAMES,
    }
    return fields | changes


@pytest.fixture
def own_file(tmp_path):
    model = networks.hit_pooled()
    path = tmp_path / "run" / "model.safetensors"
    path.parent.mkdir()
    write_checkpoint(path, model, description(model), torch.float16, omit=model.unused_names())
    return path, model


@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_our_own_files(own_file, as_folder):
    path, model = own_file
    loaded = vitrail.load(path.parent if as_folder else path, device="cpu")
    assert loaded.class_names == tuple(NAMES)
    assert loaded.preprocessing.mean == (0.1, 0.2, 0.3)
    assert loaded.name == "run"
    assert not loaded.module.training
    images = networks.images("hit-pooled")
    torch.testing.assert_close(loaded.logits(images), model.half().float()(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prefix", ["", "hit:"])
@pytest.mark.parametrize("nested", [True, False], ids=["training file", "bare state"])
def test_published_files(tmp_path, prefix, nested):
    case = golden("hit_pool")
    content = {"model": case.weights, "epoch": 3, "args": argparse.Namespace(model="hit")} if nested else case.weights
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    loaded = vitrail.load(f"{prefix}{path}", device="cpu", num_heads=4)
    assert loaded.module.config == case.model().config
    torch.testing.assert_close(loaded.logits(case.images()), case.tensors["out.logits"], rtol=1e-5, atol=1e-5)


def test_published_weights_in_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file(golden("hit_nopool").weights, tmp_path / "weights.safetensors")
    loaded = vitrail.load(f"hit:{tmp_path / 'weights.safetensors'}", device="cpu", num_heads=4)
    assert loaded.module.config.depths == (3,)


def test_timm_by_name_and_from_a_folder(tmp_path):
    loaded = vitrail.load("timm:vit_tiny_patch16_224", pretrained=False, device="cpu", num_classes=7)
    assert loaded.num_classes == 7
    timm.models.save_for_hf(loaded.module, tmp_path / "saved", safe_serialization=True)
    again = vitrail.load(tmp_path / "saved", device="cpu")
    images = torch.randn(1, 3, *again.preprocessing.size)
    torch.testing.assert_close(again.logits(images), loaded.logits(images))


def test_preprocessing_is_timms_own():
    loaded = vitrail.load("timm:vit_tiny_patch16_384", pretrained=False, device="cpu")
    config = timm.data.resolve_model_data_config(loaded.module)
    ours = loaded.preprocessing
    assert (ours.size, ours.crop_fraction, ours.interpolation) == (
        config["input_size"][1:],
        config["crop_pct"],
        config["interpolation"],
    )
    assert (ours.mean, ours.std) == (config["mean"], config["std"])


def test_arguments_of_downloads_from_the_hub(own_file, monkeypatch):
    path, _ = own_file
    asked = []
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda repository: ["README.md", "weights.safetensors"])
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repository, file: asked.append((repository, file)) or str(path)
    )
    vitrail.load("hit:owner/name", device="cpu")
    vitrail.load("hit:owner/name/sub/other.pth", device="cpu")
    assert asked == [("owner/name", "weights.safetensors"), ("owner/name", "sub/other.pth")]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda repository: ["a.pth", "b.pth"])
    with pytest.raises(UnknownNameError, match=r"found 2; choose: hit:owner/name/a.pth, hit:owner/name/b.pth"):
        vitrail.load("hit:owner/name")


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    with pytest.raises(
        UnknownNameError, match=r"cannot fetch 'owner/name' from the Hugging Face hub: no route; check the name"
    ):
        vitrail.load("hit:owner/name")
    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(
        UnknownNameError, match=r"cannot load the weights of timm:vit_tiny_patch16_224: no route.*pretrained=False"
    ):
        vitrail.load("timm:vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such model: 'nowhere'; expected an existing file or folder, or a name like vitrail:hit-cifar10"),
        ("some/where.safetensors", "no such model: 'some/where.safetensors'; expected an existing file or folder"),
        ("some/where", r"no such model: 'some/where' \(did you mean 'hf:some/where'\?\)"),
        (
            "tim:vit_tiny",
            r"unknown source of models 'tim' \(did you mean 'timm'\?\); choose one of: hf, .*, timm, torchvision, vit-pytorch, vitrail",
        ),
        ("vitrail:hit-cifar11", r"unknown bundled model 'hit-cifar11' \(did you mean 'hit-cifar10'\?\)"),
        ("timm:vit_tiny_patch16_225", r"unknown timm model .*did you mean 'vit_tiny_patch16_224'"),
        ("hf:", "cannot find hf:"),
        ("torchvision:vit_b_17", r"unknown torchvision model 'vit_b_17' \(did you mean 'vit_b_16'\?\)"),
        ("hit:nowhere.pth", "no such file: 'nowhere.pth'; expected a file, or a hub repository"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UnknownNameError, match=message):
        vitrail.load(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "perceptron"}, "'perceptron'"),
        ({"config": {"widths": "x"}}, "not one that this version understands"),
        ({"config": None}, "not one that this version understands"),
        ({"preprocessing": {"sizes": 3}}, "not one that this version understands"),
        ({"class_names": None}, "not one that this version understands"),
    ],
)
def test_descriptions_that_make_no_sense(tmp_path, changes, message, unchecked):
    model = networks.hit()
    write_checkpoint(tmp_path / "odd.safetensors", model, description(model, **changes))
    with pytest.raises(CheckpointError, match=message):
        vitrail.load(tmp_path / "odd.safetensors")


def test_images_of_another_size():
    """Set for networks that take any size; refused immediately for others."""
    options = {"pretrained": False, "device": "cpu", "embed_dim": 24, "depth": 1, "num_heads": 3, "image_size": (32, 48)}
    assert vitrail.load("timm:vit_tiny_patch16_224", dynamic_img_size=True, **options).preprocessing.size == (32, 48)
    with pytest.raises(InvalidInputError, match=r"expected images of 224x224 .* got 32x48; resize them, or load .* img_size="):
        vitrail.load("timm:vit_tiny_patch16_224", **options)
    with pytest.raises(InvalidInputError, match=r"expected images of 32x32 pixels .* for hit-cifar10, got 64x32"):
        vitrail.load("vitrail:hit-cifar10", device="cpu", image_size=(64, 32))


@pytest.mark.parametrize("name", ["hit-cifar10", "vit-cifar10"])
def test_another_size_of_a_model_in_a_file_is_refused_without_options_that_files_do_not_take(name):
    with pytest.raises(
        InvalidInputError, match=r"expected images of 32x32 pixels .* got 64x48; leave out the image size, or train"
    ):
        vitrail.load(f"vitrail:{name}", device="cpu", image_size=(64, 48))


def test_class_names_that_do_not_fit(tmp_path):
    model = networks.hit()
    write_checkpoint(tmp_path / "odd.safetensors", model, description(model, class_names=["one"]))
    with pytest.raises(UnsupportedModelError, match="expected 5 class names"):
        vitrail.load(tmp_path / "odd.safetensors")


def test_weights_of_something_else(tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"cannot tell what model .*layer.weight"):
        vitrail.load(tmp_path / "other.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"expected model.safetensors or best.safetensors, or timm's config.json"):
        vitrail.load(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"widths": [3]}))
    with pytest.raises(
        UnsupportedModelError, match=r"expected the config.json of timm \(with an architecture\) or of transformers"
    ):
        vitrail.load(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json"):
        vitrail.load(tmp_path / "empty")


def test_a_published_file_with_wrong_shapes_lists_them(tmp_path):
    weights = dict(golden("hit_pool").weights)
    weights["encoder.ln.weight"] = torch.zeros(3)
    weights["encoder.layers.block_0.encoder_layer_0.ln_2.bogus"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "bad.pth")
    with pytest.raises(
        CheckpointError, match=r"unknown stages.0.layers.0.norm2.bogus; norm.weight: expected \(64,\), got \(3,\)"
    ):
        vitrail.load(tmp_path / "bad.pth", num_heads=4)


def test_truncated_golden(tmp_path):
    shutil.copy(FOLDER / "hit_pool.safetensors", tmp_path / "cut.safetensors")
    with (tmp_path / "cut.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        vitrail.load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there(own_file, device):
    with pytest.raises(InvalidInputError, match=f"cannot use device '{device}'.*expected cpu, cuda"):
        vitrail.load(own_file[0], device=device)


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_fastest_device_is_the_default(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert default_device() == torch.device(expected)


def test_bundled_models_load():
    assert "hit-cifar10" in bundled_models()
    for name in bundled_models():
        loaded = vitrail.load(f"vitrail:{name}", device="cpu")
        assert loaded.name == name
        assert len(loaded.class_names) == loaded.num_classes


def test_sources_are_named_once():
    assert {"hf", "hit", "intr", "timm", "torchvision"} <= set(ENTRIES)


def test_options_that_a_file_does_not_have(own_file):
    with pytest.raises(InvalidInputError, match="expected no options, got num_heads"):
        vitrail.load(own_file[0], num_heads=3)
    with pytest.raises(InvalidInputError, match="expected no options, got pretrained"):
        vitrail.load("vitrail:hit-cifar10", pretrained=False)


def test_errors_of_timm_are_not_reported_as_connection_errors():
    with pytest.raises(InvalidInputError, match="timm cannot create 'vit_tiny_patch16_224'"):
        vitrail.load("timm:vit_tiny_patch16_224", pretrained=False, depth=1, img_size=32, patch_size=0)


def test_how_photos_get_the_size_can_be_set(own_file):
    """A stretched photo is not cropped, unless the fraction says so."""
    path, _ = own_file
    own = vitrail.load(path, device="cpu").preprocessing
    squashed = vitrail.load(path, device="cpu", crop_mode="squash", interpolation="bilinear").preprocessing
    assert squashed == replace(own, crop_mode="squash", crop_fraction=1.0, interpolation="bilinear")
    assert vitrail.load(path, device="cpu", crop_mode="squash", crop_fraction=0.5).preprocessing.crop_fraction == 0.5
    assert vitrail.load(path, device="cpu", crop_mode="center").preprocessing == own
    with pytest.raises(InvalidInputError, match="expected crop_mode to be one of 'center', 'squash', 'whole', got 'stretch'"):
        vitrail.load(path, device="cpu", crop_mode="stretch")


def test_own_weights_whose_photos_are_prepared_by_guess_are_pointed_out(tmp_path, caplog):
    name, options = "timm:vit_tiny_patch16_224", {"depth": 1, "device": "cpu", "weights": tmp_path / "best.pth"}
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3).state_dict(), options["weights"])
    vitrail.load(name, **options)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "with mean 0.5, 0.5, 0.5 and std 0.5, 0.5, 0.5; if the weights were trained on photos prepared in another way"
        in warning
    )
    caplog.clear()
    vitrail.load(name, crop_mode="squash", **options)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
