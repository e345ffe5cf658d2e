"""Multi-head attention with optional access to its weights."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitrail.core.types import Attentions

KeyPadding = Bool[Tensor, "b k"]
"""Keys that are padding; True = padding."""


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values come from three sources.

    Args:
        width: Width of all tokens.
        num_heads: Number of heads; divides the width.
        dropout: Dropout on attention weights, in training.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            # As published: initialized as one matrix of three times the width.
            nn.init.xavier_uniform_(layer.weight, gain=2**-0.5)
        nn.init.xavier_uniform_(self.output.weight)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        keys: Float[Tensor, "b k d"],
        values: Float[Tensor, "b k d"],
        padding: KeyPadding | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Return the attended values of every query; padded keys are ignored."""
        attended = nn.functional.scaled_dot_product_attention(
            self._split_heads(self.query(queries)),
            self._split_heads(self.key(keys)),
            self._split_heads(self.value(values)),
            attn_mask=None if padding is None else ~padding[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output

    def weights(
        self, queries: Float[Tensor, "b q d"], keys: Float[Tensor, "b k d"], padding: KeyPadding | None = None
    ) -> Attentions:
        """Return attention weights; they sum to 1 over the keys, and padded keys have 0."""
        query, key = self._split_heads(self.query(queries)), self._split_heads(self.key(keys))
        scores = query @ key.mT * query.shape[-1] ** -0.5
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], -torch.inf)
        return scores.softmax(-1)

    def _split_heads(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t e"]:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
