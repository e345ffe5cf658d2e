"""INTR: backbones, padding, attention maps, published files, and transfer of weights."""

import argparse
import types

import networks
import pytest
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import FrozenBatchNorm2d

import vitrail
from goldens import golden
from vitrail.adapters import adapt, build, transfer_weights
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import Sample
from vitrail.models.intr import INTR, INTRConfig, ResNet
from vitrail.models.intr.backbone import rename_resnet_weights
from vitrail.models.intr.published import published_config

SMALL = {"num_classes": 5, "width": 16, "num_heads": 2, "mlp_width": 24, "encoder_depth": 1, "decoder_depth": 2}


def intr(**fields) -> INTR:
    torch.manual_seed(0)
    config = INTRConfig(**{"backbone": "resnet18", **SMALL, **fields})
    return networks.shaken(INTR(config, ResNet(config.backbone, config.frozen)), spread=0.02).eval()


def published_state(model: INTR) -> dict[str, torch.Tensor]:
    """Rename a model's weights to the published names, by an independent implementation."""
    names = {"queries": "query_embed.weight", "positions.rows": "backbone.1.row_embed.weight"}
    names |= {"positions.columns": "backbone.1.col_embed.weight", "encoder_norm.": "transformer.encoder.norm."}
    names |= {"decoder_norm.": "transformer.decoder.norm.", "presence.": "presence_vector.", "projection.": "input_proj."}
    names |= {".conv.weight": ".weight", "mlp.0": "linear1", "mlp.3": "linear2", ".cross_attention.": ".multihead_attn."}
    names |= {
        ".attention.": ".self_attn.",
        ".output.": ".out_proj.",
        "norms.0": "norm1",
        "norms.1": "norm2",
        "norms.2": "norm3",
    }
    names |= {"backbone.network.": "backbone.0.body.", "downsample.0.norm": "downsample.1"}
    state = {}
    own = model.state_dict()
    for name, tensor in own.items():
        part = name.rpartition(".")[2]
        if ".key." in name or ".value." in name:
            continue
        if ".query." in name:
            tensor = torch.cat([own[name.replace(".query.", f".{each}.")] for each in ("query", "key", "value")])
            name = name.replace(f".query.{part}", f".in_proj_{part}")
        if name.startswith(("encoder.", "decoder.")):
            layer, number, rest = name.split(".", 2)
            name = f"transformer.{layer}.layers.{number}.{rest}"
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        for i in (1, 2, 3):
            name = name.replace(f"conv{i}.norm.", f"bn{i}.")
        state[name] = tensor
    return state


def slowly(*values):
    """A parameter set for the slow tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "dilation"), [("resnet18", False), slowly("resnet50", False), slowly("resnet50", True)])
@pytest.mark.parametrize("frozen", [True, False])
def test_folded_norms_change_nothing(name, dilation, frozen):
    norm = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
    plain = getattr(torchvision.models, name)(norm_layer=norm, replace_stride_with_dilation=[False, False, dilation])
    for part, tensor in plain.state_dict().items():
        if "running" in part or "bn" in part:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    plain = plain.double().eval()
    backbone = ResNet(name, frozen, **({"dilation": True} if dilation else {})).double().eval()
    backbone.network.load_state_dict(rename_resnet_weights(plain.state_dict()))
    images = torch.randn(2, 3, 70, 101, dtype=torch.float64)
    layers = (plain.conv1, plain.bn1, plain.relu, plain.maxpool, plain.layer1, plain.layer2, plain.layer3, plain.layer4)
    expected = nn.Sequential(*layers)(images)
    torch.testing.assert_close(backbone(images), expected, rtol=1e-9, atol=1e-9)
    assert backbone.grid_size(70, 101) == expected.shape[2:] == ((5, 7) if dilation else (3, 4))
    assert (backbone.num_features, backbone.stride) == (expected.shape[1], 16 if dilation else 32)


def test_frozen_norms_stay_and_first_layers_too():
    frozen = ResNet("resnet18").train()
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    frozen(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())
    learning = {name for name, parameter in frozen.named_parameters() if parameter.grad is not None}
    assert learning
    assert all(name.startswith(("network.layer2", "network.layer3", "network.layer4")) for name in learning)


def test_learning_norms_learn():
    backbone = ResNet("resnet18", frozen=False).train()
    before = backbone.network.conv1.norm.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64) + 3).sum().backward()
    assert not torch.equal(backbone.network.conv1.norm.running_mean, before)
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_padding_gets_no_attention():
    """The content of padding does not affect the image, except within the backbone's receptive field."""
    model = intr()
    features = torch.randn(1, 512, 3, 4)
    padding = torch.zeros(1, 3, 4, dtype=torch.bool)
    padding[:, 2:], padding[:, :, 3:] = True, True
    changed = torch.where(padding.unsqueeze(1), torch.randn_like(features) * 9, features)
    with torch.no_grad():
        one, other = (model.search(model.encode_features(each, padding)) for each in (features, changed))
        cut = model.search(model.encode_features(features[:, :, :2, :3]))
        maps, whole = model.attention(one, 0), model.attention(cut, 0)
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.logits, cut.logits, rtol=1e-4, atol=1e-5)
    assert not maps[..., padding[0]].any()
    torch.testing.assert_close(maps[..., :2, :3], whole, rtol=1e-4, atol=1e-6)


