"""Removing patches equals masking them in all attention."""

import networks
import pytest
import torch
from torch import Tensor, nn

from vitrail.adapters import ViTAdapter
from vitrail.core.errors import InvalidInputError

POOLED = ("hit-pooled", "hit-wide", "hit-no-positions")
MIXED_HEADS = (
    "timm-average",
    "timm-no-prefix",
    "eva",
    "eva-mixed",
    "eva-dinov3",
    "beit",
    "hf-beit",
    "hf-dinov2",
    "hf-registers",
)
"""Networks whose head reads all patches: the removed ones, which still pass through the oracle, are kept from it by hand."""


def choice(adapter: ViTAdapter, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Return indices of five patches per image, in random order; all tokens; the grid size."""
    grid = adapter.grid_size(images)
    kept = torch.rand(len(images), grid[0] * grid[1], generator=torch.Generator().manual_seed(4)).argsort(1)[:, :5]
    return kept, adapter.assemble(adapter.patch_embed(images), grid), grid


def subset(tokens: Tensor, num_prefix: int, kept: Tensor) -> Tensor:
    return torch.cat([tokens[:, :num_prefix], tokens[torch.arange(len(tokens))[:, None], num_prefix + kept]], 1)


def masked_forward(adapter: ViTAdapter, images: Tensor, kept: Tensor, monkeypatch) -> tuple[Tensor, Tensor]:
    """Run the network's own forward pass, with torch's attention modified to mask removed patches as keys.

    Returns:
        Its logits, and the tokens after the last block.
    """
    rows, cols = adapter.grid_size(images)
    attention, calls, final = nn.functional.scaled_dot_product_attention, [], []

    def masked(query, key, value, attn_mask=None, *rest, **options):
        hidden = torch.full((len(images), key.shape[2]), -torch.inf)
        hidden[:, : key.shape[2] - rows * cols] = 0
        hidden.scatter_(1, key.shape[2] - rows * cols + kept, 0.0)
        hidden = hidden[:, None, None]
        calls.append(key.shape)
        return attention(query, key, value, hidden if attn_mask is None else attn_mask + hidden, *rest, **options)

    block = adapter.blocks[-1]
    handle = block.register_forward_hook(
        lambda _, inputs, output: final.append(output[0] if isinstance(output, tuple) else output)
    )
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", masked)
        logits = networks.own_logits(adapter.module, images)
    handle.remove()
    assert len(calls) >= len(adapter.blocks)  # Every block went through it.
    return logits.detach(), final[0].detach()


@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if not name.startswith("hit")])
def test_dropping_patches_is_hiding_them_from_attention(name, monkeypatch):
    adapter, images = networks.network(name), networks.images(name)
    kept, tokens, grid = choice(adapter, images)
    removed = adapter.forward_tokens(subset(tokens, adapter.num_prefix_tokens, kept), grid, kept)
    logits, final = masked_forward(adapter, images, kept, monkeypatch)
    at_head = adapter.head(subset(final, adapter.num_prefix_tokens, kept))
    torch.testing.assert_close(removed, at_head, rtol=1e-4, atol=1e-5)
    assert (removed - adapter.logits(images)).abs().max() > 1e-2
    if name in MIXED_HEADS:
        assert (removed - logits).abs().max() > 1e-3
    else:
        torch.testing.assert_close(removed, logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hit", "timm", "timm-distilled", "beit-shared", "hf-vit", "hf-deit-teacher", "torchvision"])
def test_dropping_patches_is_taking_their_attention_away(name):
    """The same through `intercept_attention`, with weights of removed patches set to 0 and the others renormalized."""
    adapter, images = networks.network(name), networks.images(name)
    kept, tokens, grid = choice(adapter, images)
    num_prefix = adapter.num_prefix_tokens
    present = torch.zeros(3, tokens.shape[1])
    present[:, :num_prefix] = 1
    present.scatter_(1, num_prefix + kept, 1.0)

    def renormalized(weights: Tensor) -> Tensor:
        left = weights * present[:, None, None]
        return left / left.sum(-1, keepdim=True)

    with adapter.intercept_attention(adapter.blocks, renormalized):
        expected = adapter.logits(images)
    removed = adapter.forward_tokens(subset(tokens, num_prefix, kept), grid, kept)
    torch.testing.assert_close(removed, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name not in POOLED])
def test_a_single_patch_and_every_patch_but_one(name):
    adapter, images = networks.network(name), networks.images(name)
    grid = adapter.grid_size(images)
    tokens = adapter.assemble(adapter.patch_embed(images), grid)
    for kept in (torch.tensor([[3], [0], [7]]), torch.arange(1, grid[0] * grid[1]).expand(3, -1)):
        logits = adapter.forward_tokens(subset(tokens, adapter.num_prefix_tokens, kept), grid, kept)
        alone = [
            adapter.forward_tokens(subset(tokens[i : i + 1], adapter.num_prefix_tokens, kept[i : i + 1]), grid, kept[i : i + 1])
            for i in range(3)
        ]
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(torch.cat(alone), logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", POOLED)
def test_a_pooled_hit_refuses_a_part_of_the_patches(name):
    adapter, images = networks.network(name), networks.images(name)
    kept, tokens, grid = choice(adapter, images)
    with pytest.raises(InvalidInputError, match=rf"expected all {grid[0] * grid[1]} patches .* with pooling, got 5"):
        adapter.forward_tokens(subset(tokens, 1, kept), grid, kept)


@torch.no_grad()
@pytest.mark.parametrize("name", ["eva", "eva-mixed", "eva-dinov3", "beit", "beit-shared", "hf-beit"])
def test_position_dependent_attention_needs_kept_indices(name):
    adapter, images = networks.network(name), networks.images(name)
    kept, tokens, (rows, cols) = choice(adapter, images)
    few, whole = subset(tokens, adapter.num_prefix_tokens, kept), rows * cols
    message = (
        rf"expected {whole} patch tokens \(all of {rows}x{cols}\) after {adapter.num_prefix_tokens} prefix tokens, got 5; "
        ".*depends on positions"
    )
    with pytest.raises(InvalidInputError, match=message):
        adapter.forward_tokens(few, (rows, cols))
    with pytest.raises(InvalidInputError, match=rf"expected 4 patch tokens \(kept of {rows}x{cols}\) .* got 5; .*pass `kept`"):
        adapter.forward_tokens(few, (rows, cols), kept[:, :4])


@torch.no_grad()
@pytest.mark.parametrize("name", ["hit", "timm", "timm-registers", "hf-vit", "hf-dinov2", "torchvision"])
def test_kept_patches_are_optional_where_positions_do_not_matter(name):
    adapter, images = networks.network(name), networks.images(name)
    kept, tokens, grid = choice(adapter, images)
    few = subset(tokens, adapter.num_prefix_tokens, kept)
    torch.testing.assert_close(adapter.forward_tokens(few, grid), adapter.forward_tokens(few, grid, kept))


def test_gradients_reach_the_tokens_that_are_left():
    for name in ("beit", "eva-mixed", "hf-beit", "torchvision"):
        adapter, images = networks.network(name), networks.images(name)
        kept, tokens, grid = choice(adapter, images)
        tokens = tokens.detach().requires_grad_()
        logits = adapter.forward_tokens(subset(tokens, adapter.num_prefix_tokens, kept), grid, kept)
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), tokens)
        reached = gradient.abs().sum(-1)[:, adapter.num_prefix_tokens :] > 0
        assert torch.equal(reached, torch.zeros_like(reached).scatter_(1, kept, True)), name
