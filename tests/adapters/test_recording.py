"""Recorded attention and hidden states are those that the network used, in the graph."""

import networks
import pytest
import torch
from shared_networks import EVERY_NETWORK, shared_network
from torch import Tensor

from vitrail.adapters import ViTAdapter, adapt
from vitrail.core.errors import InvalidInputError

HAS_POOLING = ("hit-pooled", "hit-wide", "hit-no-positions")


@pytest.fixture(params=EVERY_NETWORK)
def name(request) -> str:
    return request.param


@pytest.fixture
def adapter(name) -> ViTAdapter:
    return shared_network(name)


def test_attentions_are_probabilities_in_the_graph(adapter, name):
    images = networks.images(name)
    with adapter.record(attentions=True) as trace:
        logits = adapter.logits(images)
    torch.testing.assert_close(logits, networks.own_logits(adapter.module, images))
    assert len(trace.attentions) == len(adapter.blocks)
    assert not trace.hidden_states
    rows, cols = adapter.grid_size(images)
    num_tokens = adapter.num_prefix_tokens + rows * cols
    for weights in trace.attentions:
        if name not in HAS_POOLING:
            assert weights.shape == (3, 4 if name == "hit" else 3, num_tokens if adapter.patches_attend else 1, num_tokens)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights >= 0).all()
    gradients = torch.autograd.grad(logits[:, 0].sum(), trace.attentions)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@torch.no_grad()
def test_some_blocks_alone_and_a_function_of_what_to_keep(adapter, name):
    images = networks.images(name)
    with adapter.record(attentions=True) as whole:
        adapter.logits(images)
    with adapter.record(attentions=True, blocks=slice(-1, None)) as last:
        adapter.logits(images)
    with adapter.record(attentions=lambda weights: weights.mean(1), blocks=slice(0, 2)) as means:
        adapter.logits(images)
    assert len(last.attentions) == 1
    torch.testing.assert_close(last.attentions[0], whole.attentions[-1])
    assert len(means.attentions) == 2
    for mean, weights in zip(means.attentions, whole.attentions, strict=False):
        torch.testing.assert_close(mean, weights.mean(1))
    first, final = whole.attentions[0], whole.attentions[-1]
    assert first.shape != final.shape or (first - final).abs().max() > 1e-2  # Otherwise the blocks could not be told apart.


def test_attention_gradients_by_finite_differences(name):
    """Changing one weight changes the logit by the recorded gradient, in every block."""
    adapter, images = networks.network(name), networks.images(name, 1).double()
    adapter.module.double()
    with adapter.record(attentions=True) as trace:
        logit = adapter.logits(images)[0, 1]
    gradients = torch.autograd.grad(logit, trace.attentions)
    step = 1e-5
    for block, gradient in zip(adapter.blocks, gradients, strict=True):
        # The weight with the largest gradient: zero gradients would prove nothing.
        index = torch.unravel_index(gradient[0].abs().argmax(), gradient.shape[1:])

        def logit_after(change: float, block=block, index=index) -> float:
            def add(weights: Tensor) -> Tensor:
                weights = weights.clone()
                weights[(0, *index)] += change
                return weights

            with torch.no_grad(), adapter.intercept_attention([block], add):
                return float(adapter.logits(images)[0, 1])

        slope = (logit_after(step) - logit_after(-step)) / (2 * step)
        assert abs(slope) > 1e-4
        assert slope == pytest.approx(float(gradient[0][index]), rel=1e-4)


@torch.no_grad()
def test_intercepts_are_called_in_order_in_every_forward_pass(adapter, name):
    images, seen = networks.images(name), []

    def keep(weights: Tensor) -> Tensor:
        seen.append(weights)
        return weights

    with adapter.record(attentions=True) as trace:
        adapter.logits(images)
    with adapter.intercept_attention(adapter.blocks[::-1], keep):  # In any order of arguments.
        adapter.logits(images)
        adapter.logits(images)
    assert len(seen) == 2 * len(adapter.blocks)
    for weights, recorded in zip(seen, trace.attentions * 2, strict=True):
        assert torch.equal(weights, recorded)
    adapter.logits(images)
    assert len(seen) == 2 * len(adapter.blocks)


