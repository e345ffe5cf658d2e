"""Encoder and decoder layers of INTR: attention and MLP in residual branches, with norms before or after."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.types import Tokens
from vitrail.models.intr.attention import Attention, KeyPadding
from vitrail.models.intr.config import INTRConfig

Queries = Float[Tensor, "b c d"]


class Layer(nn.Module):
    """Abstract: a layer of residual branches.

    Args:
        config: Configuration of the network.
        num_branches: Number of branches, each with its norm.
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

    def branch(self, number: int, tokens: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Add the output of a branch to the tokens, and normalize before or after."""
        norm = self.norms[number]
        if self.pre_norm:
            return tokens + self.dropout(function(norm(tokens)))
        normalized: Tensor = norm(tokens + self.dropout(function(tokens)))
        return normalized


class EncoderLayer(Layer):
    """Cells attend to each other; positions are added to queries and keys, not to values."""

    def __init__(self, config: INTRConfig) -> None:
        super().__init__(config, 2)
        self.attention = Attention(config.width, config.num_heads, config.dropout)

    def forward(self, cells: Tokens, positions: Tokens, padding: KeyPadding | None) -> Tokens:
        def attend(x: Tensor) -> Tensor:
            with_positions = x + positions
            attended: Tensor = self.attention(with_positions, with_positions, x, padding)
            return attended

        return self.branch(1, self.branch(0, cells, attend), self.mlp)


class DecoderLayer(Layer):
    """Classes attend to each other, then to the image, whose cells have no positions here."""

    def __init__(self, config: INTRConfig) -> None:
        super().__init__(config, 3)
        self.attention = Attention(config.width, config.num_heads, config.dropout)
        self.cross_attention = Attention(config.width, config.num_heads, config.dropout)

    def forward(self, states: Queries, queries: Queries, memory: Tokens, padding: KeyPadding | None) -> tuple[Queries, Queries]:
        """Return the states of the classes after this layer, and the queries of its cross-attention."""
        cross_queries = []

        def attend_to_classes(x: Tensor) -> Tensor:
            attended: Tensor = self.attention(x + queries, x + queries, x)
            return attended

        def attend_to_image(x: Tensor) -> Tensor:
            cross_queries.append(x + queries)
            attended: Tensor = self.cross_attention(cross_queries[0], memory, memory, padding)
            return attended

        states = self.branch(1, self.branch(0, states, attend_to_classes), attend_to_image)
        return self.branch(2, states, self.mlp), cross_queries[0]
