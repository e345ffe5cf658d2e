"""Class names of timm models, and embeddings, which are refused."""

import json

import networks
import pytest
import timm
import torch

import vitrail
from vitrail.adapters.timm.labels import refuse_embedding, timm_class_names
from vitrail.core.errors import CheckpointError, UnsupportedModelError

TINY = {"img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 1, "num_heads": 3}


def saved(folder, num_classes, name="vit_tiny_patch16_224", **described):
    module = timm.create_model(name, num_classes=num_classes, **TINY)
    timm.models.save_for_hf(module, folder, model_args=TINY, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | described))
    return folder


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({"label_names": ["ant", "bee", "cat"]}, ("ant", "bee", "cat")),
        ({"label_names": {"2": "cat", "0": "ant", "1": "bee"}}, ("ant", "bee", "cat")),
        ({"label_names": {"0": "ant", "2": "cat"}}, ("ant", "class 1", "cat")),
        (
            {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "an ant", "n2": "a bee", "n3": "a cat"}},
            ("an ant", "a bee", "a cat"),
        ),
        ({}, ()),
    ],
    ids=["list", "by index", "sparse", "descriptions", "none"],
)
def test_names_of_a_folder(tmp_path, described, expected):
    assert vitrail.load(saved(tmp_path / "vit", 3, **described), device="cpu").class_names == expected


def test_a_thousand_names_of_ones_own_are_not_imagenets(tmp_path):
    names = [f"kind {index}" for index in range(1000)]
    assert vitrail.load(saved(tmp_path / "vit", 1000, label_names=names), device="cpu").class_names == tuple(names)
    imagenet = vitrail.load(saved(tmp_path / "plain", 1000), device="cpu").class_names
    assert imagenet[0].startswith("tench")


def test_names_of_classes_that_were_replaced_are_left_out(tmp_path):
    folder = saved(tmp_path / "vit", 3, label_names=["ant", "bee", "cat"])
    assert vitrail.load(folder, device="cpu", pretrained=False, num_classes=5).class_names == ()


@pytest.mark.parametrize(
    "names",
    [["ant", "bee"], {"7": "ant"}, {"first": "ant"}, ["ant", "bee", 3], 5, {"-1": "ant"}, "abc", ["ant", "bee", None]],
    ids=str,
)
def test_names_that_do_not_fit_are_refused(tmp_path, names):
    with pytest.raises(CheckpointError, match=r"expected label_names of the 3 classes of this model.*, got (?!'NoneType')"):
        vitrail.load(saved(tmp_path / "vit", 3, label_names=names), device="cpu")


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_clip_224.openai", "vit_pe_core_tiny_patch16_384.fb", "eva02_base_patch16_clip_224.merged2b"]
)
def test_embeddings_are_no_classes(name):
    with torch.device("meta"):
        published, own = timm.create_model(name), timm.create_model(name, num_classes=7)
    with pytest.raises(UnsupportedModelError, match=r"outputs are an embedding of the image .* not classes"):
        vitrail.adapt(published)
    refuse_embedding(own, "own")
    names = [f"kind {index}" for index in range(published.num_classes)]
    assert vitrail.adapt(published, class_names=names).class_names == tuple(names)


def test_every_embedding_of_timm_is_known_and_no_classifier_is_taken_for_one():
    """Check all of timm's configurations, without building networks: those of CLIP have their width as number of classes."""
    known = 0
    for name in timm.list_models(pretrained=True):
        config = timm.models.get_pretrained_cfg(name).to_dict()
        module = torch.nn.Identity()
        module.pretrained_cfg, module.num_classes = config, config["num_classes"]
        refused = False
        try:
            refuse_embedding(module, name)
        except UnsupportedModelError:
            refused = True
        embeds = 0 < config["num_classes"] <= 1280 and config["num_classes"] != 1000
        assert refused is embeds, name
        known += refused
    assert known > 50


def test_an_embedding_by_name_and_as_a_classifier(tmp_path):
    options = {"pretrained": False, "device": "cpu", "embed_dim": 12, "depth": 1, "num_heads": 3}
    name = "timm:vit_base_patch32_clip_224.openai"
    with pytest.raises(UnsupportedModelError, match=r"got timm:vit_base_patch32_clip_224.openai, whose 512 outputs"):
        vitrail.load(name, **options)
    assert vitrail.load(name, num_classes=512, **options).num_classes == 512
    assert vitrail.load("timm:vit_base_patch32_clip_224.openai_ft_in1k", **options).num_classes == 1000
    folder = saved(tmp_path / "vit", 512, "vit_base_patch32_clip_224.openai")
    with pytest.raises(UnsupportedModelError, match="512 outputs are an embedding"):
        vitrail.load(folder, device="cpu")


def test_hugging_face_models_without_a_classifier():
    for family in ("ViT", "Dinov2", "Beit"):
        module = networks.huggingface(family)
        module.classifier = torch.nn.Identity()
        with pytest.raises(
            UnsupportedModelError, match="whose classifier is an Identity: it gives features, not the logits of 5"
        ):
            vitrail.adapt(module)


def test_a_folder_of_hugging_face_without_classes(tmp_path):
    networks.huggingface("ViT", num_labels=0).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="got ViTForImageClassification whose classifier is an Identity"):
        vitrail.load(tmp_path, device="cpu")


def test_timm_class_names_of_a_bare_module():
    assert timm_class_names(networks.timm_vit()) == ()