def test_attention_of_some_classes_equals_the_full_attention():
    model = intr(decoder_depth=3)
    with torch.no_grad():
        search = model.search(model.encode(torch.randn(2, 3, 64, 96)))
        every = model.attention(search, 1)
        some = model.attention(search, -2, torch.tensor([[4, 0], [2, 2]]))
    assert every.shape == (2, 5, 2, 2, 3)
    torch.testing.assert_close(every.sum((-1, -2)), torch.ones(2, 5, 2))
    torch.testing.assert_close(some, torch.stack([every[0, [4, 0]], every[1, [2, 2]]]))


def test_maps_are_the_attention_of_the_classes():
    """The values of the cells, weighted by the maps, equal the output of cross-attention."""
    model = intr()
    with torch.no_grad():
        search = model.search(model.encode(torch.randn(2, 3, 64, 96)))
        cross = model.decoder[0].cross_attention
        taken = cross(search.cross_queries[0], search.memory.cells, search.memory.cells)
        values = cross.value(search.memory.cells).unflatten(-1, (2, 8)).transpose(1, 2)
        weights = model.attention(search, 0).flatten(3).transpose(1, 2)
        expected = cross.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(taken, expected)


def test_a_tiny_image_beside_a_huge_one():
    classifier = networks.intr()
    samples = [Sample(torch.randn(3, side, side), 0, str(side)) for side in (20, 4, 400)]
    batch = collate(samples)
    with torch.no_grad():
        logits = classifier.padded_logits(batch.images, batch.padding)
        search = classifier.module.search(classifier.module.encode(batch.images, batch.padding))
        maps = classifier.module.attention(search, -1)
        alone = classifier.logits(samples[2].image[None])
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[2:], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(3, 5, 2))
    assert not maps[0, ..., 3:].any()
    torch.testing.assert_close(maps[1, ..., 0, 0], torch.ones(5, 2))  # of less than a cell, there is one