@torch.no_grad()
def test_the_network_continues_with_what_an_intercept_returns(adapter, name):
    """With identity attention in every block, a patch does not depend on other patches."""
    if not adapter.patches_attend:
        pytest.skip("patches do not attend to each other")
    images = networks.images(name, 1)
    changed = images.clone()
    changed[:, :, :, 16:] += 1

    def final(images: Tensor, intercept) -> Tensor:
        with adapter.intercept_attention(adapter.blocks, intercept), adapter.record(hidden_states=True) as trace:
            adapter.logits(images)
        return trace.hidden_states[-1][0, adapter.num_prefix_tokens]  # the first patch, top left

    one, other = (final(x, lambda weights: torch.eye(weights.shape[-1]).expand_as(weights)) for x in (images, changed))
    assert torch.equal(one, other)
    one, other = (final(x, lambda weights: weights) for x in (images, changed))
    assert (one - other).abs().max() > 1e-4


def test_hidden_states_lead_to_the_logits(adapter, name):
    images = networks.images(name)
    with adapter.record(hidden_states=True) as trace:
        logits = adapter.logits(images)
    assert not trace.attentions
    assert len(trace.hidden_states) == len(adapter.blocks) + 1
    torch.testing.assert_close(adapter.head(trace.hidden_states[-1]), logits)
    tokens = adapter.assemble(adapter.patch_embed(images), adapter.grid_size(images))
    if name == "timm-norms":  # A norm stands between the tokens and the first block.
        tokens = adapter.module.norm_pre(tokens)
    torch.testing.assert_close(trace.hidden_states[0], tokens)
    gradients = torch.autograd.grad(logits[:, 0].sum(), trace.hidden_states)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def num_hooks(adapter: ViTAdapter) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in adapter.module.modules())


def test_the_first_hidden_states_alone(adapter, name):
    images, before = networks.images(name), num_hooks(adapter)
    with adapter.record(hidden_states=True) as whole:
        logits = adapter.logits(images)
    gradients = torch.autograd.grad(logits[:, 0].sum(), whole.hidden_states)
    for count in (*range(len(whole.hidden_states) + 2), None):
        first = whole.hidden_states[:count]
        with adapter.record(hidden_states=True, num_hidden_states=count) as trace:
            assert num_hooks(adapter) - before == len(first)  # Only the needed blocks are hooked.
            again = adapter.logits(images)
        assert num_hooks(adapter) == before
        assert torch.equal(again, logits)
        assert len(trace.hidden_states) == len(first)
        assert all(torch.equal(mine, expected) for mine, expected in zip(trace.hidden_states, first, strict=True))
        mine = torch.autograd.grad(again[:, 0].sum(), trace.hidden_states) if first else ()
        for gradient, expected in zip(mine, gradients, strict=False):
            torch.testing.assert_close(gradient, expected)
    with adapter.record(attentions=True, num_hidden_states=2) as trace:  # Of none.
        adapter.logits(images)
    assert (len(trace.attentions), trace.hidden_states) == (len(adapter.blocks), [])


def test_no_negative_number_of_hidden_states():
    adapter = networks.network("timm")
    with pytest.raises(InvalidInputError, match=r"num_hidden_states of 0 or more.*got -1"):
        adapter.record(hidden_states=True, num_hidden_states=-1).__enter__()
    assert not num_hooks(adapter)


