"""Networks that vitrail cannot look into are explained from outside, with the reason; custom heads are supported."""

import re

import networks
import pytest
import timm
import torch
import torchvision
import transformers
from timm.models.vision_transformer import DiffParallelScalingBlock, ParallelThingsBlock
from torch import nn
from torchvision.models.vision_transformer import ConvStemConfig
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionVisionTransformer

from vitrail.adapters import PlainClassifier, ViTAdapter, adapt
from vitrail.core.errors import UnsupportedModelError

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 5}
WINDOWS = {"depths": (1, 1), "num_heads": (1, 2), "embed_dim": 12, "window_size": 4}
HF = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}


class MyVisionTransformer(timm.models.VisionTransformer):
    """A subclass with a step of its own."""

    def forward_head(self, x, pre_logits=False):
        return super().forward_head(x.flip(1), pre_logits)


class MyTorchvisionTransformer(TorchvisionVisionTransformer):
    """A subclass with a step of its own."""

    def forward(self, x):
        return super().forward(x).flip(1)


def small_swin() -> nn.Module:
    return transformers.SwinForImageClassification(
        transformers.SwinConfig(image_size=32, embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=4)
    )


def torchvision_swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4])


def torchvision_resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])


def with_part(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    setattr(module, name, part)
    return module


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(2, 2), "vitrail has no adapter for a torch.nn.modules.linear.Linear; see docs/adapters.md"),
        (
            lambda: nn.Sequential(networks.timm_vit(), nn.Softmax(-1)),
            r"it holds a VisionTransformer, but changes what comes out of it; to look into that, make a head of your own "
            r"network\[0\].head, and give network\[0\], which leaves out all else that Sequential does",
        ),
        (
            lambda: timm.models.SwinTransformer(img_size=32, patch_size=4, num_classes=5, **WINDOWS),
            "got timm's SwinTransformer, which has no adapter: its tokens are merged or attend in windows",
        ),
        (
            lambda: timm.models.Hiera(img_size=(32, 32), embed_dim=12, num_heads=1, stages=(1, 1, 1, 1), num_classes=5),
            "got timm's Hiera, which has no adapter: its tokens are merged or attend in windows",
        ),
        (lambda: timm.models.ResNet(timm.models.resnet.BasicBlock, [1, 1, 1, 1]), "got timm's ResNet, which has no adapter$"),
        (lambda: timm.models.VisionTransformerSAM(**TINY), "got timm's VisionTransformerSAM, which has no adapter"),
        (lambda: MyVisionTransformer(**TINY), "got MyVisionTransformer, which replaces forward_head"),
        (
            lambda: timm.create_model("vit_tiny_r_s16_p8_224", embed_dim=24, depth=1, num_heads=3, img_size=32),
            "expected patches that are embedded one by one .* got HybridEmbed, in which they overlap",
        ),
        (lambda: networks.timm_vit(block_fn=ParallelThingsBlock), "one self-attention each, got timm's ParallelThingsBlock"),
        (
            lambda: networks.timm_vit(block_fn=DiffParallelScalingBlock),
            "one self-attention each, got timm's DiffParallelScalingBlock",
        ),
        (
            lambda: transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**HF, encoder_stride=8)),
            "expected a model with a classifier .* got ViTForMaskedImageModeling",
        ),
        (small_swin, "expected a Hugging Face model of type vit, deit, dinov2, .* got SwinForImageClassification of type swin"),
        (torchvision_resnet, "got torchvision's ResNet, which has no adapter: patches can be removed one by one"),
        (torchvision_swin, "got torchvision's SwinTransformer, which has no adapter"),
        (
            lambda: MyTorchvisionTransformer(32, 8, 1, 3, 24, 48),
            "got torchvision's MyTorchvisionTransformer, which changes its forward pass",
        ),
        (
            lambda: networks.torchvision_vit(conv_stem_configs=[ConvStemConfig(8, 3, 2) for _ in range(3)]),
            "embedded one by one, got a stem of convolutions, in which they overlap",
        ),
    ],
)
def test_other_networks_are_explained_from_outside_with_the_reason(build, message):
    classifier = adapt(build())
    assert isinstance(classifier, PlainClassifier)
    assert re.search(message, classifier.reason)


@pytest.mark.parametrize(
    "build",
    [
        lambda: networks.timm_vit(num_classes=0),
        lambda: networks.eva(num_classes=0),
        lambda: networks.beit(num_classes=0),
        lambda: networks.huggingface("ViT", num_labels=0),
        lambda: transformers.ViTModel(transformers.ViTConfig(**HF)),
    ],
)
def test_networks_without_a_head_are_embeddings(build):
    classifier = adapt(build())
    assert isinstance(classifier, ViTAdapter)
    assert (classifier.output, classifier.class_names, classifier.num_classes) == (
        "embedding",
        (),
        classifier.prefix_tokens.shape[1],
    )


def test_vectors_per_patch_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"gives one per patch \(global_pool=''\); create it with a pooling"):
        adapt(networks.timm_vit(global_pool="", num_classes=0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: networks.hit().stages[0], "its part HiTStage"),
        (lambda: networks.hit(in_channels=1), "a network of 1 channels"),
    ],
)
def test_parts_of_own_networks_are_refused(build, message):
    with pytest.raises(UnsupportedModelError, match=message):
        adapt(build())


def test_objects_that_are_not_networks_are_refused(unchecked):
    with pytest.raises(UnsupportedModelError, match=r"expected a torch.nn.Module, got str; names and files go to vitrail.load"):
        adapt("vit_base_patch16_224")


@pytest.mark.parametrize("name", ["hit", "timm", "hf-vit", "torchvision"])
def test_class_names_that_do_not_fit_are_refused(name):
    with pytest.raises(UnsupportedModelError, match="expected 5 class names, one per logit, got 2"):
        adapt(networks.NETWORKS[name](), class_names=["a", "b"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "part"), [("timm", "head"), ("eva", "head"), ("beit", "head"), ("hf-vit", "classifier"), ("torchvision", "heads")]
)
@pytest.mark.parametrize("deep", [False, True], ids=["a layer", "several layers"])
def test_custom_heads(name, part, deep):
    """Custom heads for fine-tuning; the number of classes is that of their outputs."""
    module = networks.NETWORKS[name]()
    width = 48 if name == "eva" else 24
    own = nn.Sequential(nn.Linear(width, 9), nn.ReLU(), nn.Linear(9, 7)) if deep else nn.Linear(width, 7)
    adapter, images = adapt(with_part(module, part, own.eval())), networks.images(name)
    grid = adapter.grid_size(images)
    logits = adapter.forward_tokens(adapter.assemble(adapter.patch_embed(images), grid), grid)
    torch.testing.assert_close(logits, networks.own_logits(module, images))
    assert adapter.num_classes == logits.shape[1] == 7
    assert adapter.pooling_weights(17).sum().item() == pytest.approx(1)
