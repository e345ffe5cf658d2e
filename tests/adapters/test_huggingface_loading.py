"""Hugging Face models from folders that `save_pretrained` wrote; downloads are mocked."""

import json
import os
import pickle
from pathlib import Path

import networks
import pytest
import torch
import transformers

import vitrail
from vitrail.adapters import Preprocessing
from vitrail.adapters.plain import PlainClassifier
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError

SQUASHED = Preprocessing((32, 32), 1.0, "squash", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def named(family: str = "ViT", **options) -> torch.nn.Module:
    model = networks.huggingface(family, **options)
    model.config.id2label = dict(enumerate(networks.CLASS_NAMES))
    model.config.label2id = {name: index for index, name in enumerate(networks.CLASS_NAMES)}
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    named().save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def describe(folder: Path, **fields) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_folder(folder, prefix):
    loaded, images = vitrail.load(f"{prefix}{folder}", device="cpu"), networks.images("hf-vit")
    assert loaded.class_names == networks.CLASS_NAMES
    assert loaded.name == f"{folder.parent.name}/{folder.name}"
    assert loaded.preprocessing == SQUASHED
    assert not loaded.module.training
    torch.testing.assert_close(loaded.logits(images), named()(images).logits)
    assert loaded.perturbed_logits(images, images, torch.ones(3, 1, 16, dtype=torch.bool)).shape == (3, 1, 5)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name.startswith("hf-")])
def test_every_family(tmp_path, name):
    original, images = networks.network(name), networks.images(name)
    original.module.save_pretrained(tmp_path)
    loaded = vitrail.load(tmp_path, device="cpu")
    if name == "hf-deit-teacher":  # The folder's configuration says DeiT, and so do transformers' own auto classes.
        assert type(loaded.module).__name__ == "DeiTForImageClassificationWithTeacher"
    torch.testing.assert_close(loaded.logits(images), original.logits(images))
    assert loaded.class_names == ()


def test_with_a_processor(folder):
    describe(folder, size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, resample=3, image_mean=[0.1, 0.2, 0.3])
    loaded = vitrail.load(folder, device="cpu")
    expected = Preprocessing((32, 32), 0.8, "center", "bicubic", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert loaded.preprocessing == expected
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    assert vitrail.load(folder, device="cpu").preprocessing == SQUASHED


def test_images_of_another_size(folder):
    loaded = vitrail.load(folder, device="cpu", image_size=(48, 64))
    assert loaded.preprocessing.size == (48, 64)
    assert loaded.grid_size(torch.zeros(1, 3, 48, 64)) == (6, 8)
    with pytest.raises(InvalidInputError, match=r"multiples of 8 and 8 pixels for .*vit, got 50x64"):
        vitrail.load(folder, device="cpu", image_size=(50, 64))


def test_random_weights(folder):
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    loaded = vitrail.load(folder, device="cpu", pretrained=False)
    assert loaded.class_names == networks.CLASS_NAMES
    assert not loaded.module.training
    assert vitrail.load(folder, device="cpu", pretrained=False, num_labels=7).num_classes == 7


def test_options_that_do_not_exist(folder):
    with pytest.raises(
        InvalidInputError, match="a vit of transformers has no option num_lables; expected fields of its config"
    ):
        vitrail.load(folder, device="cpu", num_lables=7)


def test_weights_of_another_shape(folder):
    with pytest.raises(CheckpointError, match=r"do not fit the model: classifier.bias: expected \(7,\), got \(5,\)"):
        vitrail.load(folder, device="cpu", num_labels=7)


@pytest.mark.parametrize("content", [b"", b"x" * 3000, None], ids=["empty", "garbage", "truncated"])
def test_damaged_weights(folder, content):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000] if content is None else content)
    with pytest.raises(CheckpointError, match=r"cannot load the weights of .*vit: "):
        vitrail.load(folder, device="cpu")


def test_a_configuration_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot load the weights of .*: .*no file named model.safetensors"):
        vitrail.load(folder, device="cpu")


def test_weights_that_are_programs_are_not_run(folder):
    class Program:
        def __reduce__(self):
            return (Path.touch, (folder / "ran",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Program(), protocol=2))
    with pytest.raises(CheckpointError, match="cannot load the weights of"):
        vitrail.load(folder, device="cpu")
    assert not (folder / "ran").exists()


def test_code_in_a_folder_is_not_run(folder):
    described = json.loads((folder / "config.json").read_text())
    described |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Model"},
    }
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()")
    with pytest.raises(CheckpointError, match=r"cannot read the model's configuration .*contains custom code"):
        vitrail.load(folder, device="cpu")
    assert not (folder / "ran").exists()


