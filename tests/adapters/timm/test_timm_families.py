"""Every family of timm's Vision Transformers: the view is what the network computes, and all methods explain it."""

from dataclasses import replace
from functools import cache

import pytest
import timm_families
import torch

import vitrail
from vitrail.adapters import ViTAdapter, adapt
from vitrail.explainers.base import EXPLAINERS

METHODS = (
    "rollout", "attention", "chefer", "legrad", "grad-cam", "attcat", "input-x-gradient", "integrated-gradients", "occlusion", "rise",
    "mutex",
)  # fmt: skip
CHEAP = {"rise": {"num_masks": 8}, "integrated-gradients": {"num_steps": 3}, "shapley": {"num_passes": 100, "region": 2}}
ANY_SIZE = ("naflex", "naflex-map", "naflex-linear", "naflex-rope", "naflex-mixed", "qwen3", "deepseek", "dinov3")


@cache
def family(name) -> ViTAdapter:
    classifier = adapt(
        timm_families.FAMILIES[name](), name=name, preprocessing=vitrail.Preprocessing(size=(32, 32), crop_fraction=1.0)
    )
    assert isinstance(classifier, ViTAdapter), classifier.reason
    # Coordinates of the embedding stand for classes, for methods that need one.
    return replace(classifier, output="softmax")


def images_for(name, count=2):
    size = (32, 48) if name in ANY_SIZE else (32, 32)
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=timm_families.FAMILIES)
def name(request):
    return request.param


@torch.no_grad()
def test_parts_give_the_networks_own_logits(name):
    adapter, images = family(name), images_for(name)
    own, (rows, cols) = adapter.module(images), adapter.grid_size(images)
    assert own.std(0).mean() > 0.01
    tokens = adapter.assemble(adapter.patch_embed(images), (rows, cols))
    assert tokens.shape[1] == adapter.num_prefix_tokens + rows * cols
    order = torch.randperm(rows * cols)
    prefix, shuffled = tokens[:, : adapter.num_prefix_tokens], tokens[:, adapter.num_prefix_tokens + order]
    for logits in (
        adapter.logits(images),
        adapter.forward_tokens(tokens, (rows, cols)),
        adapter.forward_tokens(torch.cat([prefix, shuffled], 1), (rows, cols), order.expand(len(images), -1)),
    ):
        torch.testing.assert_close(logits, own, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_one_softmax_per_block_is_shown_and_used(name):
    if name in timm_families.WITHOUT_ATTENTION:
        pytest.skip("its attention is refused")
    adapter, images = family(name), images_for(name)
    own = adapter.module(images)
    with adapter.record(attentions=True) as trace:
        torch.testing.assert_close(adapter.logits(images), own, rtol=1e-5, atol=1e-5)
    assert len(trace.attentions) == len(adapter.blocks) == len(adapter.vit.blocks)
    for weights in trace.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    # A patch that nobody attends to, and that the head does not read, may be anything.
    with adapter.intercept_attention(adapter.blocks, torch.zeros_like):
        assert not torch.allclose(adapter.logits(images), own, atol=1e-3)


def test_the_head_reads_the_tokens_that_pooling_weights_name(name):
    adapter, images = family(name), images_for(name)
    with adapter.record(hidden_states=True) as trace:
        adapter.logits(images)
    tokens = trace.hidden_states[-1].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(adapter.head(tokens).square().sum(), tokens)
    weights = adapter.pooling_weights(tokens.shape[1])
    assert torch.equal(gradient.abs().sum((0, 2)) > 0, weights > 0)
    assert weights.sum().item() == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_it(name, method):
    if name in timm_families.WITHOUT_ATTENTION and "attention" in EXPLAINERS[method].relies_on:
        pytest.skip("its attention is refused")
    adapter, images = family(name), images_for(name)
    explanation = EXPLAINERS[method](adapter, **CHEAP.get(method, {})).explain(images, 1)
    assert explanation.relevance.shape == (2, *adapter.grid_size(images))
    assert torch.isfinite(explanation.relevance).all()
    assert explanation.relevance.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("name", ["siglip", "pe", "dinov3", "relpos-class", "naflex-linear", "cait", "qwen3", "subclass"])
def test_maps_of_gradients_and_removal(name):
    """One method per mechanism by default: attention and its gradients, gradients of patches, replaced and removed patches."""
    adapter, images = family(name), images_for(name, 1)
    for method in ("grad-cam" if name in timm_families.WITHOUT_ATTENTION else "legrad", "input-x-gradient"):
        assert EXPLAINERS[method](adapter).explain(images, 1).relevance.std() > 0
    rows, cols = adapter.grid_size(images)
    keep = torch.ones(1, 2, rows * cols, dtype=torch.bool)
    keep[:, 1, 3] = False
    baseline = torch.zeros_like(images)
    row, col = divmod(3, cols)
    changed = images.clone()
    changed[:, :, row * 8 : row * 8 + 8, col * 8 : col * 8 + 8] = 0
    with torch.no_grad():
        expected = torch.stack([adapter.module(images), adapter.module(changed)], 1)
        torch.testing.assert_close(adapter.perturbed_logits(images, baseline, keep), expected, rtol=1e-5, atol=1e-5)
        kept = adapter.kept_logits(images, keep)
        torch.testing.assert_close(kept[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(kept[:, 1], kept[:, 0], atol=1e-4)
