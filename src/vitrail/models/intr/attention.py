"""Attention of queries on cells, with weights for those who ask."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitrail.core.types import Attentions

KeyPadding = Bool[Tensor, "b k"]
"""Which keys are no part of the image."""


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values come from three sources.

    Args:
        width: Of all tokens.
        num_heads: Divides the width.
        dropout: On attention weights, in training.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            # As one matrix of three times the width would be drawn, which is how it is published.
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
        """What every query takes from the values; padded keys give nothing."""
        gathered = nn.functional.scaled_dot_product_attention(
            self._heads(self.query(queries)),
            self._heads(self.key(keys)),
            self._heads(self.value(values)),
            attn_mask=None if padding is None else ~padding[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        taken: Tensor = self.output(gathered.transpose(1, 2).flatten(2))
        return taken

    def weights(
        self, queries: Float[Tensor, "b q d"], keys: Float[Tensor, "b k d"], padding: KeyPadding | None = None
    ) -> Attentions:
        """How much of every key a query takes; over the keys it sums to 1, and padded ones have 0."""
        asked, offered = self._heads(self.query(queries)), self._heads(self.key(keys))
        scores = asked @ offered.mT * asked.shape[-1] ** -0.5
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], -torch.inf)
        return scores.softmax(-1)

    def _heads(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t each"]:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
