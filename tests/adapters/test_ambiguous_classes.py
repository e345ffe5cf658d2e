"""Class names that several classes share are refused or resolved explicitly."""

import logging
from dataclasses import replace

import networks
import pytest
import torch
from PIL import Image

import vitrail
from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.datasets.folder import ImageFolder
from vitrail.evaluation import evaluate, with_model_labels
from vitrail.evaluation.layers import report_layers
from vitrail.runs.photo_list import list_folder_photos

NAMES = ("crane", "bee", "cat", "crane", "emu")


def model(names=NAMES, **changes):
    module = networks.hit()
    for name, value in changes.items():
        module.get_parameter(name.replace("__", ".")).data.fill_(value)
    preprocessing = vitrail.adapters.Preprocessing((16, 16), 1.0)
    return vitrail.adapt(module, name="birds", class_names=names, preprocessing=preprocessing)


def folder(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (len(name) * 9, 40, 90)).save(root / name / "a.png")
    return ImageFolder.scan(root, model().preprocessing)


def test_a_target_by_an_ambiguous_name():
    classifier = model()
    with pytest.raises(InvalidInputError, match="'crane', the name of the classes 0 and 3 of birds; give the number"):
        classifier.class_index("crane")
    assert classifier.class_index("cat") == 2
    assert classifier.class_index(3) == classifier.class_index("3") == 3
    with pytest.raises(InvalidInputError, match="the classes 0 and 3"):
        vitrail.explain(classifier, Image.new("RGB", (16, 16)), target="crane")


def test_results_tell_classes_of_one_name_apart():
    explanation = vitrail.explain(model(), Image.new("RGB", (16, 16)), target=3)
    assert explanation.target_name() == "crane (class 3)"
    assert {name for name, _ in explanation.top_classes(0, 5)} == {"crane (class 0)", "bee", "cat", "crane (class 3)", "emu"}


def test_many_of_a_name_are_not_all_listed():
    with pytest.raises(InvalidInputError, match=r"the classes 0, 1, 2, 3 and 4 of"):
        model(("gull",) * 5).class_index("gull")


def test_folders_of_an_ambiguous_name(tmp_path, caplog):
    images = folder(tmp_path, ["bee", "crane"])
    with pytest.raises(InvalidInputError, match="got 'crane': several classes of birds have that name"):
        with_model_labels(images, model())
    with caplog.at_level(logging.WARNING, "vitrail"):
        asked, _ = list_folder_photos(tmp_path, model())
    assert [true_class for _, true_class in asked] == [1, None]
    assert "several classes of the model are called 'crane'" in caplog.text


def test_the_models_own_list_is_its_own_order(tmp_path):
    images = folder(tmp_path, ["bee"])
    same = type(images)(images.paths, [3], list(NAMES), images.transform)
    assert with_model_labels(same, model()).labels == [3]
    assert model().class_indices(["bee", "gnu", "crane"]) == [[1], [], [0, 3]]


def test_logits_that_are_not_finite_are_no_accuracy(tmp_path):
    images = folder(tmp_path, ["bee", "cat"])
    broken = model(head__bias=float("nan"))
    for measure in (evaluate, report_layers):
        with pytest.raises(InvalidInputError, match="birds gave logits that are not finite; check its weights"):
            measure(broken, images)


def test_logits_of_another_number_than_classes():
    classifier = replace(model(), class_names=NAMES[:4])
    with pytest.raises(InvalidInputError, match="expected 4 logits from birds, one per class name, got 5"):
        vitrail.explain(classifier, Image.new("RGB", (16, 16)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_loaded(tmp_path, value):
    import timm

    module = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, embed_dim=12, num_heads=3)
    module.head.bias.data.fill_(value)
    shape = {"depth": 1, "embed_dim": 12, "num_heads": 3}
    timm.models.save_for_hf(module, tmp_path / "timm", model_args=shape, safe_serialization=True)
    hugging = networks.huggingface("ViT")
    hugging.classifier.bias.data.fill_(value)
    hugging.save_pretrained(tmp_path / "hf")
    for place in ("timm", "hf"):
        with pytest.raises(
            CheckpointError, match=r"expected weights that are finite floating-point numbers, got .*bias \(not fin"
        ):
            vitrail.load(tmp_path / place, device="cpu")


def test_weights_in_codes_are_not_loaded(tmp_path):
    from safetensors.torch import load_file, save_file

    networks.huggingface("ViT").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["classifier.weight"] = (state["classifier.weight"] * 100).to(torch.int8)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"expected floating-point weights in .*got classifier.weight \(I8\)"):
        vitrail.load(tmp_path, device="cpu")
