"""Building networks for training: one function for every library; unsupported options are refused."""

import networks
import pytest
import timm
import torch
import torchvision
import transformers

import vitrail
from vitrail.adapters import PlainClassifier, Preprocessing, ViTAdapter, adapt, build
from vitrail.adapters.plain import adapt_plain
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS
from vitrail.models.checkpoints import read_checkpoint

HF = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "patch_size": 8}
CONVNEXT = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3}

SMALL: dict[str, tuple[str, dict, tuple[int, int]]] = {
    "hit": ("hit_small_patch16_224", {"patch_size": 8, "depths": [2], "widths": [24], "num_heads": 3}, (32, 48)),
    "timm-vit": ("timm:vit_tiny_patch16_224", VIT | {"patch_size": 8}, (32, 48)),
    "timm-convnext": ("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, (64, 48)),
    "timm-resnet": ("timm:resnet10t", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}, (64, 48)),
    "timm-swin": ("timm:swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]}, (56, 56)),
    "hf-vit": ("hf:vit", HF, (32, 32)),
    "hf-convnext": ("hf:convnext", CONVNEXT, (64, 48)),
    "torchvision-convnext": ("torchvision:mobilenet_v3_small", {}, (64, 48)),
}
"""Small ones by name: their own words, and a size of image."""

VITS = ("hit", "timm-vit", "hf-vit")


def small(kind: str, **changes):
    name, options, size = SMALL[kind]
    return build(name, **({"num_classes": 5, "image_size": size} | options | changes))


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_is_built_saved_and_the_same_when_loaded(kind, tmp_path):
    classifier = small(kind, class_names=networks.CLASS_NAMES)
    size = SMALL[kind][2]
    assert isinstance(classifier, ViTAdapter if kind in VITS else PlainClassifier)
    assert classifier.preprocessing.size == size
    assert (classifier.num_classes, classifier.class_names) == (5, networks.CLASS_NAMES)
    networks.shaken(classifier.module, spread=0.02)
    images = torch.randn(2, 3, *size)
    with classifier.inspecting():
        expected = classifier.logits(images)
    vitrail.save(classifier, tmp_path / "mine.safetensors")
    vitrail.save(classifier, tmp_path / "half.safetensors", half=True)
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    assert type(again) is type(classifier)
    assert (again.class_names, again.preprocessing, again.num_classes) == (networks.CLASS_NAMES, classifier.preprocessing, 5)
    assert again.grid_size(images) == classifier.grid_size(images)
    torch.testing.assert_close(again.logits(images), expected, rtol=0, atol=0)
    half = vitrail.load(tmp_path / "half.safetensors", device="cpu")
    torch.testing.assert_close(half.logits(images), expected, rtol=2e-2, atol=2e-2)
    vitrail.save(again, tmp_path / "twice.safetensors")
    assert read_checkpoint(tmp_path / "twice.safetensors").metadata == read_checkpoint(tmp_path / "mine.safetensors").metadata


@pytest.mark.parametrize("kind", [kind for kind in SMALL if not kind.startswith("torchvision")])
def test_gray_images(kind):
    classifier = small(kind, in_channels=1).module.eval()
    network = small(kind, in_channels=1)
    assert len(network.preprocessing.mean) == 1
    network.module.load_state_dict(classifier.state_dict())
    with network.inspecting():
        assert network.logits(torch.randn(1, 1, *SMALL[kind][2])).shape == (1, 5)


RATES = {
    ("hit", "drop_path"): lambda module: module.config.drop_path,
    ("hit", "attention_dropout"): lambda module: module.stages[0].layers[0].attention.dropout.p,
    ("timm-vit", "drop_path"): lambda module: module.blocks[-1].drop_path1.drop_prob,
    ("timm-vit", "attention_dropout"): lambda module: module.blocks[0].attn.attn_drop.p,
    ("timm-convnext", "drop_path"): lambda module: module.stages[-1].blocks[-1].drop_path.drop_prob,
    ("hf-convnext", "drop_path"): lambda module: module.convnext.encoder.stages[-1].layers[-1].drop_path.drop_prob,
    ("hf-vit", "attention_dropout"): lambda module: module.config.attention_probs_dropout_prob,
}


@pytest.mark.parametrize(("kind", "word"), RATES)
def test_dropout_options_reach_the_network(kind, word):
    assert RATES[kind, word](small(kind, **{word: 0.25}).module) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("kind", "word"), [("timm-convnext", "attention_dropout"), ("hf-convnext", "attention_dropout"), ("hf-vit", "drop_path")]
)
def test_dropout_options_are_refused_where_a_network_has_none(kind, word):
    with pytest.raises(InvalidInputError, match=f"has no {word}"):
        small(kind, **{word: 0.25})


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "hit_small_patch16",
            {},
            UnknownNameError,
            r"unknown size of HiT .*did you mean.*; or give the library too, as in timm:",
        ),
        (
            "hit_small_patch16_224",
            {"depth": 3},
            UnknownNameError,
            r"unknown field of HiTConfig 'depth' \(did you mean 'depths'",
        ),
        ("hit_small_patch16_224", {"pretrained": True}, InvalidInputError, "has no weights of a library"),
        ("hit_small_patch16_224", {"depths": 3}, InvalidInputError, "cannot build hit_small_patch16_224 with"),
        ("tim:resnet18", {}, UnknownNameError, r"unknown source of networks 'tim' \(did you mean 'timm'"),
        ("timm:convnext_ato", {}, UnknownNameError, "unknown timm model 'convnext_ato'"),
        ("timm:convnext_atto", {"nonsense": 3}, InvalidInputError, "timm cannot create 'convnext_atto' .*nonsense"),
        ("timm:convnext_atto", {"norm_layer": timm.layers.LayerNorm2d}, InvalidInputError, "options that a file can hold"),
        ("timm:convnext_atto", {"drop_path": 0.1, "drop_path_rate": 0.2}, InvalidInputError, "expected drop_path once"),
        ("timm:convnext_atto", {"checkpoint_path": "x.pth"}, InvalidInputError, "options of the shape of timm:convnext_atto"),
        ("timm:vgg11", {"drop_path": 0.1}, InvalidInputError, r"timm:vgg11 has no drop_path \(drop_path_rate in its library\)"),
        ("torchvision:resnet19", {}, UnknownNameError, "unknown torchvision model 'resnet19'"),
        ("torchvision:resnet18", {"in_channels": 1}, InvalidInputError, "expected in_channels=3 for torchvision:resnet18"),
        ("torchvision:resnet18", {"drop_path": 0.1}, InvalidInputError, "torchvision:resnet18 has no drop_path"),
        ("torchvision:convnext_tiny", {"nonsense": 1}, InvalidInputError, "unexpected keyword argument 'nonsense'"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, InvalidInputError, "got weights; give pretrained"),
        (
            "torchvision:vit_b_32",
            {"image_size": (32, 64)},
            InvalidInputError,
            "expected square images for torchvision:vit_b_32",
        ),
        ("hf:vit", {"nonsense": 3}, InvalidInputError, "a vit of transformers has no option nonsense"),
        ("hf:vit", {"pretrained": True}, InvalidInputError, "a bare configuration without weights"),
        ("hf:vit", {"hidden_size": "wide"}, InvalidInputError, "transformers cannot configure a vit"),
        ("hf:clip", {}, InvalidInputError, "hf:clip, a clip, has no in_channels"),
        ("hf:bert", {}, InvalidInputError, "hf:bert, a bert, has no in_channels"),
        ("hf:resnet", {"attention_dropout": 0.1}, InvalidInputError, "hf:resnet, a resnet, has no attention_dropout"),
        ("hf:no/where", {"local_files_only": True}, UnknownNameError, "cannot find hf:no/where"),
    ],
)
def test_what_a_network_does_not_have_is_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        build(name, num_classes=3, **options)


