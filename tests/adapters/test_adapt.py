"""Networks seen as Vision Transformers: equal to their own forward pass, physically, and restored."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import networks
import vitrail
from vitrail.adapters import Classifier, ViTAdapter, adapt
from vitrail.errors import InvalidInputError, UnknownNameError, UnsupportedModelError


@pytest.fixture(params=networks.NETWORKS)
def name(request) -> str:
    return request.param


@pytest.fixture
def adapter(name) -> ViTAdapter:
    return networks.network(name)


@torch.no_grad()
def test_the_parts_make_the_whole(adapter, name):
    images = networks.images(name)
    patches = adapter.patch_embed(images)
    rows, cols = adapter.grid_size(images)
    assert patches.shape[:2] == (3, rows * cols)
    tokens = adapter.assemble(patches)
    assert tokens.shape[1] == adapter.num_prefix_tokens + rows * cols
    torch.testing.assert_close(adapter.forward_tokens(tokens), adapter.module(images))
    torch.testing.assert_close(adapter.logits(images), adapter.module(images))


@torch.no_grad()
def test_patches_are_numbered_row_by_row(adapter, name):
    images = networks.images(name, 1)
    rows, cols = adapter.grid_size(images)
    height, width = images.shape[2] // rows, images.shape[3] // cols
    changed = images.clone()
    changed[:, :, height : 2 * height, 2 * width : 3 * width] += 1
    moved = (adapter.patch_embed(changed) - adapter.patch_embed(images)).abs().sum(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == [cols + 2]


@torch.no_grad()
@pytest.mark.parametrize("shared", [True, False], ids=["one baseline", "a baseline each"])
def test_perturbed_logits_equal_brute_force_in_pixel_space(adapter, name, shared):
    images = networks.images(name)
    rows, cols = adapter.grid_size(images)
    keep = torch.rand(3, 4, rows * cols, generator=torch.Generator().manual_seed(5)) > 0.5
    baseline = networks.images(name, 1 if shared else 3, seed=7)
    by_pixels = Classifier.perturbed_logits(adapter, images, baseline, keep)
    torch.testing.assert_close(adapter.perturbed_logits(images, baseline, keep), by_pixels, rtol=1e-4, atol=1e-5)
    height, width = images.shape[2] // rows, images.shape[3] // cols
    mask = keep[1, 2].view(1, 1, rows, cols).repeat_interleave(height, 2).repeat_interleave(width, 3)
    by_hand = adapter.module(torch.where(mask, images[1:2], baseline[0 if shared else 1]))
    torch.testing.assert_close(by_pixels[1, 2], by_hand[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_perturbed_logits_within_little_memory(adapter, name, monkeypatch):
    images = networks.images(name)
    keep = torch.rand(3, 5, adapter.assemble(adapter.patch_embed(images)).shape[1] - adapter.num_prefix_tokens) > 0.5
    ample = adapter.perturbed_logits(images, torch.zeros_like(images), keep)
    monkeypatch.setattr("vitrail.adapters.memory.memory_budget", lambda device: 1)
    torch.testing.assert_close(adapter.perturbed_logits(images, torch.zeros_like(images), keep), ample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 4, 5), r"16 cells of a 4x4 grid\), got \(3, 4, 5\)"), ((2, 4, 16), r"3 images"), ((3, 0, 16), "steps")],
)
def test_masks_that_do_not_fit_are_refused(shape, message, unchecked):
    adapter, images = networks.network("hit"), networks.images("hit")
    with pytest.raises(InvalidInputError, match=message):
        adapter.perturbed_logits(images, torch.zeros_like(images), torch.ones(shape, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match="expected a baseline"):
        adapter.perturbed_logits(images, torch.zeros(2, 3, 16, 16), torch.ones(3, 1, 16, dtype=torch.bool))


def test_attentions_are_probabilities_in_the_graph(adapter, name):
    images = networks.images(name)
    with adapter.record(attentions=True) as trace:
        logits = adapter.logits(images)
    assert len(trace.attentions) == (4 if name in ("hit-pooled", "hit-no-positions") else 3 if name.startswith("timm") else 2)
    for weights in trace.attentions:
        assert weights.shape[0] == 3
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    gradients = torch.autograd.grad(logits[:, 0].sum(), trace.attentions)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", ["timm", "hit-pooled"])
def test_attention_gradients_by_finite_differences(name):
    """The recorded weights are those that the network used: nudging one moves the logit as its gradient says."""
    adapter, images = networks.network(name), networks.images(name, 1).double()
    adapter.module.double()
    with adapter.record(attentions=True) as trace:
        logit = adapter.logits(images)[0, 1]
    (gradient,) = torch.autograd.grad(logit, trace.attentions[1])
    is_timm = name == "timm"
    layer = adapter.module.blocks[1].attn.attn_drop if is_timm else adapter.module.stages[1].layers[0].attention.dropout
    step = 1e-5

    def nudge(sign: int) -> float:
        def hook(module, inputs, output):
            output = output.clone()
            output[(0, 1, 0, 3) if is_timm else (0, 0, 1, 3)] += sign * step
            return output

        handle = layer.register_forward_hook(hook)
        with torch.no_grad(), adapter.record(attentions=True):
            value = float(adapter.logits(images)[0, 1])
        handle.remove()
        return value

    slope = (nudge(1) - nudge(-1)) / (2 * step)
    assert slope == pytest.approx(float(gradient[0, 1, 0, 3]), rel=1e-4)


@torch.no_grad()
def test_hidden_states_lead_to_the_logits(adapter, name):
    images = networks.images(name)
    with adapter.record(hidden_states=True) as trace:
        logits = adapter.logits(images)
    assert not trace.attentions
    last = trace.hidden_states[-1]
    head = (
        adapter.module.classify(last[:, 0])
        if name.startswith("hit")
        else adapter.module.forward_head(adapter.module.norm(last))
    )
    torch.testing.assert_close(head, logits)


@pytest.mark.parametrize("failing", [False, True], ids=["success", "failure"])
def test_recording_leaves_no_trace_on_the_model(adapter, name, failing):
    before = [(module, dict(module.__dict__), len(module._forward_hooks)) for module in adapter.module.modules()]

    class FailureError(Exception):
        pass

    try:
        with adapter.record(attentions=True, hidden_states=True):
            adapter.logits(networks.images(name))
            if failing:
                raise FailureError
    except FailureError:
        pass
    for module, attributes, hooks in before:
        assert len(module._forward_hooks) == hooks == 0
        assert {k: v for k, v in module.__dict__.items() if k == "fused_attn"} == {
            k: v for k, v in attributes.items() if k == "fused_attn"
        }


@torch.no_grad()
def test_physical_removal_of_patches():
    adapter, images = networks.network("timm-registers"), networks.images("timm")
    tokens = adapter.assemble(adapter.patch_embed(images))
    kept = [0, 1, 2, 3, 4, 5 + 2, 5 + 9]
    blocks, width = adapter.module, tokens[:, kept]
    expected = blocks.forward_head(blocks.norm(blocks.blocks(blocks.norm_pre(width))))
    torch.testing.assert_close(adapter.forward_tokens(tokens[:, kept]), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(2, 2), "got torch.nn.modules.linear.Linear, which has no adapter"),
        (lambda: torchvision.models.resnet18(), "ResNet, which has no adapter"),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224"), "got timm's SwinTransformer"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224"), "got timm's VisionTransformerDistilled"),
        (lambda: networks.timm_vit(class_token=False, global_pool="avg"), "with a class token"),
        (lambda: networks.timm_vit(dynamic_img_size=True), "dynamic_img_size=True"),
        (lambda: timm.create_model("vit_small_patch16_18x2_224"), "one attention and one MLP each, got parallel ones"),
        (lambda: timm.create_model("vit_tiny_r_s16_p8_224"), "embedded one by one .* got HybridEmbed"),
        (lambda: networks.hit().stages[0], "its part HiTStage"),
        (lambda: networks.hit(in_channels=1), "a network of 1 channels"),
    ],
)
def test_other_networks_are_refused_with_the_reason(build, message):
    with pytest.raises(UnsupportedModelError, match=message):
        adapt(build())


def test_what_is_no_network_is_refused(unchecked):
    with pytest.raises(UnsupportedModelError, match=r"expected a torch.nn.Module, got str; names and files go to vitrail.load"):
        adapt("vit_base_patch16_224")
    with pytest.raises(UnsupportedModelError, match="expected 5 class names, one per logit, got 2"):
        adapt(networks.hit(), class_names=["a", "b"])


def test_classes_by_name_and_number():
    adapter = networks.network("hit")
    assert [adapter.class_index(name) for name in ("ant", "emu", "0", 0, "4")] == [0, 4, 0, 0, 4]
    assert adapter.class_name(2) == "cat"
    assert adapt(networks.hit()).class_name(2) == "class 2"
    with pytest.raises(
        UnknownNameError, match=r"unknown class 'can' \(did you mean 'cat'\?\); choose one of: ant, bee, cat, dog, emu"
    ):
        adapter.class_index("can")
    for number in (5, -1, "-1", "99"):
        with pytest.raises(InvalidInputError, match="between 0 and 4"):
            adapter.class_index(number)


def test_timm_base_with_random_weights():
    """A user's ViT-B/16, end to end: loads, classifies, and is perturbed exactly."""
    classifier = vitrail.load("timm:vit_base_patch16_224", pretrained=False, device="cpu")
    assert (classifier.num_classes, classifier.num_prefix_tokens, len(classifier.class_names)) == (1000, 1, 1000)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert classifier.grid_size(images) == (14, 14)
    keep = torch.rand(1, 2, 196, generator=torch.Generator().manual_seed(1)) > 0.5
    with torch.no_grad():
        ours = classifier.perturbed_logits(images, torch.zeros(1, 3, 224, 224), keep)
        mask = keep[0].view(2, 1, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)
        torch.testing.assert_close(ours[0], classifier.module(torch.where(mask, images, 0.0)), rtol=1e-4, atol=1e-5)


def test_class_names_that_a_model_lacks_are_told():
    with pytest.raises(UnknownNameError, match=r"mine has no class names; give a number from 0 to 4"):
        adapt(networks.hit(), name="mine").class_index("cat")
