"""Classes, channels, image size and the network itself are read from the file."""

import argparse
import logging

import networks
import pytest
import timm
import torch
from weight_files import SHAPE, TIMM, images, same_logits, train_py, trained_timm

import vitrail
from vitrail.core.errors import CheckpointError, InvalidInputError, UnsupportedModelError


def save(tmp_path, content, name="model_best.pth.tar"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def test_train_py_names_its_network(tmp_path, caplog):
    module = trained_timm(img_size=32, global_pool="avg")
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.5], "crop_pct": 0.8, "interpolation": "bilinear", "class_map": "classes.txt"}
    content = train_py(module, model_kwargs=SHAPE | {"img_size": 32}, gp="avg", **settings)
    with caplog.at_level(logging.INFO, "vitrail"):
        classifier = vitrail.load(save(tmp_path, content), device="cpu")
    same_logits(classifier, module, images(32))
    ours = classifier.preprocessing
    assert (ours.mean, ours.std, ours.crop_fraction) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 0.8)
    assert (ours.size, ours.interpolation) == ((32, 32), "bilinear")
    assert "was trained with the class map classes.txt; give it as class names" in caplog.text
    again = vitrail.load(f"timm:{TIMM}", weights=tmp_path / "model_best.pth.tar", device="cpu")  # Naming it changes nothing.
    same_logits(again, module, images(32))
    assert again.preprocessing == ours


def test_train_py_prefers_its_averaged_weights_and_says_how_to_take_the_others(tmp_path):
    averaged, last = trained_timm(img_size=32), trained_timm(seed=5, img_size=32)
    content = train_py(last, model_kwargs=SHAPE | {"img_size": 32}) | {"state_dict_ema": averaged.state_dict()}
    path = save(tmp_path, content)
    same_logits(vitrail.load(path, device="cpu"), averaged, images(32))
    same_logits(vitrail.load(path, device="cpu", weights_key="state_dict"), last, images(32))


def test_a_checkpoint_of_train_py_with_a_name_of_the_hub_fetches_nothing(tmp_path):
    path = save(tmp_path, train_py(trained_timm(), model="hf-hub:owner/name"))
    with pytest.raises(CheckpointError, match=r"cannot tell what model .* a ViT of timm, .*--model timm:vit_base_patch16_224"):
        vitrail.load(path, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": ["x"]}, "the preprocessing that the training settings in .* describe is invalid"),
        ({"crop_pct": 7}, "the preprocessing that the training settings in .* describe is invalid"),
        ({"model_kwargs": {"depth": 10**9}}, "asks for depth=1000000000"),
        ({"model_kwargs": SHAPE | {"checkpoint_path": "x"}}, "expected options of the shape"),
        ({"model_kwargs": SHAPE | {"depth": 2}}, "does not fit this VisionTransformer"),
    ],
)
def test_settings_of_a_file_are_not_trusted(arguments, message, tmp_path):
    path = save(tmp_path, train_py(trained_timm(), **arguments))
    with pytest.raises((CheckpointError, InvalidInputError), match=message):
        vitrail.load(path, device="cpu")


@pytest.mark.parametrize("options", [{"img_size": 32}, {"img_size": 48, "in_chans": 1}, {"num_classes": 1}])
def test_sides_channels_and_classes_of_timm(options, tmp_path):
    module = trained_timm(**options)
    classifier = vitrail.load(f"timm:{TIMM}", weights=save(tmp_path, module.state_dict()), device="cpu", **SHAPE)
    size = options.get("img_size", 224)
    same_logits(classifier, module, images(size, options.get("in_chans", 3)))
    assert classifier.num_classes == options.get("num_classes", 3)
    assert classifier.preprocessing.size == (size, size)


def test_a_resnet_is_a_plain_classifier(tmp_path):
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=4)
    classifier = vitrail.load(save(tmp_path, {"state_dict": module.state_dict(), "arch": "test_resnet"}), device="cpu")
    same_logits(classifier, module, images(64))
    assert type(classifier).__name__ == "PlainClassifier"


@pytest.mark.slow
def test_torchvision(tmp_path):
    from torchvision.models import get_model

    torch.manual_seed(0)
    module = networks.shaken(get_model("vit_b_32", num_classes=3, image_size=64), spread=0.02)
    path = save(tmp_path, {"model": module.state_dict()})
    classifier = vitrail.load("torchvision:vit_b_32", weights=path, device="cpu")
    same_logits(classifier, module, images(64))
    assert (classifier.num_classes, classifier.preprocessing.size) == (3, (64, 64))


def test_torchvisions_script_names_its_network(tmp_path):
    from torchvision.models import get_model

    module = networks.shaken(get_model("squeezenet1_1", num_classes=3), spread=0.02)
    args = argparse.Namespace(model="squeezenet1_1", val_crop_size=96, val_resize_size=128, interpolation="bicubic")
    path = save(tmp_path, {"model": module.state_dict(), "args": args})
    classifier = vitrail.load(path, device="cpu")
    same_logits(classifier, module, images(96))
    same_logits(vitrail.load("torchvision:squeezenet1_1", weights=path, device="cpu"), module, images(96))
    ours = classifier.preprocessing
    assert (ours.size, ours.crop_fraction, ours.interpolation) == ((96, 96), 0.75, "bicubic")