def test_large_images_have_no_learned_positions():
    model = intr(positions="learned")
    with pytest.raises(InvalidInputError, match="at most 50x50 cells, got 1x51, for learned positions"):
        model.encode_features(torch.randn(1, 512, 1, 51))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 18}, "divisible by 4 for sine positions"),
        ({"num_heads": 3}, "divisible by num_heads=3"),
        ({"dropout": 1.0}, "0 <= dropout < 1"),
        ({"decoder_depth": 0}, "positive"),
    ],
)
def test_shapes_that_make_no_sense(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        INTRConfig(**{**SMALL, **fields})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": "resnet19"}, InvalidInputError, "expected a backbone resnet18, .* or timm:NAME, got 'resnet19'"),
        (
            {"backbone": "resnet18", "backbone_options": {"dilation": True}},
            InvalidInputError,
            "resnet50 or resnet101 for dilation",
        ),
        ({"backbone": "resnet50", "backbone_options": {"depth": 3}}, InvalidInputError, "has the option dilation, got depth"),
        ({"backbone": "timm:no_such_net"}, UnknownNameError, "no_such_net"),
        ({"backbone": "timm:local-dir:/tmp"}, UnknownNameError, "unknown timm model 'local-dir:/tmp'"),
        ({"backbone": "timm:convnext_atto", "backbone_options": {"wings": 2}}, InvalidInputError, "wings"),
        (
            {"backbone": "timm:convnext_atto", "backbone_options": {"out_indices": [4]}},
            InvalidInputError,
            r"from 0 to 3 .*got \(4,\)",
        ),
        ({"backbone": "timm:convnext_atto", "backbone_options": {"out_indices": 2}}, InvalidInputError, r"=\[INDEX\].*got 2"),
        (
            {"backbone": "timm:convnext_atto", "backbone_options": {"checkpoint_path": "evil.pth"}},
            InvalidInputError,
            "expected options of the shape of timm:convnext_atto, got checkpoint_path",
        ),
        ({}, InvalidInputError, "expected an option backbone"),
        ({"backbone": "resnet18", "width": 16.0}, InvalidInputError, "expected width to be of type int, got 16.0"),
        ({"backbone": "resnet18", "pre_norm": "false"}, InvalidInputError, "expected pre_norm to be of type bool"),
        ({"backbone": 50}, InvalidInputError, "expected backbone to be of type str, got 50"),
        ({"backbone": "resnet18", "backbone_options": None}, InvalidInputError, "backbone_options to be of type Mapping"),
        ({"backbone": "resnet18", "encoder_depth": 4000}, InvalidInputError, "expected at most 100 layers"),
        (
            {"backbone": "timm:convnext_atto", "backbone_options": {"act_layer": nn.GELU}},
            InvalidInputError,
            "that a file can hold",
        ),
        (
            {"backbone": "timm:hiera_tiny_224", "image_size": (224, 224)},
            InvalidInputError,
            "at which it fails: .*normalization",
        ),
        slowly({"backbone": "timm:swin_tiny_patch4_window7_224"}, InvalidInputError, "got 800x1333 pixels, at which it fails"),
        ({"depth": 3}, UnknownNameError, "unknown field of INTRConfig 'depth'"),
    ],
)
def test_backbones_that_there_are_not(options, error, message, unchecked):
    with pytest.raises(error, match=message):
        build("intr", num_classes=3, **options)


