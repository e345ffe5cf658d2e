"""What the outputs of timm networks are: named classes, or an embedding."""

import json

import networks
import pytest
import timm
import torch

import vitrail
from vitrail.adapters import ViTAdapter, build
from vitrail.adapters.plain import PlainClassifier
from vitrail.adapters.timm.labels import returns_embedding, timm_class_names
from vitrail.core.errors import CheckpointError, UnsupportedModelError
from vitrail.explainers.base import EXPLAINERS

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


def test_a_thousand_custom_names_are_not_those_of_imagenet(tmp_path):
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
    "name",
    [
        "vit_base_patch16_clip_224.openai",
        "vit_pe_core_tiny_patch16_384.fb",
        pytest.param("eva02_base_patch16_clip_224.merged2b", marks=pytest.mark.slow),
        pytest.param("vit_xsmall_patch16_clip_224", marks=pytest.mark.slow),
        "vit_base_patch16_siglip_224.webli",
        "vit_small_patch14_dinov2",
        "resnet50_clip.openai",
        pytest.param("samvit_base_patch16.sa1b", marks=pytest.mark.slow),
    ],
)
def test_towers_are_embeddings_and_no_classes(name):
    with torch.device("meta"):
        published, own = timm.create_model(name), timm.create_model(name, num_classes=7)
    tower = vitrail.adapt(published)
    assert tower.output == "embedding"
    assert not tower.class_names
    assert vitrail.adapt(own).output == "softmax"
    names = [f"kind {index}" for index in range(published.num_classes)]
    if names:
        named = vitrail.adapt(published, class_names=names)
        assert (named.output, named.class_names) == ("softmax", tuple(names))


def test_every_tower_of_timm_is_known_and_no_classifier_is_taken_for_one():
    """Check all of timm's configurations, without building networks: those of CLIP have their width as number of classes."""
    known = 0
    for name in timm.list_models(pretrained=True):
        config = timm.models.get_pretrained_cfg(name).to_dict()
        module = torch.nn.Identity()
        module.pretrained_cfg, module.num_classes = config, config["num_classes"]
        embeds = config["num_classes"] <= 1280 and config["num_classes"] != 1000
        assert returns_embedding(module) is embeds, name
        known += embeds
    assert known > 200


def test_an_embedding_by_name_and_as_a_classifier(tmp_path):
    options = {"pretrained": False, "device": "cpu", "embed_dim": 12, "depth": 1, "num_heads": 3}
    name = "timm:vit_base_patch32_clip_224.openai"
    tower = vitrail.load(name, **options)
    assert (tower.output, tower.num_classes) == ("embedding", 512)
    classifier = vitrail.load(name, num_classes=512, **options)
    assert (classifier.output, classifier.num_classes, type(classifier)) == ("softmax", 512, type(tower))
    assert vitrail.load("timm:vit_base_patch32_clip_224.openai_ft_in1k", **options).output == "softmax"
    assert vitrail.load(saved(tmp_path / "vit", 512, "vit_base_patch32_clip_224.openai"), device="cpu").output == "embedding"


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("vit_tiny_patch16_224", TINY, ViTAdapter),
        ("vit_base_patch14_dinov2", {**TINY, "patch_size": 14, "img_size": 28}, ViTAdapter),
        ("resnet18", {}, PlainClassifier),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}, PlainClassifier),
    ],
)
@torch.no_grad()
def test_a_network_without_its_head_is_an_embedding(name, options, kind):
    loaded = vitrail.load(f"timm:{name}", pretrained=False, device="cpu", num_classes=0, **options)
    assert isinstance(loaded, kind)
    assert (loaded.output, loaded.class_names) == ("embedding", ())
    images = torch.rand(2, 3, *loaded.preprocessing.size)
    torch.testing.assert_close(loaded.logits(images), loaded.module.eval()(images))
    adapted = vitrail.adapt(loaded.module)
    assert (adapted.output, type(adapted)) == ("embedding", type(loaded))
    with pytest.raises(UnsupportedModelError, match="the method explains a class, and this network gives an embedding"):
        EXPLAINERS["occlusion"](adapted)
    if kind is ViTAdapter:
        assert EXPLAINERS["rollout"](adapted).explain(images).relevance.std() > 0


@pytest.mark.parametrize(("name", "num_classes"), [("vit_tiny_patch16_224", 0), ("vit_base_patch32_clip_224.openai", 512)])
def test_a_custom_head_makes_a_classifier(name, num_classes):
    module = timm.create_model(name, num_classes=num_classes, **TINY)
    assert vitrail.adapt(module).output == "embedding"
    module.head = torch.nn.Linear(12, 7)
    classifier = vitrail.adapt(module)
    assert (classifier.output, classifier.num_classes, classifier.class_names) == ("softmax", 7, ())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {**TINY, "global_pool": ""}),
        ("vit_tiny_patch16_224", {**TINY, "global_pool": "", "num_classes": 0}),
        ("qwen3_vit_88m_enc", {"embed_dim": 16, "depth": 1, "num_heads": 2}),
    ],
)
def test_tokens_are_neither_classes_nor_an_embedding(name, options):
    with pytest.raises(
        UnsupportedModelError, match=r"expected one vector per image.*create it with a pooling, such as global_pool='avg'"
    ):
        vitrail.load(f"timm:{name}", pretrained=False, device="cpu", **options)


def test_a_tower_built_for_training_is_a_classifier():
    built = build("timm:vit_base_patch32_clip_224.openai", num_classes=512, embed_dim=12, depth=1, num_heads=3)
    assert (built.output, built.num_classes) == ("softmax", 512)


@pytest.mark.parametrize(
    ("overlay", "fraction"), [({"crop_mode": "border"}, 0.9), ({"crop_pct": 1.15}, 1.0)], ids=["border", "above 1"]
)
def test_photos_that_timm_would_pad_are_cropped(overlay, fraction, caplog):
    module = timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=overlay, **TINY)
    preprocessing = vitrail.adapt(module).preprocessing
    assert (preprocessing.crop_mode, preprocessing.crop_fraction) == ("center", fraction)
    assert "where timm would pad them" in caplog.text


def test_channels_of_networks_without_an_adapter():
    module = timm.create_model("resnet18", in_chans=1, num_classes=3)
    assert vitrail.adapt(module).preprocessing.num_channels == 1


def test_timm_class_names_of_a_bare_module():
    assert timm_class_names(networks.timm_vit()) == ()
