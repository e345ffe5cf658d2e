"""torchvision's ViT without its head, and subclasses of it."""

import clip_networks
import networks
import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

import vitrail
from vitrail.adapters import PlainClassifier, ViTAdapter, adapt
from vitrail.core.errors import UnsupportedModelError

SHAPE = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48, "num_classes": 5}


class Named(VisionTransformer):
    """Adds a constructor and a method, and leaves the forward pass alone."""

    def __init__(self):
        super().__init__(**SHAPE)
        self.note = "mine"

    def predict(self, images):
        return self(images).argmax(1)


class Doubled(VisionTransformer):
    def forward(self, images):
        return super().forward(images) * 2


class Shifted(VisionTransformer):
    def _process_input(self, images):
        return super()._process_input(images.roll(1, 3))


@torch.no_grad()
@pytest.mark.parametrize("heads", [nn.Identity, lambda: nn.Sequential(nn.Dropout(0.1), nn.Identity())])
def test_a_network_without_head_gives_an_embedding(heads):
    module = networks.torchvision_vit()
    module.heads = heads()
    vit, images = adapt(module.eval()), clip_networks.images()
    assert isinstance(vit, ViTAdapter)
    assert (vit.output, vit.num_classes) == ("embedding", 24)
    torch.testing.assert_close(vit.logits(images), module(images))
    assert vitrail.explain(module, images[:1], method="rollout").relevance.std() > 0
    with pytest.raises(UnsupportedModelError, match="this network gives an embedding"):
        vitrail.explain(module, images[:1], method="legrad")


def test_a_subclass_that_leaves_the_forward_pass_alone_is_adapted():
    torch.manual_seed(0)
    module, images = networks.shaken(Named()), clip_networks.images()
    vit = adapt(module)
    assert isinstance(vit, ViTAdapter)
    base = VisionTransformer(**SHAPE)
    base.load_state_dict(module.state_dict())
    for method in ("chefer", "integrated-gradients"):
        mine, expected = (vitrail.explain(network, images, method=method, target=1) for network in (module, base))
        torch.testing.assert_close(mine.relevance, expected.relevance)


@pytest.mark.parametrize("kind", [Doubled, Shifted])
def test_a_subclass_that_changes_the_forward_pass_is_explained_from_outside(kind):
    plain = adapt(kind(**SHAPE))
    assert isinstance(plain, PlainClassifier)
    assert f"got torchvision's {kind.__name__}, which changes its forward pass; adapt a VisionTransformer" in plain.reason


def test_a_subclass_whose_blocks_compute_something_else_is_refused():
    torch.manual_seed(0)
    module = networks.shaken(Named())
    for block in module.encoder.layers:
        inner = block.forward
        block.forward = lambda tokens, inner=inner: inner(tokens) + tokens.roll(1, 1)
    with pytest.raises(UnsupportedModelError, match="cannot explain Named"):
        vitrail.explain(adapt(module), clip_networks.images(), method="chefer")


def test_attention_to_other_tokens_is_refused():
    module = networks.torchvision_vit()
    block = module.encoder.layers[0]
    block.self_attention.register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[1].flip(1), inputs[2]))
    with pytest.raises(UnsupportedModelError, match="expected self-attention without a mask, got other keys, values or a mask"):
        vitrail.explain(module, clip_networks.images(), method="rollout")