@pytest.mark.parametrize(
    ("backbone", "options", "size", "grid"),
    [
        ("timm:convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "output_stride": 8}, (70, 50), (8, 6)),
        ("timm:vit_small_patch14_dinov2", {"depth": 2, "embed_dim": 24, "num_heads": 2}, (70, 50), (5, 4)),
        ("timm:resnet10t", {}, (70, 50), (3, 2)),
        ("timm:resnet10t", {"out_indices": [3]}, (70, 50), (5, 4)),
        ("timm:vit_small_patch16_dinov3", {"depth": 1, "embed_dim": 48, "num_heads": 2}, (70, 50), (5, 4)),
    ],
)
def test_any_backbone(backbone, options, size, grid, tmp_path):
    classifier = build("intr", **SMALL, backbone=backbone, backbone_options=options, class_names=list("abcde"))
    networks.shaken(classifier.module, spread=0.02)
    images = torch.randn(2, 3, *size)
    padding = torch.zeros(2, *size, dtype=torch.bool)
    padding[1, 40:] = True
    with torch.no_grad():
        logits, padded = classifier.logits(images), classifier.padded_logits(images, padding)
        layers = classifier.layer_logits(images)
    assert classifier.grid_size(images) == grid
    assert logits.shape == (2, 5)
    torch.testing.assert_close(layers[-1], logits)
    assert not torch.allclose(logits[1], padded[1])
    explanation = vitrail.explain(classifier, images)
    assert (explanation.method, explanation.relevance.shape[1:]) == ("intr", grid)
    vitrail.save(classifier, tmp_path / "intr.safetensors")
    again = vitrail.load(tmp_path / "intr.safetensors", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(again.logits(images), logits)
    assert (again.class_names, again.preprocessing) == (classifier.class_names, classifier.preprocessing)


def test_frozen_norms_of_timm_stay():
    backbone = build("intr", **SMALL, backbone="timm:resnet10t").module.backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("fields", [{}, {"pre_norm": True, "positions": "learned"}])
def test_a_published_file_is_a_model(fields, tmp_path):
    model = intr(**fields)
    # Only the training arguments tell the number of heads.
    content = {"model": published_state(model), "args": argparse.Namespace(nheads=2, dilation=False, dropout=0.1), "epoch": 139}
    torch.save(content, tmp_path / "checkpoint.pth")
    loaded = vitrail.load(tmp_path / "checkpoint.pth", device="cpu")
    images = torch.randn(1, 3, 64, 96)
    assert loaded.module.config == model.config
    assert (loaded.preprocessing.size, loaded.preprocessing.crop_mode) == ((800, 1333), "whole")
    with torch.no_grad():
        assert torch.equal(loaded.logits(images), model(images))
    with pytest.raises(InvalidInputError, match="options nheads, dilation, dropout, got wings"):
        vitrail.load(tmp_path / "checkpoint.pth", wings=2)


def as_detector(model: INTR, num_queries: int = 100) -> dict[str, torch.Tensor]:
    """Return the weights of a DETR of the same configuration."""
    state = {name: tensor for name, tensor in published_state(model).items() if not name.startswith("presence")}
    width = model.config.width
    torch.manual_seed(2)
    state["query_embed.weight"] = torch.randn(num_queries, width)
    return state | {"class_embed.weight": torch.randn(92, width), "bbox_embed.layers.0.bias": torch.randn(width)}


@pytest.mark.parametrize("num_classes", [slowly(5), slowly(100), 130])
def test_starting_from_a_detector(num_classes, tmp_path):
    detector = as_detector(intr())
    torch.save({"model": detector}, tmp_path / "detr.pth")
    classifier = adapt(intr(num_classes=num_classes), name="mine")
    presence = classifier.module.presence.weight.clone()
    torch.manual_seed(3)
    report = transfer_weights(classifier, tmp_path / "detr.pth", query_noise=0.1)
    queries, trained = classifier.module.queries.detach(), detector["query_embed.weight"]
    assert torch.equal(queries[:100], trained[:num_classes])
    if num_classes > 100:
        noise = queries[100:] - trained[: num_classes - 100]
        assert 0.07 < float(noise.std()) < 0.13
    assert torch.equal(classifier.module.presence.weight, presence)
    assert report.new == ("presence.weight", "presence.bias")
    assert set(report.unused) == {"class_embed.weight", "bbox_embed.layers.0.bias"}
    restored = published_state(classifier.module)
    assert all(torch.equal(restored[name], detector[name]) for name in detector if name.startswith(("transformer", "backbone")))


def test_a_detector_is_no_model_and_one_of_another_shape_is_refused(tmp_path):
    torch.save({"model": as_detector(intr())}, tmp_path / "detr.pth")
    with pytest.raises(CheckpointError, match="is a DETR, which detects objects; train an INTR from it"):
        vitrail.load(tmp_path / "detr.pth")
    wider = adapt(intr(width=32), name="wider")
    before = {name: tensor.clone() for name, tensor in wider.module.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"expected queries of width 32, got the shape \(100, 16\)"):
        transfer_weights(wider, tmp_path / "detr.pth")
    with pytest.raises(CheckpointError, match="does not fit this model"):
        transfer_weights(adapt(intr(decoder_depth=3), name="deeper"), tmp_path / "detr.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.module.state_dict().items())


def test_starting_from_an_own_one_of_other_classes(tmp_path):
    first = adapt(intr(num_classes=7), name="first")
    vitrail.save(first, tmp_path / "first.safetensors")
    same, fewer = adapt(intr(num_classes=7, dropout=0.0), name="same"), adapt(intr(num_classes=3), name="fewer")
    networks.shaken(same.module, seed=5)
    transfer_weights(same, tmp_path / "first.safetensors", keep_head=True)
    transfer_weights(fewer, tmp_path / "first.safetensors")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(same.logits(images), first.logits(images))
    assert torch.equal(fewer.module.queries, first.module.queries[:3])


def test_starting_the_backbone_alone(tmp_path):
    plain = torchvision.models.resnet18(num_classes=3)
    torch.save(plain.state_dict(), tmp_path / "resnet.pth")
    classifier = adapt(intr(), name="mine")
    report = transfer_weights(classifier, tmp_path / "resnet.pth")
    expected = rename_resnet_weights(plain.state_dict())
    state = classifier.module.backbone.network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert len(report.taken) == len(state)
    assert "queries" in report.new
    options = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
    trained = build("timm:convnext_atto", num_classes=4, **options)
    vitrail.save(trained, tmp_path / "convnext.safetensors")
    convnext = build("intr", **SMALL, backbone="timm:convnext_atto", backbone_options=options)
    transfer_weights(convnext, tmp_path / "convnext.safetensors")
    own, theirs = convnext.module.backbone.network.state_dict(), trained.module.state_dict()
    assert torch.equal(own["stages.0.blocks.0.conv_dw.weight"], theirs["stages.0.blocks.0.conv_dw.weight"])
    shorter = build("intr", **SMALL, backbone="timm:convnext_atto", backbone_options=options | {"out_indices": (2,)})
    report = transfer_weights(shorter, tmp_path / "convnext.safetensors")
    last_kept, first_left_out = "stages.2.blocks.0.conv_dw.weight", "stages.3.blocks.0.conv_dw.weight"
    assert torch.equal(shorter.module.backbone.network.state_dict()[last_kept], theirs[last_kept])
    assert first_left_out in report.unused
    vitrail.save(adapt(networks.hit()), tmp_path / "hit.safetensors")
    with pytest.raises(CheckpointError, match="expected weights of timm:convnext_atto, the backbone"):
        transfer_weights(convnext, tmp_path / "hit.safetensors")


def test_adapting():
    classifier = adapt(intr(), class_names=list("abcde"))
    assert classifier.name == "INTR"
    assert classifier.num_classes == 5
    with pytest.raises(UnsupportedModelError, match="expected a whole INTR, got its part DecoderLayer"):
        adapt(intr().decoder[0])
    with pytest.raises(InvalidInputError, match="expected images of 3 channels, got 1"):
        classifier.logits(torch.randn(1, 1, 64, 64))
    vit = networks.network("timm")
    with pytest.raises(InvalidInputError, match="expected images of one size for timm, which does not support padding"):
        vit.padded_logits(networks.images("timm"), torch.zeros(3, 32, 32, dtype=torch.bool))


def test_weights_without_a_backbone_are_no_model():
    with pytest.raises(CheckpointError, match=r"expected the weights of a ResNet .* got blocks \(0, 0, 0, 0\)"):
        published_config(golden("intr_post_sine").weights, {})


class Shapes(TorchDispatchMode):
    """Record the shapes of all results of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.shapes += [
            tuple(part.shape) for part in (found if isinstance(found, tuple) else (found,)) if isinstance(part, torch.Tensor)
        ]
        return found


@pytest.mark.parametrize("padded", [False, True])
def test_no_map_is_made_unasked(padded):
    """No attention weights are stored, of classes over cells or over classes; for one class, only its own."""
    num_classes, cells = 301, 17 * 23
    network = intr(num_classes=num_classes)
    features = torch.randn(1, 512, 17, 23)
    padding = torch.zeros(1, 17, 23, dtype=torch.bool)
    padding[..., 20:] = True
    with torch.no_grad(), Shapes() as seen:
        search = network.search(network.encode_features(features, padding if padded else None))
        network.attention(search, 0, torch.tensor([[7]]))
    squares = [shape for shape in seen.shapes if shape[-2:] in ((num_classes, num_classes), (cells, cells))]
    maps = [shape for shape in seen.shapes if {num_classes, cells} <= set(shape)]
    assert seen.shapes
    assert not squares + maps


def test_images_smaller_than_a_cell_are_filled_up():
    classifier = networks.intr()
    small = torch.randn(2, 3, 3, 40)
    padding = torch.ones(2, 8, 40, dtype=torch.bool)
    padding[:, :3] = False
    with torch.no_grad():
        filled = classifier.padded_logits(nn.functional.pad(small, (0, 0, 0, 5)), padding)
        torch.testing.assert_close(classifier.logits(small), filled)
    assert classifier.grid_size(small) == (1, 5)
    assert vitrail.explain(classifier, small).relevance.shape == (2, 1, 5)


def test_sizes_that_a_backbone_does_not_take():
    fixed = build(
        "intr",
        **SMALL,
        backbone="timm:swin_tiny_patch4_window7_224",
        backbone_options={"depths": (1, 1, 1, 1)},
        image_size=(224, 224),
    )
    with pytest.raises(InvalidInputError, match=r"got 96x96 pixels, at which it fails: .* doesn't match"):
        fixed.grid_size(torch.zeros(1, 3, 96, 96))


def test_weights_of_other_heads_are_refused(tmp_path):
    vitrail.save(adapt(intr(), name="own"), tmp_path / "own.safetensors")
    content = {"model": published_state(intr()), "args": argparse.Namespace(nheads=2)}
    torch.save(content, tmp_path / "published.pth")
    for name in ("own.safetensors", "published.pth"):
        with pytest.raises(CheckpointError, match="it has 2 attention heads, the model 4"):
            transfer_weights(adapt(intr(num_heads=4), name="mine"), tmp_path / name)


def test_a_published_one_of_the_same_classes_may_keep_its_head(tmp_path):
    trained = intr()
    torch.save({"model": published_state(trained)}, tmp_path / "published.pth")
    classifier = adapt(networks.shaken(intr(), seed=4), name="mine")
    transfer_weights(classifier, tmp_path / "published.pth", keep_head=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(classifier.logits(images), trained(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer.encoder.layers.3000.norm1.weight": torch.ones(16)}, "expected layers from 0 on, each once, got 0, 3000"),
        ({"transformer.encoder.layers.0.norm.weight": torch.ones(16)}, "does not fit"),
        ({"transformer.encoder.layers.0.self_attn.in_proj_bias": torch.ones(2)}, "expected queries, keys and values in"),
        ({"transformer.encoder.layers.0.self_attn.in_proj_bias": torch.ones(())}, "expected queries, keys and values in"),
    ],
)
def test_broken_published_files(change, message, tmp_path):
    torch.save({"model": published_state(intr()) | change, "args": argparse.Namespace(nheads=2)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=message):
        vitrail.load(tmp_path / "odd.pth")


@pytest.mark.parametrize("queries", [torch.ones(()), torch.ones(0, 16), torch.ones(3, 16, 1)])
def test_detectors_with_odd_queries(queries, tmp_path):
    torch.save({"model": as_detector(intr()) | {"query_embed.weight": queries}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="expected queries of width 16, got the shape"):
        transfer_weights(adapt(intr(), name="mine"), tmp_path / "odd.pth")


def test_pretrained_weights_fit_norms_that_learn(monkeypatch):
    import torchvision.models as zoo

    trained = zoo.resnet18()
    weights = types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(get_state_dict=lambda **kwargs: trained.state_dict()))
    monkeypatch.setattr(zoo, "get_model_weights", lambda name: weights)
    for frozen in (True, False):
        model = build("intr_resnet18", num_classes=3, pretrained=True, frozen=frozen).module
        assert torch.equal(model.backbone.network.conv1.conv.weight, trained.conv1.weight)
