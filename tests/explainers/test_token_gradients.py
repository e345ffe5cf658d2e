"""Input x gradient, with and without LibraGrad, and integrated gradients."""

import copy
from functools import cache

import networks
import pytest
import torch
from torch import nn

from vitrail.adapters import adapt
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.explainers import EXPLAINERS, make_explainer
from vitrail.explainers._libra import balanced_gradients

TARGETS = torch.tensor([4, 0, 2])
NETWORKS = (
    "timm",
    "timm-wide",
    "timm-norms",
    "timm-no-prefix",
    "timm-registers",
    "timm-distilled",
    "beit",
    "eva-mixed",
    "eva-dinov3",
)
NETWORKS += ("hf-vit", "hf-deit-teacher", "hf-registers", "hf-beit", "torchvision", "hit")

BY_DEFAULT = ("timm-wide", "timm-norms", "eva-mixed", "hf-deit-teacher", "torchvision", "hit")
"""One network per kind of norm, gate and position; all others are slow tests."""

BALANCED = [pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.slow) for name in NETWORKS]


def fresh_double(name):
    """A network that a test may change."""
    classifier = networks.network(name)
    classifier.module.double()
    return classifier, networks.images(name).double()


double = cache(fresh_double)


def chosen(logits):
    return logits.gather(1, TARGETS[:, None]).squeeze(1)


def without_constants(name):
    """A network without biases, positions and prefix tokens, whose logit comes from the patches alone."""
    classifier, images = fresh_double(name)
    constant = (
        "bias",
        "cls_token",
        "dist_token",
        "distillation_token",
        "class_token",
        "reg_token",
        "register_tokens",
        "pos_embed",
    )
    constant += ("position_embeddings", "pos_embedding", "mask_token", "positions", "q_bias", "v_bias")
    with torch.no_grad():
        for key, parameter in classifier.module.named_parameters():
            # Relative position biases are inside the softmax and add no constant.
            if any(key.endswith(end) for end in constant) and "relative" not in key:
                parameter.zero_()
    return classifier, images


@pytest.mark.parametrize("name", ["timm-no-prefix", "timm-average"])
def test_contributions_to_a_linear_network_are_exact(name):
    classifier, images = fresh_double(name)
    network = classifier.module
    with torch.no_grad():
        for block in network.blocks:  # blocks that add nothing
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    network.fc_norm = nn.Identity()
    patches = network.patch_embed(images)
    expected = torch.einsum("bnd,bd->bn", patches, network.head.weight[TARGETS]) / patches.shape[1]
    for method in ("input-x-gradient", "integrated-gradients"):
        explanation = make_explainer(method, classifier).explain(images, TARGETS)
        if method == "integrated-gradients":
            zero = network.patch_embed(torch.zeros_like(images))
            expected = torch.einsum("bnd,bd->bn", patches - zero, network.head.weight[TARGETS]) / patches.shape[1]
        torch.testing.assert_close(explanation.relevance.flatten(1), expected.detach())


