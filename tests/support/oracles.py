"""A plain Vision Transformer's forward pass, written out: what methods that look inside are tested against."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Seen:
    """What a forward pass goes through, in the graph.

    Attributes:
        logits: (b, c).
        attentions: Per block, (b, h, t, t).
        entering: Tokens that enter each block, (b, t, d).
        normed: Per block, tokens after the norm before attention and after the norm before the MLP.
        leaving: Tokens that leave each block.
    """

    logits: Tensor
    attentions: list[Tensor] = field(default_factory=list)
    entering: list[Tensor] = field(default_factory=list)
    normed: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    leaving: list[Tensor] = field(default_factory=list)


def walk(network: nn.Module, images: Tensor) -> Seen:
    """The arithmetic of timm's plain `VisionTransformer` (no layer scale, no norm of queries and keys), step by step."""
    seen = Seen(torch.empty(0))
    tokens = network._pos_embed(network.patch_embed(images))
    for block in network.blocks:
        seen.entering.append(tokens)
        before = layer_norm(block.norm1, tokens)
        heads = block.attn.num_heads
        query, key, value = (before @ block.attn.qkv.weight.mT + block.attn.qkv.bias).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / query.shape[-1] ** 0.5
        attention = scores.exp() / scores.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("bhqk,bhkd->bqhd", attention, value).flatten(2)
        tokens = tokens + mixed @ block.attn.proj.weight.mT + block.attn.proj.bias
        after = layer_norm(block.norm2, tokens)
        hidden = after @ block.mlp.fc1.weight.mT + block.mlp.fc1.bias
        gate = (1 + torch.erf(hidden / 2**0.5)) / 2
        tokens = tokens + (hidden * gate) @ block.mlp.fc2.weight.mT + block.mlp.fc2.bias
        seen.attentions.append(attention)
        seen.normed.append((before, after))
        seen.leaving.append(tokens)
    seen.logits = read(network, tokens)
    return seen


def layer_norm(norm: nn.LayerNorm, tokens: Tensor) -> Tensor:
    centered = tokens - tokens.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def read(network: nn.Module, tokens: Tensor) -> Tensor:
    """Logits of the tokens that leave a block, by the class token or by the patches' average."""
    prefix = network.num_prefix_tokens
    if network.global_pool == "token":
        pooled = layer_norm(network.norm, tokens)[:, 0]
    else:
        pooled = layer_norm(network.fc_norm, tokens[:, prefix:].mean(1))
    return pooled @ network.head.weight.mT + network.head.bias


def reading_row(network: nn.Module, num_tokens: int) -> Tensor:
    """How much the head reads of every token."""
    row, prefix = torch.zeros(num_tokens, dtype=network.head.weight.dtype), network.num_prefix_tokens
    if network.global_pool == "token":
        row[0] = 1
    else:
        row[prefix:] = 1 / (num_tokens - prefix)
    return row


PLAIN = ("timm", "timm-wide", "timm-registers", "timm-average", "timm-no-prefix")
"""Networks that `walk` knows: a class token, a non-square grid, 5 prefix tokens, averaged patches with 1 and 0."""
