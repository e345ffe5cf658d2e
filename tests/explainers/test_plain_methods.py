"""Gradient methods on networks that are no Vision Transformers: at pixels, and at feature maps."""

from contextlib import suppress
from dataclasses import replace

import networks
import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.models.regnet import BlockParams, RegNet

import vitrail
from vitrail.adapters import PlainClassifier, Preprocessing, adapt
from vitrail.adapters.cells import expand_cells
from vitrail.adapters.feature_maps import find_feature_map, has_feature_map
from vitrail.adapters.plain import adapt_plain
from vitrail.api import list_methods
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.explainers import EXPLAINERS, make_explainer, usable_methods

SWIN = {"img_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": (1, 2), "num_heads": (2, 4)}


class Small(nn.Module):
    """A network as a user writes it: convolutions, pooling, two linear layers."""

    def __init__(self, mean=(2, 3)):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden, self.classify, self.mean = nn.Linear(12, 16), nn.Linear(16, 5), mean

    def forward(self, images):
        return self.classify(self.hidden(self.stem(images).mean(self.mean)).tanh())


class Tokens(nn.Module):
    """An unknown Vision Transformer, with a class token."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 24, 8, 8), nn.Parameter(torch.randn(1, 1, 24))
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(24, 3, 48, batch_first=True, norm_first=True) for _ in range(3)]
        )
        self.norm, self.classify = nn.LayerNorm(24), nn.Linear(24, 5)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.classify(self.norm(tokens)[:, 0])


class Flipped(Small):
    def forward(self, images):
        return super().forward(images.flip(-1))


class Cropped(Small):
    def __init__(self, margins):
        super().__init__()
        self.margins = margins

    def forward(self, images):
        return super().forward(nn.functional.pad(images, [-margin for margin in self.margins]))


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = Small(), Small()

    def forward(self, images):
        return self.one(images) + self.two(images)


REGNET_LAYER = "trunk_output.block2.block2-0.f.b"
REGNET = BlockParams([1, 1], [8, 16], [8, 8], [1.0, 1.0], [2, 2])
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
NETWORKS = {
    "small": Small,
    "resnet": lambda: timm.create_model("resnet10t", num_classes=5),
    "torchvision-regnet": lambda: RegNet(REGNET, 5, 8),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=5, **CONVNEXT),
    "swin": lambda: timm.models.SwinTransformer(num_classes=5, **SWIN),
    "efficientnet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "tokens": Tokens,
}
LAST = {
    "small": ("stem", (8, 8)),
    "resnet": ("layer4", (2, 2)),
    "torchvision-regnet": ("trunk_output", (8, 8)),
    "convnext": ("norm_pre", (2, 2)),
    "swin": ("norm", (8, 8)),
    "tokens": ("blocks.1", (8, 8)),
}
"""The layer that is found, and its grid on 64x64 pixels."""

BUILT = {}


def network(name) -> PlainClassifier:
    if name not in BUILT:
        torch.manual_seed(0)
        BUILT[name] = adapt_plain(networks.shaken(NETWORKS[name](), spread=0.1), name, (), Preprocessing((64, 64)))
    return BUILT[name]


def images(count=2, seed=1):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def pixel_gradient(classifier, inputs, target):
    inputs = inputs.clone().requires_grad_()
    classifier.module(inputs)[:, target].sum().backward()
    classifier.module.zero_grad()
    return inputs.grad


def sum_blocks(pixels, rows, cols):
    """Sum over channels and equal blocks of pixels."""
    b, _, height, width = pixels.shape
    return pixels.reshape(b, -1, rows, height // rows, cols, width // cols).sum((1, 3, 5))


@pytest.mark.parametrize("name", ["small", "resnet", "swin"])
def test_input_x_gradient_sums_pixels_over_cells(name):
    classifier, x = network(name), images()
    explanation = make_explainer("input-x-gradient", classifier).explain(x, 3)
    expected = sum_blocks(x * pixel_gradient(classifier, x, 3), 4, 4)
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(explanation.logits, classifier.module(x).detach(), rtol=1e-4, atol=1e-5)
    assert explanation.bias is None


def test_cells_that_do_not_divide_the_image_share_all_pixels():
    classifier, x = replace(network("small"), cell_size=20), images()
    relevance = make_explainer("input-x-gradient", classifier).explain(x, 0).relevance
    assert relevance.shape == (2, 3, 3)
    torch.testing.assert_close(
        relevance.sum((1, 2)), (x * pixel_gradient(classifier, x, 0)).sum((1, 2, 3)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("baseline", ["zero", "black", "blur"])
def test_integrated_gradients_are_complete(baseline):
    classifier, x = network("convnext"), images()
    explanation = make_explainer("integrated-gradients", classifier, num_steps=32, baseline=baseline).explain(x, 1)
    start = classifier.baseline(baseline, x).expand_as(x)
    torch.testing.assert_close(explanation.bias, classifier.module(start)[:, 1].detach(), rtol=1e-4, atol=1e-5)
    assert explanation.completeness_error() < 1e-3


def test_integrated_gradients_of_a_linear_network_are_exact():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    classifier, x = adapt(module.eval(), preprocessing=Preprocessing((64, 64))), images()
    explanation = make_explainer("integrated-gradients", classifier, num_steps=1).explain(x, 2)
    expected = sum_blocks(module[1].weight[2].detach().view(3, 64, 64) * x, 4, 4)
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explanation.bias, module[1].bias[2].detach().expand(2))


@pytest.mark.parametrize("name", ["small", "resnet", "swin"])
def test_pixels_agree_with_captum(name):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    classifier, x = network(name), images()
    expected = attr.InputXGradient(classifier.module).attribute(x.clone(), target=1).detach()
    found = make_explainer("input-x-gradient", classifier).explain(x, 1).relevance
    torch.testing.assert_close(found, sum_blocks(expected, 4, 4), rtol=1e-3, atol=1e-5)
    expected = attr.IntegratedGradients(classifier.module).attribute(x, target=1, n_steps=8, method="gausslegendre").detach()
    found = make_explainer("integrated-gradients", classifier, num_steps=8).explain(x, 1).relevance
    torch.testing.assert_close(found, sum_blocks(expected.float(), 4, 4), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", LAST)
def test_the_last_feature_map_is_found(name):
    layer, grid_size = LAST[name]
    classifier = network(name)
    with classifier.verified("gradients", like=images()), classifier.inspecting():
        found = find_feature_map(classifier, images())
    assert (found.layer, found.layout.grid_size) == (layer, grid_size)


@pytest.mark.parametrize("name", ["small", "torchvision-regnet", "convnext"])
def test_grad_cam_is_the_published_computation(name):
    """pytorch-grad-cam: mean of the gradients as weights, weighted sum, ReLU, before it scales."""
    classifier, x = network(name), images(4)
    layer, (rows, cols) = LAST[name]
    classifier = replace(classifier, cell_size=64 // rows)
    kept = []
    hook = classifier.module.get_submodule(layer).register_forward_hook(lambda *run: kept.append(run[2]) or run[2].clone())
    logits = classifier.module(x)
    hook.remove()
    [gradient] = torch.autograd.grad(logits[:, 2].sum(), kept)
    activations, gradient = kept[0].detach().numpy(), gradient.numpy()
    weights = np.mean(gradient, axis=(2, 3))
    cam = np.maximum((weights[:, :, None, None] * activations).sum(axis=1), 0)
    explanation = make_explainer("grad-cam", classifier).explain(x, 2)
    assert explanation.relevance.shape == (4, rows, cols)
    np.testing.assert_allclose(explanation.relevance.numpy(), cam, rtol=1e-4, atol=1e-6)
    assert cam.any()


@pytest.mark.parametrize(("name", "layer"), [("resnet", "layer3"), ("small", "stem.2"), ("torchvision-regnet", REGNET_LAYER)])
def test_a_named_layer_agrees_with_captum(name, layer):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    classifier, x = network(name), images()
    expected = attr.LayerGradCam(classifier.module, classifier.module.get_submodule(layer)).attribute(
        x, target=3, relu_attributions=True
    )
    classifier = replace(classifier, cell_size=64 // expected.shape[-1])
    found = make_explainer("grad-cam", classifier, layer=layer).explain(x, 3).relevance
    torch.testing.assert_close(found, expected.detach()[:, 0], rtol=1e-3, atol=1e-6)


def test_channels_last_and_tokens_have_the_same_map():
    classifier, x = network("swin"), images()
    kept = []
    hook = classifier.module.norm.register_forward_hook(lambda *run: kept.append(run[2]))
    logits = classifier.module(x)
    hook.remove()
    [gradient] = torch.autograd.grad(logits[:, 0].sum(), kept)
    cam = (kept[0] * gradient.mean((1, 2), keepdim=True)).sum(-1).clamp_min(0).detach()
    found = make_explainer("grad-cam", replace(classifier, cell_size=8)).explain(x, 0).relevance
    torch.testing.assert_close(found, cam, rtol=1e-4, atol=1e-6)


def test_other_cells_get_the_mean_of_the_enlarged_map():
    classifier, x = network("resnet"), images()
    own = make_explainer("grad-cam", replace(classifier, cell_size=32)).explain(x, 1).relevance
    found = make_explainer("grad-cam", classifier).explain(x, 1).relevance
    assert (own.shape, found.shape) == ((2, 2, 2), (2, 4, 4))
    enlarged = nn.functional.interpolate(own[:, None], size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, nn.functional.avg_pool2d(enlarged, 16)[:, 0])
    assert not torch.allclose(found, expand_cells(own, (4, 4)))


def test_batches_equal_single_images_and_modes_stay():
    classifier, x = network("small"), images(3)
    classifier.module.train()
    for method in ("grad-cam", "input-x-gradient", "integrated-gradients"):
        explainer = make_explainer(method, classifier)
        whole = explainer.explain(x, torch.tensor([4, 0, 2]))
        for index, target in enumerate((4, 0, 2)):
            one = explainer.explain(x[index : index + 1], target)
            torch.testing.assert_close(one.relevance, whole.relevance[index : index + 1], rtol=1e-4, atol=1e-6)
    assert all(part.training and not part._forward_hooks for part in classifier.module.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in classifier.module.parameters())
    classifier.module.eval()


def test_a_flipped_image_is_refused_not_misplaced():
    torch.manual_seed(0)
    classifier = adapt_plain(networks.shaken(Flipped(), spread=0.05), "flipped", (), Preprocessing((64, 64)))
    with pytest.raises(
        UnsupportedModelError, match="expected flipped to compute its logits from one feature map, found none for certain"
    ):
        make_explainer("grad-cam", classifier).explain(images())
    with pytest.raises(UnsupportedModelError, match="expected the layer 'stem' of flipped to give a feature map"):
        make_explainer("grad-cam", classifier, layer="stem").explain(images())
    assert not has_feature_map(classifier)


@pytest.mark.parametrize(
    ("margins", "refused"), [((16, 16, 16, 16), True), ((0, 12, 0, 0), True), ((0, 4, 0, 4), False), ((0, 0, 0, 0), False)]
)
def test_a_cropped_image_is_refused_not_stretched(margins, refused):
    """Margins that a whole cell covers; what is left over by convolutions is less than a cell."""
    torch.manual_seed(0)
    classifier = adapt_plain(networks.shaken(Cropped(margins), spread=0.05), "cropped", (), Preprocessing((64, 64)))
    if refused:
        with pytest.raises(UnsupportedModelError, match="found none for certain"):
            make_explainer("grad-cam", classifier).explain(images())
    assert has_feature_map(classifier) != refused


def test_two_branches_are_refused_unless_a_layer_is_named():
    torch.manual_seed(0)
    classifier = adapt_plain(networks.shaken(TwoBranches(), spread=0.05), "two", (), Preprocessing((64, 64)))
    with pytest.raises(
        UnsupportedModelError, match="name a layer whose output is one, by the option layer, or choose occlusion"
    ):
        make_explainer("grad-cam", classifier).explain(images())
    assert make_explainer("grad-cam", classifier, layer="two.stem").explain(images()).relevance.any()
    assert has_feature_map(network("small"))


def test_options_that_do_not_fit():
    with pytest.raises(
        InvalidInputError, match=r"expected the name of a layer of small, got 'norm'; its outermost layers: stem, hidden"
    ):
        make_explainer("grad-cam", network("small"), layer="norm")
    with pytest.raises(
        UnsupportedModelError, match=r"got numbers of shape \(2, 16\) for 2 images of 64x64 pixels; name another one"
    ):
        make_explainer("grad-cam", network("small"), layer="hidden").explain(images())
    with pytest.raises(InvalidInputError, match="expected no block and no site for small, which is no ViT; name a layer"):
        make_explainer("grad-cam", network("small"), block=0)
    with pytest.raises(InvalidInputError, match="expected no layer for vit, which is a ViT, got 'norm'; give block and site"):
        make_explainer("grad-cam", adapt(networks.timm_vit(), name="vit"), layer="norm")
    with pytest.raises(UnsupportedModelError, match="libra balances the attention of a Vision Transformer, and small is none"):
        make_explainer("input-x-gradient", network("small"), libra=True)


def classifier_of(kind):
    if kind == "intr":
        return vitrail.load("vitrail:intr-birds", device="cpu")
    if kind == "vit":
        return adapt(networks.timm_vit(num_classes=3))
    torch.manual_seed(0)
    network = {"small": Small, "two branches": TwoBranches}.get(kind, Small)().eval()
    if kind == "no gradients":
        network.register_forward_hook(lambda module, inputs, output: output.detach())
    return adapt_plain(network, "net", preprocessing=Preprocessing((32, 32), 1.0), cell_size=16)


@pytest.mark.parametrize("kind", ["small", "two branches", "no gradients", pytest.param("intr", marks=pytest.mark.slow), "vit"])
def test_the_methods_that_are_named_are_those_that_run(kind):
    classifier = classifier_of(kind)
    images = torch.rand(1, 3, *classifier.probe_size, generator=torch.Generator().manual_seed(1))
    few_passes = {
        "rise": {"num_masks": 4},
        "integrated-gradients": {"num_steps": 2},
        "shapley": {"region": 6},
        "greedy": {"stride": 144},
    }
    ran = []
    for name in EXPLAINERS:
        with suppress(UnsupportedModelError, UnknownNameError):
            make_explainer(name, classifier, **few_passes.get(name, {})).explain(images)
            ran.append(name)
    assert usable_methods(classifier) == ran
    assert [entry["name"] for entry in list_methods(classifier)] == ran
    assert ("grad-cam" in ran) == (kind in ("small", "intr", "vit"))
    if kind != "vit":
        with pytest.raises(UnsupportedModelError) as refused:
            make_explainer("chefer", classifier)
        assert str(refused.value).rpartition("methods that explain it: ")[2] == ", ".join(ran)


def test_grad_cam_of_an_intr_reads_the_last_map_before_its_queries():
    """Query states have shapes like maps, and come after it."""
    classifier, kept = classifier_of("intr"), list[torch.Tensor]()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    hook = classifier.module.encoder_norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with classifier.inspecting():
        logits = classifier.module(images.clone().requires_grad_())
    hook.remove()
    [gradient] = torch.autograd.grad(logits[:, 2].sum(), kept)
    expected = (kept[0] * gradient.mean(1, keepdim=True)).sum(-1).clamp_min(0).detach()
    relevance = make_explainer("grad-cam", classifier).explain(images, 2).relevance
    assert relevance.shape == (2, 12, 12)
    assert relevance.std() > 1e-6
    torch.testing.assert_close(relevance.flatten(1), expected)


def test_refusals_say_why_it_is_no_vit_and_what_to_choose():
    classifier = adapt(Small().eval(), name="small")
    message = (
        r"chefer cannot explain small: it needs a Vision Transformer, and vitrail has no adapter for .*Small; see docs/adapters.md to "
        r"write one; methods that explain it: .*grad-cam.*occlusion.*rise"
    )
    with pytest.raises(UnsupportedModelError, match=message):
        make_explainer("chefer", classifier)


class Straight(Small):
    """A network whose gradient is not its slope."""

    def forward(self, images):
        features = self.stem(images).mean((2, 3))
        hidden = self.hidden(features)
        return self.classify(hidden + (hidden.tanh() - hidden).detach())


class Quiet(Small):
    def forward(self, images):
        with torch.no_grad():
            return super().forward(images)


@pytest.mark.parametrize("kind", [Straight, Quiet])
@pytest.mark.parametrize("method", ["grad-cam", "input-x-gradient", "integrated-gradients"])
def test_gradients_are_checked_on_any_network(kind, method):
    torch.manual_seed(0)
    classifier = adapt_plain(networks.shaken(kind(), spread=0.3), "odd", (), Preprocessing((64, 64)))
    with pytest.raises(
        UnsupportedModelError, match=r"cannot explain odd: (its gradients leave out|no gradient passes|the gradient of)"
    ):
        make_explainer(method, classifier).explain(images())


class PlainTransformer(nn.Module):
    """A Vision Transformer of torch's own layers, whose class token may be anywhere."""

    def __init__(self, place):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.token = nn.Conv2d(3, 24, 8, 8), nn.Parameter(torch.randn(1, 1, 24))
        self.positions, self.place = nn.Parameter(0.5 * torch.randn(1, 65, 24)), place
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(24, 3, 48, 0.0, batch_first=True, norm_first=True) for _ in range(3)
        )
        self.head = nn.Linear(24, 5)

    def forward(self, images):
        patches = self.embed(images).flatten(2).mT
        tokens = torch.cat([patches[:, : self.place], self.token.expand(len(images), -1, -1), patches[:, self.place :]], 1)
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, self.place])


@pytest.mark.parametrize("place", [0, 32, 64])
def test_a_class_token_that_is_not_the_first_shifts_no_map(place):
    network, x = PlainTransformer(place).eval(), images()
    classifier = adapt(network, preprocessing=Preprocessing((64, 64)))
    found = find_feature_map(classifier, x)
    assert found.layout.extra_tokens == (place, place + 1)
    kept = []
    network.get_submodule(found.layer).register_forward_hook(lambda *run: kept.append(run[2]))
    [gradient] = torch.autograd.grad(network(x)[:, 2].sum(), kept)
    is_patch = torch.arange(65) != place
    tokens, gradient = kept[0][:, is_patch], gradient[:, is_patch]
    expected = (tokens * gradient.mean(1, keepdim=True)).sum(-1).clamp_min(0).unflatten(1, (8, 8)).detach()
    explanation = make_explainer("grad-cam", replace(classifier, cell_size=8)).explain(x, 2)
    torch.testing.assert_close(explanation.relevance, expected, rtol=1e-4, atol=1e-7)
    assert expected.any()
