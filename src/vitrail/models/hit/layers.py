"""The parts of a HiT: attention with one query, a layer, a stage.

Source: arXiv:2502.17196, section 3.
"""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.types import Patches
from vitrail.models.hit.config import HiTConfig

ClassTokens = Float[Tensor, "b s d"]
"""The class token in `s` versions per image: one in a forward pass, one per step of a perturbation curve."""


class Gathered(NamedTuple):
    """Result of one layer's attention, with all that its explanation needs.

    Attributes:
        update: Update of the class tokens, (b, s, d).
        weights: Attention of the class tokens over the patches, (b, s, h, n).
        patches: The normalized patches, (b, n, d).
    """

    update: Tensor
    weights: Tensor
    patches: Tensor


class ClassAttention(nn.Module):
    """Multi-head attention whose only query is the class token.

    With one query per image, keys need not be computed: `q·(W_k x + b_k)` equals `(W_k^T q)·x` plus a constant that the softmax
    ignores; and values can be mixed before their projection. This costs 2·h·d multiplications per patch instead of 2·d·d.

    Differs: the published code projects every patch to a key and a value; equal up to rounding.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def query(self, class_tokens: ClassTokens) -> Float[Tensor, "b s h e"]:
        """Project class tokens to scaled queries; `e` = d / h."""
        weight, bias = self.in_proj_weight.chunk(3)[0], self.in_proj_bias.chunk(3)[0]
        query = nn.functional.linear(class_tokens, weight, bias).unflatten(-1, (self.num_heads, -1))
        return query / math.sqrt(query.shape[-1])

    def value_projection(self) -> tuple[Float[Tensor, "h e d"], Float[Tensor, "h e"]]:
        """Return weight and bias that project a patch to its value, per head."""
        weight, bias = self.in_proj_weight.chunk(3)[2], self.in_proj_bias.chunk(3)[2]
        return weight.unflatten(0, (self.num_heads, -1)), bias.unflatten(0, (self.num_heads, -1))

    def weights(self, class_tokens: ClassTokens, patches: Patches) -> Float[Tensor, "b s h n"]:
        """Compute attention of every class token over the patches, after softmax and dropout."""
        query = self.query(class_tokens)
        key_weight = self.in_proj_weight.chunk(3)[1].unflatten(0, (self.num_heads, -1))
        probe = torch.einsum("bshe,hed->bshd", query, key_weight)
        scores = probe.flatten(1, 2) @ patches.mT
        return self.dropout(scores.softmax(dim=-1).unflatten(1, query.shape[1:3]))

    def forward(self, class_tokens: ClassTokens, patches: Patches) -> Gathered:
        """Gather from normalized patches into normalized class tokens."""
        weights = self.weights(class_tokens, patches)
        mixed = (weights.flatten(1, 2) @ patches).unflatten(1, weights.shape[1:3])
        weight, bias = self.value_projection()
        # The weights sum to 1 except under attention dropout, which must scale the values' bias too.
        heads = torch.einsum("bshd,hed->bshe", mixed, weight) + bias * weights.sum(-1, keepdim=True)
        return Gathered(self.out_proj(heads.flatten(-2)), weights, patches)


@final
class StochasticDepth(nn.Dropout):
    """In training, drops the update of random images as a whole.

    torchvision has it too, but takes seconds to import.

    Source: Huang et al. 2016, arXiv:1603.09382.
    """

    def forward(self, input: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:  # noqa: A002 (torch's name for it)
        if not self.training or self.p == 0:
            return input
        return input * super().forward(input.new_ones(len(input), 1, 1))


class HiTLayer(nn.Module):
    """One layer: the class token attends to the patches, and every patch runs through the MLP.

    Source: arXiv:2502.17196, section 3.
    """

    def __init__(self, config: HiTConfig, width: int, drop_path: float) -> None:
        super().__init__()
        hidden = round(width * config.mlp_ratio)  # `round`, since the ratio may have been computed from a width.
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = ClassAttention(width, config.num_heads, config.attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, width),
            nn.Dropout(config.dropout),
        )
        self.drop_path = StochasticDepth(drop_path)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.normal_(module.bias, std=1e-6)

    def gather(self, class_tokens: ClassTokens, patches: Patches) -> Gathered:
        """Let the class tokens attend to the patches."""
        return self.attention(self.norm1(class_tokens), self.norm1(patches))

    def advance(self, patches: Patches) -> Patches:
        """Return the patches after this layer; each depends only on itself."""
        return patches + self.drop_path(self.dropout(self.mlp(self.norm2(patches))))

    def forward(self, class_tokens: ClassTokens, patches: Patches, advance: bool) -> tuple[ClassTokens, Patches, Gathered]:
        """Return class tokens and patches after this layer; without `advance` the patches stay as they are."""
        gathered = self.gather(class_tokens, patches)
        class_tokens = class_tokens + self.drop_path(self.dropout(gathered.update))
        return class_tokens, self.advance(patches) if advance else patches, gathered


class HiTStage(nn.Module):
    """Layers of one width on one grid; every stage but the first begins with a 2x2 average pool.

    Where the width changes, one linear map without bias projects patches and class token.
    """

    def __init__(self, config: HiTConfig, stage: int, drop_path: list[float]) -> None:
        super().__init__()
        width, before = config.widths[stage], config.widths[max(stage - 1, 0)]
        self.index = stage
        self.pooled = stage > 0
        self.project: nn.Module = nn.Linear(before, width, bias=False) if width != before else nn.Identity()
        self.layers = nn.ModuleList(HiTLayer(config, width, rate) for rate in drop_path)

    def enter(self, patches: Float[Tensor, "b rows cols before"]) -> Float[Tensor, "b rows2 cols2 d"]:
        """Bring a grid of patches into this stage."""
        if self.pooled:
            b, rows, cols, width = patches.shape
            patches = patches.view(b, rows // 2, 2, cols // 2, 2, width).mean(dim=(2, 4))
        return self.project(patches)