def test_numbers_and_names_that_make_no_sense():
    with pytest.raises(InvalidInputError, match="at least one class"):
        build("hit_small_patch16_224", num_classes=0)
    with pytest.raises(UnsupportedModelError, match="expected 5 class names, one per logit, got 1"):
        small("hit", class_names=["a"])


def test_a_custom_preprocessing():
    own = Preprocessing((64, 48), 1.0, "squash")
    assert small("timm-convnext", preprocessing=own).preprocessing == own


def saved_huggingface(tmp_path, labels: int = 3, channels: int = 3):
    config = transformers.ViTConfig(**HF, image_size=32, num_labels=labels, num_channels=channels)
    config.id2label = dict(enumerate("abc"[:labels]))
    network = networks.shaken(transformers.ViTForImageClassification(config))
    network.save_pretrained(tmp_path / "model")
    return network, f"hf:{tmp_path / 'model'}"


@torch.no_grad()
def test_trained_weights_of_hugging_face(tmp_path):
    """The head is new if the number of classes differs; weights are resized to the image size."""
    network, name = saved_huggingface(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    same = build(name, num_classes=3, pretrained=True)
    assert same.class_names == ("a", "b", "c")
    with same.inspecting():
        torch.testing.assert_close(same.logits(images), network(images).logits)
    other = build(name, num_classes=7, pretrained=True, image_size=(32, 48), in_channels=1, attention_dropout=0.5)
    assert (other.num_classes, other.class_names, other.preprocessing.size) == (7, (), (32, 48))
    assert other.grid_size(torch.randn(1, 1, 32, 48)) == (4, 6)
    theirs, ours = network.state_dict(), other.module.state_dict()
    taken = [key for key in theirs if theirs[key].shape == ours[key].shape and torch.equal(theirs[key], ours[key])]
    assert set(theirs) - set(taken) == {
        "vit.embeddings.position_embeddings",
        "vit.embeddings.patch_embeddings.projection.weight",
        "classifier.weight",
        "classifier.bias",
    }
    with pytest.raises(CheckpointError, match="do not fit"):
        vitrail.load(name, num_labels=7)


@torch.no_grad()
def test_a_backbone_of_hugging_face_gets_a_head(tmp_path):
    network, _ = saved_huggingface(tmp_path)
    network.vit.save_pretrained(tmp_path / "backbone")
    classifier = build(f"hf:{tmp_path / 'backbone'}", num_classes=4, pretrained=True)
    assert torch.equal(classifier.module.vit.layernorm.weight, network.vit.layernorm.weight)
    assert classifier.num_classes == 4


@torch.no_grad()
@pytest.mark.parametrize("classes", [1000, 5])
def test_trained_weights_of_torchvision(monkeypatch, classes):
    source = networks.shaken(torchvision.models.mobilenet_v3_small(), spread=0.01)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: source.state_dict())
    classifier = build("torchvision:mobilenet_v3_small", num_classes=classes, pretrained=True)
    assert len(classifier.class_names) == (1000 if classes == 1000 else 0)
    assert torch.equal(classifier.module.features[0][0].weight, source.features[0][0].weight)
    assert torch.equal(classifier.module.features[0][1].running_var, source.features[0][1].running_var)
    if classes == 1000:
        assert torch.equal(classifier.module.classifier[3].weight, source.classifier[3].weight)