@pytest.mark.parametrize("name", ["timm", "timm-wide", "eva-dinov3", "hf-vit", "torchvision", "hit-pooled"])
def test_input_x_gradient_of_one_patch_after_another(name):
    """Compare with finite differences along every patch."""
    classifier, images = double(name)
    grid_size = classifier.grid_size(images)
    relevance = make_explainer("input-x-gradient", classifier).explain(images, TARGETS).relevance.flatten(1)
    patches, step = classifier.patch_embed(images).detach(), 1e-6
    with torch.no_grad():
        for i, target in enumerate(TARGETS):
            logits = []
            for sign in (1, -1):
                scaled = torch.eye(patches.shape[1]).double()[:, :, None] * sign * step * patches[i] + patches[i]
                logits.append(classifier.forward_tokens(classifier.assemble(scaled, grid_size), grid_size)[:, target])
            torch.testing.assert_close(relevance[i], (logits[0] - logits[1]) / (2 * step), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", BALANCED)
@pytest.mark.parametrize("method", ["input-x-gradient", "attcat"])
def test_balancing_changes_gradients_and_no_value(name, method):
    classifier, images = double(name)
    if reason := EXPLAINERS[method].refusal(classifier):
        pytest.skip(reason)
    before = copy.deepcopy(classifier.module.state_dict())
    plain = make_explainer(method, classifier).explain(images, TARGETS)
    balanced = make_explainer(method, classifier, libra=True).explain(images, TARGETS)
    torch.testing.assert_close(balanced.logits, plain.logits, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(balanced.relevance, plain.relevance, rtol=1e-3)
    torch.testing.assert_close(classifier.module.state_dict(), before, rtol=0, atol=0)
    again = make_explainer(method, classifier).explain(images, TARGETS)
    assert torch.equal(again.relevance, plain.relevance)


@pytest.mark.parametrize("name", BALANCED)
def test_balanced_contributions_sum_to_the_logit_of_a_network_without_constants(name):
    classifier, images = without_constants(name)
    logits = chosen(classifier.logits(images)).detach()
    assert logits.abs().min() > 1e-3
    sums = [
        make_explainer("input-x-gradient", classifier, libra=libra).explain(images, TARGETS).relevance.sum((1, 2))
        for libra in (True, False)
    ]
    # LayerNorm's eps and the gate of activations at 0 cause small errors.
    torch.testing.assert_close(sums[0], logits, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(sums[1], logits, rtol=0.05)


def test_balancing_can_be_disabled():
    classifier, _ = double("timm")
    with balanced_gradients(classifier, enabled=False):
        assert not any(part._forward_hooks for part in classifier.module.modules())
    with balanced_gradients(classifier):
        assert sum(bool(part._forward_hooks) for part in classifier.module.modules()) == 3 * 4 + 1


@pytest.mark.parametrize("name", ["timm", "eva", "hf-dinov2", "torchvision", "hit"])
def test_more_steps_reduce_the_quadrature_error(name):
    classifier, images = double(name)
    errors = []
    for num_steps in (1, 4, 16, 64):
        explanation = make_explainer("integrated-gradients", classifier, num_steps=num_steps).explain(images, TARGETS)
        total = explanation.relevance.sum((1, 2)) + explanation.bias
        errors.append(float((total - chosen(explanation.logits)).abs().max()))
    assert errors[0] > 10 * errors[2]
    assert errors[-1] < 1e-3 * float(chosen(explanation.logits).abs().max())
    zero = classifier.logits(torch.zeros_like(images[:1])).detach()[0, TARGETS]
    torch.testing.assert_close(explanation.bias, zero)


@pytest.mark.parametrize("name", ["timm", "timm-registers", "beit", "hf-deit-teacher"])
@pytest.mark.parametrize("baseline", ["zero", "blur"])
def test_integrated_gradients_of_captum(name, baseline):
    captum = pytest.importorskip("captum.attr", reason="comes with the extra captum")
    from vitrail.core.baselines import BASELINES

    classifier, images = double(name)
    grid_size = classifier.grid_size(images)
    method = captum.IntegratedGradients(
        lambda patches: classifier.forward_tokens(classifier.assemble(patches, grid_size), grid_size)
    )
    start = classifier.patch_embed(BASELINES[baseline](images).expand_as(images)).detach()
    theirs = method.attribute(
        classifier.patch_embed(images).detach(), start, target=TARGETS, n_steps=12, method="gausslegendre"
    )
    explainer = make_explainer("integrated-gradients", classifier, num_steps=12, baseline=baseline)
    torch.testing.assert_close(explainer.explain(images, TARGETS).relevance.flatten(1), theirs.sum(-1))


def test_steps_and_images_share_passes_that_fit_into_memory(monkeypatch):
    classifier, images = double("timm")
    explainer = make_explainer("integrated-gradients", classifier, num_steps=5)
    whole, sizes = explainer.explain(images, TARGETS).relevance, []
    forward = type(classifier).forward_tokens
    monkeypatch.setattr("vitrail.adapters.memory.memory_budget", lambda device: 1)

    def counted(self, tokens, *rest):
        sizes.append(len(tokens))
        return forward(self, tokens, *rest)

    monkeypatch.setattr(type(classifier), "forward_tokens", counted)
    torch.testing.assert_close(explainer.explain(images, TARGETS).relevance, whole)
    assert sizes == [1] * 15


def test_bad_options_are_refused():
    classifier = networks.network("timm")
    with pytest.raises(InvalidInputError, match=r"^expected at least 1 step, got 0$"):
        make_explainer("integrated-gradients", classifier, num_steps=0)
    with pytest.raises(UnknownNameError, match=r"^unknown baseline 'pink'"):
        make_explainer("integrated-gradients", classifier, baseline="pink")


def test_integrated_gradients_store_one_number_per_patch_and_point(monkeypatch):
    import vitrail.explainers.token_gradients as module

    kept, run_in_batches = [], module.run_in_batches

    def spy(*arguments):
        kept.append(run_in_batches(*arguments))
        return kept[-1]

    monkeypatch.setattr(module, "run_in_batches", spy)
    make_explainer("integrated-gradients", networks.network("timm"), num_steps=4).explain(networks.images("timm"), 1)
    assert [tuple(part.shape) for part in kept] == [(3 * 4, 16)]


@pytest.mark.parametrize("name", ["hit", "timm", "timm-distilled", "eva", "torchvision", "hf-vit"])
@pytest.mark.parametrize("half", ["weights", "autocast"])
def test_balancing_changes_no_logit_in_half_precision(name, half):
    classifier = networks.network(name)
    if half == "weights":
        classifier.module.bfloat16()
    images = networks.images(name).to(classifier.dtype)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast")
    with classifier.inspecting(), autocast:
        with classifier.intercept_attention(
            classifier.blocks, lambda weights: weights
        ):  # Attention that is not fused rounds otherwise.
            plain = classifier.logits(images)
        with balanced_gradients(classifier):
            assert torch.equal(classifier.logits(images), plain)


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "quick_gelu", "silu"]
)
def test_every_gate_of_hugging_face_is_balanced(activation):
    classifier = adapt(networks.huggingface("ViT", hidden_act=activation))
    [gate] = {type(part) for part in classifier.module.modules() if type(part).__module__.endswith("activations")} | {
        type(part) for part in classifier.module.modules() if type(part) in (torch.nn.GELU, torch.nn.SiLU)
    }
    activation = next(part for part in classifier.module.modules() if type(part) is gate)
    values = torch.linspace(-2, 2, 9, requires_grad=True)
    with balanced_gradients(classifier):
        output = activation(values)
    [gradient] = torch.autograd.grad(output.sum(), values)
    torch.testing.assert_close(gradient * values, output.detach(), rtol=1e-5, atol=1e-6)
