"""Building the network of a recipe and choosing the weights to train."""

import networks
import pytest
import timm
import torch

from vitrail.adapters import Preprocessing
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.training.network import build_network, prepare_for_training
from vitrail.training.sections import ModelConfig

ATTENTION = {
    "hit-pooled": {f"stages.{s}.layers.{i}.attention." for s, i in ((0, 0), (1, 0), (1, 1), (2, 0))},
    "timm": {f"blocks.{i}.attn." for i in range(3)},
    "timm-norms": {f"blocks.{i}.attn." for i in range(3)},
    "timm-distilled": {f"blocks.{i}.attn." for i in range(3)},
    "beit": set(),
    "hf-vit": {f"vit.layers.{i}.attention." for i in range(2)},
    "hf-deit-teacher": {f"deit.layers.{i}.attention." for i in range(2)},
    "torchvision": {f"encoder.layers.encoder_layer_{i}.self_attention." for i in range(2)},
}
ATTENTION["beit"] = {"blocks.0.attn.", "blocks.1.attn."}
POSITIONS = {
    "hit-pooled": {"positions"},
    "timm": {"pos_embed"},
    "timm-norms": {"pos_embed"},
    "timm-distilled": {"pos_embed"},
    "beit": set(),
    "hf-vit": {"vit.embeddings.position_embeddings"},
    "hf-deit-teacher": {"deit.embeddings.position_embeddings"},
    "torchvision": {"encoder.pos_embedding"},
}
HEADS = {
    "hit-pooled": {"head."},
    "timm": {"head."},
    "timm-norms": {"head."},
    "timm-distilled": {"head.", "head_dist."},
    "beit": {"head."},
    "hf-vit": {"classifier."},
    "hf-deit-teacher": {"cls_classifier.", "distillation_classifier."},
    "torchvision": {"heads."},
}


def trainable_names(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def names_below(module, prefixes, alone=()):
    return {name for name, _ in module.named_parameters() if name.startswith(tuple(prefixes)) or name in alone}


@pytest.mark.parametrize("name", HEADS)
def test_train_attention_selects_attention_positions_and_head(name):
    module = networks.NETWORKS[name]()
    trainable = trainable_names(module)
    prepare_for_training(module, "attention", distilled=False)
    expected = names_below(module, ATTENTION[name] | HEADS[name], POSITIONS[name])
    assert all(names_below(module, {prefix}) for prefix in ATTENTION[name] | HEADS[name])  # Else the test would tell nothing.
    assert trainable_names(module) == expected & trainable
    assert module.training


@pytest.mark.parametrize("name", HEADS)
def test_train_head_selects_the_head(name):
    module = networks.NETWORKS[name]()
    prepare_for_training(module, "head", distilled=False)
    assert trainable_names(module) == names_below(module, HEADS[name])
    assert all(names_below(module, {prefix}) for prefix in HEADS[name])


def test_unused_weights_stay_frozen():
    module = networks.hit_pooled()
    unused = set(module.unused_names())
    assert unused
    trainable = trainable_names(module)
    assert not unused & trainable
    for train in ("attention", "head", "all"):
        module = networks.hit_pooled()
        prepare_for_training(module, train, distilled=False)
        assert not unused & trainable_names(module)
    assert trainable_names(module) == trainable


CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}


def test_train_attention_needs_attention():
    module = timm.create_model("convnext_atto", num_classes=2, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    with pytest.raises(InvalidInputError, match=r"expected a network with attention.*got ConvNeXt"):
        prepare_for_training(module, "attention", distilled=False)
    prepare_for_training(module, "head", distilled=False)
    assert trainable_names(module) == names_below(module, {"head."})


def test_fused_attention_reaches_timm():
    for fused in (True, False):
        module = networks.timm_vit()
        prepare_for_training(module, "all", distilled=False, fused_attention=fused)
        assert {block.attn.fused_attn for block in module.blocks} == {fused}


@torch.no_grad()
def test_distillation_token_has_logits_in_training_only():
    module = networks.NETWORKS["timm-distilled"]()
    prepare_for_training(module, "all", distilled=True)
    images = torch.randn(2, 3, 32, 32)
    assert isinstance(module(images), tuple)
    assert module.eval()(images).shape == (2, 5)


def build(**fields):
    return build_network(ModelConfig(**fields), ["ant", "bee"], 3, Preprocessing((32, 32)))


@pytest.mark.parametrize(
    ("fields", "error", "messages"),
    [
        ({"name": "hit_smal"}, UnknownNameError, ["unknown size of HiT", "hit_small_patch16_224"]),
        ({"name": "tinm:resnet18"}, UnknownNameError, ["tinm", "timm"]),
        ({"name": "timm:no_such_network"}, UnknownNameError, ["no_such_network"]),
        ({"name": "timm:convnext_atto", "depths": [2, 2]}, InvalidInputError, ["model.depths", "model.options"]),
        ({"name": "timm:convnext_atto", "options": {"no_such_option": 1}}, InvalidInputError, ["no_such_option"]),
        ({"name": "timm:convnext_atto", "attention_dropout": 0.1}, InvalidInputError, ["attention_dropout"]),
        ({"options": {"depth": 3}}, InvalidInputError, ["model.options", "HiT"]),
        ({"name": "torchvision:vit_b_16", "drop_path": 0.1}, InvalidInputError, ["drop_path"]),
        ({"name": "torchvision:vit_b_16", "options": {"no_such_option": 1}}, InvalidInputError, ["no_such_option"]),
        ({"name": "hf:vit", "options": {"no_such_option": 1}}, InvalidInputError, ["no_such_option"]),
        ({"pretrained": True}, InvalidInputError, ["hit_small_patch16_224", "no weights of a library"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_unsupported_settings_are_rejected(fields, error, messages):
    with pytest.raises(error) as caught:
        build(**fields)
    for message in messages:
        assert message in str(caught.value)


def test_settings_reach_the_network():
    module = build(image_size=32, patch_size=8, depths=[1, 2], widths=[12, 12], num_heads=2, drop_path=0.2, dropout=0.1).module
    assert (module.config.image_size, module.config.depths, module.config.drop_path) == ((32, 32), (1, 2), 0.2)
    assert (module.config.num_classes, module.config.dropout) == (2, 0.1)
    module = build(name="timm:convnext_atto", drop_path=0.3, options=CONVNEXT).module
    assert module.num_classes == 2