@torch.no_grad()
@pytest.mark.parametrize("classes", [1000, 5])
def test_trained_weights_of_timm(tmp_path, classes):
    """From a folder, whose configuration is stored in the vitrail file."""
    source = timm.create_model("vit_tiny_patch16_224", img_size=64, **VIT)
    networks.shaken(source)
    args = {"img_size": 64, **VIT}
    timm.models.save_for_hf(source, tmp_path / "saved", model_args=args, safe_serialization=True)
    classifier = build(f"timm:local-dir:{tmp_path / 'saved'}", num_classes=classes, pretrained=True, image_size=(64, 32))
    assert torch.equal(classifier.module.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert torch.equal(classifier.module.head.weight, source.head.weight) == (classes == 1000)
    assert classifier.build_spec.config["name"] == "vit_tiny_patch16_224"
    vitrail.save(classifier, tmp_path / "mine.safetensors")
    again = vitrail.load(tmp_path / "mine.safetensors", device="cpu")
    images = torch.randn(1, 3, 64, 32)
    with classifier.inspecting():
        torch.testing.assert_close(again.logits(images), classifier.logits(images))


def test_plain_classifiers_are_explained_from_outside_and_scored():
    classifier = small("timm-convnext", class_names=networks.CLASS_NAMES)
    images = torch.randn(2, 3, 64, 48)
    assert classifier.grid_size(images) == (4, 3)
    assert classifier.grid_size(images[:, :, :10, :10]) == (1, 1)
    keep = torch.ones(2, 3, 12, dtype=torch.bool)
    keep[:, 1:] = False
    with classifier.inspecting(), torch.no_grad():
        logits = classifier.perturbed_logits(images, torch.zeros(1, 3, 64, 48), keep)
        torch.testing.assert_close(logits[:, 0], classifier.logits(images))
        torch.testing.assert_close(logits[:, 2], classifier.logits(torch.zeros_like(images)))
    assert EXPLAINERS["occlusion"](classifier).explain(images).relevance.shape == (2, 4, 3)
    with pytest.raises(UnsupportedModelError, match="cannot explain timm:convnext_atto: it needs a Vision Transformer"):
        EXPLAINERS["rollout"](classifier)


def test_networks_without_logits_are_no_plain_classifiers():
    module = timm.create_model("resnet10t", num_classes=0)
    with pytest.raises(UnsupportedModelError, match="expected a classifier, got a ResNet that gives features"):
        adapt_plain(module, "features")
    with pytest.raises(InvalidInputError, match="expected a cell_size of at least 1 pixel, got 0"):
        adapt_plain(timm.create_model("resnet10t"), "mine", cell_size=0)
    with pytest.raises(UnsupportedModelError, match="expected 1000 class names, one per logit, got 1"):
        adapt_plain(timm.create_model("resnet10t"), "mine", ["one"])


def test_networks_without_an_adapter_are_plain_classifiers_with_the_reason():
    named = vitrail.load("timm:convnext_atto", pretrained=False, device="cpu")
    assert isinstance(named, PlainClassifier)
    assert "timm's ConvNeXt, which has no adapter" in named.reason
    given = adapt(small("timm-swin").module)
    assert isinstance(given, PlainClassifier)
    assert "attend in windows" in given.reason


@torch.no_grad()
@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_0"])
def test_networks_whose_heads_are_unlike_others(name):
    """Networks with auxiliary heads, or a convolution as head."""
    options = {"init_weights": False} if name == "googlenet" else {}
    classifier = build(f"torchvision:{name}", num_classes=5, **options)
    assert classifier.num_classes == 5
    assert classifier.logits(torch.randn(2, 3, 96, 96)).shape == (2, 5)