def test_a_name_of_two_libraries_is_torchvisions_in_its_script(tmp_path):
    from torchvision.models import get_model

    module = networks.shaken(get_model("resnet18", num_classes=3), spread=0.02)
    args = argparse.Namespace(model="resnet18", val_crop_size=96, val_resize_size=128, interpolation="bilinear")
    classifier = vitrail.load(save(tmp_path, {"model": module.state_dict(), "args": args}), device="cpu")
    same_logits(classifier, module, images(96))
    ours = classifier.preprocessing
    assert (ours.size, ours.crop_fraction, ours.interpolation) == ((96, 96), 0.75, "bilinear")
    assert classifier.name.startswith("torchvision:resnet18")


def test_a_peft_adapter_alone_is_refused(tmp_path):
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    lora = get_peft_model(trained_timm(), LoraConfig(target_modules=["qkv"], r=2, modules_to_save=["head"]))
    lora.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="got a PEFT adapter alone; merge it"):
        vitrail.load(tmp_path / "adapter")
    path = save(tmp_path, load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    with pytest.raises(CheckpointError, match="look like a PEFT adapter, without its network: merge it"):
        vitrail.load("timm:vit_tiny_patch16_224", weights=path, **SHAPE)


def test_torchvision_without_a_head(tmp_path):
    from torchvision.models import get_model

    module = networks.shaken(get_model("resnet18"), spread=0.02)
    module.fc = torch.nn.Identity()
    classifier = vitrail.load("torchvision:resnet18", weights=save(tmp_path, module.state_dict()), device="cpu")
    same_logits(classifier, module, images(64))
    assert (classifier.output, classifier.num_classes) == ("embedding", 512)
    with pytest.raises(UnsupportedModelError, match=r"this network gives an embedding; give it .* --probe\)$"):
        vitrail.explain(classifier, images(64))


def test_a_name_of_torchvisions_own_weights_is_no_file(monkeypatch):
    def create(name, **options):
        raise LookupError(f"{name} {options}")

    monkeypatch.setattr("vitrail.adapters.torchvision.library.create_torchvision", create)
    with pytest.raises(LookupError, match=r"vit_b_16 {'weights': 'IMAGENET1K_SWAG_E2E_V1'}"):
        vitrail.load("torchvision:vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")


HF = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "patch_size": 8}


@pytest.mark.parametrize("size", [32, 48])
def test_huggingface_by_type(size, tmp_path):
    module = networks.huggingface("ViT", image_size=size)
    path = save(tmp_path, {"state_dict": {f"model.{name}": value for name, value in module.state_dict().items()}})
    classifier = vitrail.load("hf:vit", weights=path, device="cpu", **HF)
    same_logits(classifier, module, images(size))


def test_huggingface_by_the_configuration_of_a_folder(tmp_path):
    module = networks.huggingface("ViT", id2label={index: f"bird {index}" for index in range(5)})
    module.config.save_pretrained(tmp_path)
    path = save(tmp_path, module.state_dict(), "mine.pth")
    for name in (f"hf:{tmp_path}", tmp_path):
        classifier = vitrail.load(name, weights=path, device="cpu")
        same_logits(classifier, module, images(32))
        assert classifier.class_name(4) == "bird 4"


def test_weights_into_a_network_that_a_file_of_ours_describes(tmp_path):
    ours, other = networks.hit(), networks.hit()
    networks.shaken(other, seed=3)
    vitrail.save(vitrail.adapt(ours), tmp_path / "ours.safetensors")
    path = save(tmp_path, {"state_dict": {f"model.{name}": value for name, value in other.state_dict().items()}})
    classifier = vitrail.load(tmp_path / "ours.safetensors", weights=path, device="cpu")
    same_logits(classifier, other, torch.randn(2, 3, 16, 16))


def test_what_was_loaded_is_saved_as_one_file(tmp_path):
    module = trained_timm(img_size=32)
    classifier = vitrail.load(
        f"timm:{TIMM}", weights=save(tmp_path, module.state_dict()), device="cpu", class_names="a,b,c", **SHAPE
    )
    vitrail.save(classifier, tmp_path / "mine.safetensors")
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    same_logits(again, module, images(32))
    assert again.class_names == ("a", "b", "c")


def test_a_head_that_is_asked_for_must_be_there(tmp_path):
    state = trained_timm(num_classes=0).state_dict()
    with pytest.raises(CheckpointError, match=r"missing head.weight \(3, 24\), .*missing head.bias|missing head"):
        vitrail.load(f"timm:{TIMM}", weights=save(tmp_path, state), device="cpu", num_classes=3, **SHAPE)


def test_class_names_are_one_per_logit(tmp_path):
    path = save(tmp_path, trained_timm().state_dict())
    with pytest.raises(UnsupportedModelError, match="expected 3 class names, one per logit, got 2"):
        vitrail.load(f"timm:{TIMM}", weights=path, device="cpu", class_names=["a", "b"], **SHAPE)


def test_a_file_without_a_head_is_an_embedding(tmp_path, caplog):
    module = trained_timm(num_classes=0)
    state = {f"backbone.{name}": tensor for name, tensor in module.state_dict().items()}
    path = save(tmp_path, {"teacher": state | {"head.mlp.0.weight": torch.ones(4, 24)}})
    with caplog.at_level(logging.INFO, "vitrail"):
        classifier = vitrail.load(f"timm:{TIMM}", weights=path, device="cpu", **SHAPE)
    same_logits(classifier, module, images())
    assert classifier.output == "embedding"
    assert "ignored head.mlp.0" in caplog.text
    assert f"{path} holds no head for timm:{TIMM}: its embedding is explained, without classes" in caplog.text
    compared = vitrail.load(f"timm:{TIMM}", weights=path, device="cpu", direction=torch.ones(24), **SHAPE)
    expected = torch.nn.functional.cosine_similarity(module(images()), torch.ones(1, 24))
    torch.testing.assert_close(compared.logits(images())[:, 0], expected)
