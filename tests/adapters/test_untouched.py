"""Recording and perturbing a network leaves it unchanged, also on failure."""

from collections.abc import Mapping
from typing import Any

import networks
import pytest
import torch
from shared_networks import EVERY_NETWORK
from torch import nn

from vitrail.adapters import adapt
from vitrail.adapters.huggingface import attention as huggingface_attention


class ForwardError(Exception):
    """Raised inside the network."""


def snapshot(module: nn.Module) -> dict[str, Any]:
    """All attributes of the modules: replaced methods, flags, hooks, buffers; and the shared configuration."""
    parts: dict[str, Any] = {}
    for path, part in module.named_modules():
        for key, value in vars(part).items():
            parts[f"{path}.{key}"] = [*value.items()] if isinstance(value, Mapping) else value
    config = getattr(module, "config", None)
    return parts | {
        "attention": getattr(config, "_attn_implementation", None),
        "intercept": huggingface_attention._INTERCEPT.get(),
    }


def assert_untouched(before: dict[str, Any], module: nn.Module) -> None:
    after = snapshot(module)
    assert after.keys() == before.keys()
    for key, value in before.items():
        same = value is after[key] or (not isinstance(value, torch.Tensor) and value == after[key])
        assert same, f"{key} was {value}, is {after[key]}"


def actions(adapter, images):
    grid = adapter.grid_size(images)
    tokens = adapter.assemble(adapter.patch_embed(images), grid)
    with adapter.record(hidden_states=True) as trace:
        adapter.logits(images)
    leaving = trace.hidden_states[-1]
    everyone = torch.arange(grid[0] * grid[1]).expand(len(images), -1)

    def recorded():
        with adapter.record(attentions=True, hidden_states=True), adapter.record(attentions=True, blocks=slice(-1, None)):
            adapter.logits(images)

    def attended():
        with adapter.intercept_attention(adapter.blocks, lambda weights: weights / 2):
            adapter.logits(images)

    keep = torch.ones(len(images), 2, everyone.shape[1], dtype=torch.bool)
    return {
        "logits": lambda: adapter.logits(images),
        "record": recorded,
        "intercept_attention": attended,
        "assemble": lambda: adapter.assemble(adapter.patch_embed(images), grid),
        "forward_tokens": lambda: adapter.forward_tokens(tokens, grid),
        "forward_tokens, kept": lambda: adapter.forward_tokens(tokens, grid, everyone),
        "head": lambda: adapter.head(leaving),
        "perturbed_logits": lambda: adapter.perturbed_logits(images, images, keep),
    }


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_success_leaves_no_trace(name, training):
    adapter, images = networks.network(name), networks.images(name)
    todo = actions(adapter, images)
    adapter.module.train(training)
    before = snapshot(adapter.module)
    for title, act in todo.items():
        if training and title == "perturbed_logits" and name.startswith("hit"):  # Refused in training.
            continue
        act()
        assert_untouched(before, adapter.module)


@torch.no_grad()
@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_failure_leaves_no_trace(name):
    adapter, images = networks.network(name), networks.images(name)
    todo = actions(adapter, images)

    def fail(*_):
        raise ForwardError

    block = adapter.blocks[-1]
    handle = next(part for path, part in block.named_modules() if isinstance(part, nn.LayerNorm)).register_forward_hook(fail)
    before, failures = snapshot(adapter.module), 0
    for act in todo.values():
        try:
            act()
        except ForwardError:
            failures += 1
        assert_untouched(before, adapter.module)
    handle.remove()
    assert failures >= 4


@torch.no_grad()
@pytest.mark.parametrize("name", ["hit", "timm", "timm-parallel", "eva", "beit", "hf-vit", "torchvision"])
def test_a_failing_intercept_leaves_no_trace(name):
    adapter, images = networks.network(name), networks.images(name)
    before = snapshot(adapter.module)

    def fail(weights):
        raise ForwardError

    for attempt in (adapter.record(attentions=fail), adapter.intercept_attention(adapter.blocks, fail)):
        with pytest.raises(ForwardError), attempt:
            adapter.logits(images)
        assert_untouched(before, adapter.module)


@pytest.mark.parametrize("name", ["timm", "timm-registers", "timm-parallel", "eva", "eva-mixed", "beit"])
def test_checkpointing_is_restored_and_intercepts_run_once(name):
    adapter, images = networks.network(name), networks.images(name)
    adapter.module.set_grad_checkpointing(True)
    before, seen = snapshot(adapter.module), []
    with adapter.record(attentions=lambda weights: seen.append(1) or weights) as trace:
        adapter.logits(images).sum().backward()
    assert len(seen) == len(trace.attentions) == len(adapter.blocks)
    assert_untouched(before, adapter.module)
    assert adapter.module.grad_checkpointing is True


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm", "eva", "beit", "timm-parallel"])
def test_unfused_attention_stays_unfused(name):
    adapter = networks.network(name)
    for part in adapter.module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    before = snapshot(adapter.module)
    with adapter.record(attentions=True) as trace:
        adapter.logits(networks.images(name))
    assert len(trace.attentions) == len(adapter.blocks)
    assert_untouched(before, adapter.module)


@torch.no_grad()
def test_a_forward_replaced_by_the_user_is_restored():
    for name, find in {
        "hf-vit": lambda module: module.vit.embeddings,
        "torchvision": lambda module: module.encoder.layers[0].self_attention,
    }.items():
        module = networks.NETWORKS[name]()
        part, own = find(module), find(module).forward
        part.forward = mine = lambda *inputs, own=own, **options: own(*inputs, **options)
        adapter, images = adapt(module), networks.images(name)
        with adapter.record(attentions=True):
            adapter.logits(images)
        grid = adapter.grid_size(images)
        adapter.forward_tokens(adapter.assemble(adapter.patch_embed(images), grid), grid)
        assert part.forward is mine