def test_backbones_and_other_architectures(tmp_path):
    small = named().config
    transformers.ViTModel(small).save_pretrained(tmp_path / "backbone")
    assert vitrail.load(tmp_path / "backbone", device="cpu").output == "embedding"
    with pytest.raises(CheckpointError, match=r"found none for classifier.bias, classifier.weight; it is a backbone without"):
        vitrail.load(tmp_path / "backbone", device="cpu", num_labels=5)
    assert vitrail.load(tmp_path / "backbone", device="cpu", pretrained=False, num_labels=5).num_classes == 5
    swin = transformers.SwinConfig(image_size=32, embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=4)
    transformers.SwinForImageClassification(swin).save_pretrained(tmp_path / "swin")
    plain = vitrail.load(tmp_path / "swin", device="cpu")
    assert isinstance(plain, PlainClassifier)
    assert "got SwinForImageClassification of type swin, which has no adapter" in plain.reason
    transformers.SwinModel(swin).save_pretrained(tmp_path / "swin-backbone")
    with pytest.raises(CheckpointError, match=r"found none for classifier.bias, classifier.weight; it is a backbone without"):
        vitrail.load(tmp_path / "swin-backbone", device="cpu")
    bert = transformers.BertConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=1, intermediate_size=12, vocab_size=30
    )
    transformers.BertModel(bert).save_pretrained(tmp_path / "bert")
    for options in ({}, {"pretrained": False}):
        with pytest.raises(UnsupportedModelError, match="of type bert"):
            vitrail.load(tmp_path / "bert", device="cpu", **options)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("[]", "expected the config.json of timm .* or of transformers"),
        ("{}", "expected the config.json of timm .* or of transformers"),
        ('{"model_type": "nonsense"}', "cannot read the model's configuration in .*vit: .*nonsense"),
        ("{", "cannot read .*config.json"),
    ],
)
def test_configurations_that_make_no_sense(folder, described, message):
    (folder / "config.json").write_text(described)
    with pytest.raises((CheckpointError, UnsupportedModelError), match=message):
        vitrail.load(folder, device="cpu")


@pytest.mark.parametrize(
    "described",
    [{"size": "x"}, {"size": [32, 32]}, {"image_mean": 0.5}, {"crop_size": {"shortest_edge": 3}}, {"image_std": ["a"]}],
)
def test_processors_that_make_no_sense(folder, described):
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json of .*vit is not one that this version understands"):
        vitrail.load(describe(folder, **described), device="cpu")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read preprocessor_config.json of .*vit"):
        vitrail.load(folder, device="cpu")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize(("make", "what"), [(os.mkdir, "Is a directory"), (os.mkfifo, "got a named pipe")])
def test_a_processor_that_is_a_folder_or_pipe_is_refused(folder, make, what):
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    make(folder / "preprocessor_config.json")
    with pytest.raises(CheckpointError, match=rf"^cannot read preprocessor_config.json of .*vit: .*{what}$"):
        vitrail.load(folder, device="cpu")


def test_arguments_of_the_download(monkeypatch):
    asked = []

    def unreachable(name, **options):
        asked.append((name, options))
        raise OSError("no route\nto the host")

    monkeypatch.setattr("transformers.PretrainedConfig.get_config_dict", lambda name, **options: ({}, {}))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreachable)
    with pytest.raises(UnknownNameError, match=r"cannot find hf:owner/name: no route; expected a folder .* check the name and"):
        vitrail.load("hf:owner/name", revision="v2")
    assert asked[0][0] == "owner/name"
    assert asked[0][1]["revision"] == "v2"
    assert asked[0][1]["trust_remote_code"] is False


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnknownNameError, match=r"cannot find hf:/not/there: .*; expected a folder that save_pretrained wrote"):
        vitrail.load("hf:/not/there")


def test_loading_is_silent_and_restores_the_verbosity_of_transformers(tmp_path, capfd):
    from transformers.utils import logging

    networks.NETWORKS["hf-vit"]().save_pretrained(tmp_path)
    capfd.readouterr()
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    vitrail.load(tmp_path, device="cpu")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("option", [{"num_attention_heads": 0}, {"hidden_size": -1}, {"patch_size": 0}, {"hidden_act": "foo"}])
def test_sizes_that_no_network_can_have_are_refused(folder, option):
    with pytest.raises(UnsupportedModelError, match="cannot build a classifier of type vit"):
        vitrail.load(f"hf:{folder}", pretrained=False, **option)
