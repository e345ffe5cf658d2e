"""Encoder and decoder layers: attention and MLP around residual branches, norms in front or behind."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.types import Tokens
from vitrail.models.intr.attention import Attention, KeyPadding
from vitrail.models.intr.config import INTRConfig

Queries = Float[Tensor, "b c d"]


class Layer(nn.Module):
    """Abstract: the residual branches of a layer.

    Args:
        config: The network's shape.
        num_branches: As many as there are norms.
    """

    def __init__(self, config: INTRConfig, num_branches: int) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(num_branches))
        self.dropout = nn.Dropout(config.dropout)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_width, config.width),
        )
        for linear in (self.mlp[0], self.mlp[3]):
            nn.init.xavier_uniform_(linear.weight)  # type: ignore[arg-type]  # both are linear

    def branch(self, number: int, tokens: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Add what a branch makes of the tokens, and normalize on the one side or the other."""
        norm = self.norms[number]
        if self.pre_norm:
            return tokens + self.dropout(change(norm(tokens)))
        normalized: Tensor = norm(tokens + self.dropout(change(tokens)))
        return normalized


class EncoderLayer(Layer):
    """Cells attend to each other; positions are part of queries and keys, not of values."""

    def __init__(self, config: INTRConfig) -> None:
        super().__init__(config, 2)
        self.attention = Attention(config.width, config.num_heads, config.dropout)

    def forward(self, cells: Tokens, positions: Tokens, padding: KeyPadding | None) -> Tokens:
        def attend(x: Tensor) -> Tensor:
            placed = x + positions
            taken: Tensor = self.attention(placed, placed, x, padding)
            return taken

        return self.branch(1, self.branch(0, cells, attend), self.mlp)


class DecoderLayer(Layer):
    """Classes attend to each other, then each to the image, whose cells have no positions here."""

    def __init__(self, config: INTRConfig) -> None:
        super().__init__(config, 3)
        self.attention = Attention(config.width, config.num_heads, config.dropout)
        self.cross_attention = Attention(config.width, config.num_heads, config.dropout)

    def forward(self, found: Queries, queries: Queries, memory: Tokens, padding: KeyPadding | None) -> tuple[Queries, Queries]:
        """What every class has found after this layer, and what it asked the image for."""
        asked = []

        def compare(x: Tensor) -> Tensor:
            taken: Tensor = self.attention(x + queries, x + queries, x)
            return taken

        def look(x: Tensor) -> Tensor:
            asked.append(x + queries)
            taken: Tensor = self.cross_attention(asked[0], memory, memory, padding)
            return taken

        found = self.branch(1, self.branch(0, found, compare), look)
        return self.branch(2, found, self.mlp), asked[0]