def test_hidden_states_are_the_networks_own(name):
    """A gradient step along a hidden state moves the logit as its gradient says."""
    adapter, images = networks.network(name), networks.images(name, 1).double()
    adapter.module.double()
    with adapter.record(hidden_states=True) as trace:
        logit = adapter.logits(images)[0, 1]
    gradients = torch.autograd.grad(logit, trace.hidden_states)
    step = 1e-6
    last, gradient = trace.hidden_states[-1].detach(), gradients[-1]
    moved = [adapter.head(last + sign * step * gradient)[0, 1].item() for sign in (1, -1)]
    assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(float(gradient.square().sum()), rel=1e-4)
    grid, first = adapter.grid_size(images), adapter.assemble(adapter.patch_embed(images), adapter.grid_size(images)).detach()
    if name != "timm-norms":
        moved = [adapter.forward_tokens(first + sign * step * gradients[0], grid)[0, 1].item() for sign in (1, -1)]
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(float(gradients[0].square().sum()), rel=1e-4)


def test_pooling_weights_name_the_tokens_that_the_head_reads(adapter, name):
    images = networks.images(name)
    with adapter.record(hidden_states=True) as trace:
        adapter.logits(images)
    tokens = trace.hidden_states[-1].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(adapter.head(tokens).square().sum(), tokens)
    pooling_weights = adapter.pooling_weights(tokens.shape[1])
    assert pooling_weights.sum().item() == pytest.approx(1)
    assert (pooling_weights >= 0).all()
    assert ((gradient.abs().sum((0, 2)) > 0) == (pooling_weights > 0)).all()
    if adapter.num_prefix_tokens:  # For a subset of the patches as well.
        assert adapter.pooling_weights(adapter.num_prefix_tokens + 2).sum().item() == pytest.approx(1)


def test_nested_recordings(adapter, name):
    """Both record every block."""
    images = networks.images(name)
    with adapter.record(attentions=True) as alone:
        adapter.logits(images)
    with adapter.record(attentions=True, hidden_states=True) as outer, adapter.record(attentions=True) as inner:
        adapter.logits(images)
        for trace in (outer, inner):
            assert len(trace.attentions) == len(alone.attentions)
            for mine, expected in zip(trace.attentions, alone.attentions, strict=True):
                torch.testing.assert_close(mine, expected)
    with torch.no_grad():
        expected = networks.own_logits(adapter.module, images)
    torch.testing.assert_close(adapter.logits(images), expected)
    assert len(outer.attentions) == len(inner.attentions) == len(alone.attentions)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(name, dtype):
    images = networks.images(name)
    reference = networks.network(name).logits(images)
    adapter = adapt(networks.NETWORKS[name]().to(dtype))
    grid = adapter.grid_size(images)
    with torch.no_grad(), adapter.record(attentions=True, hidden_states=True) as trace:
        logits = adapter.logits(images.to(dtype))
    tokens = adapter.assemble(adapter.patch_embed(images.to(dtype)), grid)
    kept = torch.arange(grid[0] * grid[1]).expand(3, -1)
    assert {part.dtype for part in [logits, tokens, *trace.attentions, *trace.hidden_states]} == {dtype}
    assert adapter.pooling_weights(7).dtype == dtype
    exact = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float64 else {"rtol": 0.05, "atol": 0.1}
    torch.testing.assert_close(logits.float(), reference, **exact)
    torch.testing.assert_close(adapter.forward_tokens(tokens, grid, kept).float(), reference, **exact)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_without_gradients(name, without_gradients):
    if name == "hf-beit" and without_gradients is torch.inference_mode:
        pytest.skip("transformers caches an index of BEiT in inference mode, which later gradients cannot use")
    adapter, images = networks.network(name), networks.images(name)
    with without_gradients(), adapter.record(attentions=True, hidden_states=True) as trace:
        logits = adapter.logits(images)
    assert not any(part.requires_grad for part in [logits, *trace.attentions, *trace.hidden_states])
    with adapter.record(attentions=True) as trace:
        again = adapter.logits(images)
    torch.autograd.grad(again.sum(), trace.attentions)
    torch.testing.assert_close(again.detach(), logits.clone())
