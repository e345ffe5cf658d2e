"""The network of INTR."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images, Logits, Padding
from vitrail.models.checkpoints import load_strictly
from vitrail.models.intr.backbone import Backbone, Features
from vitrail.models.intr.config import INTRConfig
from vitrail.models.intr.layers import DecoderLayer, EncoderLayer
from vitrail.models.intr.positions import CellPadding, LearnedPositions, SinePositions
from vitrail.models.intr.published import to_own_names


class Memory(NamedTuple):
    """An encoded batch of images.

    Attributes:
        cells: (b, n, d), row by row.
        padding: (b, n), True where a cell is padding; None without padding.
        grid_size: Rows and columns.
    """

    cells: Tensor
    padding: Tensor | None
    grid_size: tuple[int, int]


class Search(NamedTuple):
    """Output of the decoder for a batch.

    Attributes:
        logits: (b, c).
        states: State of every class after every layer and the final norm, (l, b, c, d).
        cross_queries: Queries of every layer's cross-attention to the image, (l, b, c, d).
        memory: The encoded images.
    """

    logits: Tensor
    states: Tensor
    cross_queries: Tensor
    memory: Memory


class INTR(nn.Module):
    """Interpretable transformer: every class has its own query, which searches the image for it.

    One presence vector, shared by all classes, turns the final state of each query into a logit. So the cross-attention of a query
    shows where the evidence for its class comes from.

    Args:
        config: The configuration.
        backbone: Turns images into features; `vitrail.adapters.build` creates both from a name.

    Source: Paul et al., "A Simple Interpretable Transformer for Fine-Grained Image Classification and Analysis", ICLR 2024,
        arXiv:2311.04157; Carion et al. 2020, arXiv:2005.12872.

    Differs: Supports any backbone. Attention maps are computed on demand, for the chosen layers and classes, without slowing or
        changing the forward pass. The mean over heads sums to 1, also with `pre_norm` (the published code averages maps of queries
        without their norm).
    """

    def __init__(self, config: INTRConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.projection = nn.Conv2d(backbone.num_features, config.width, 1)
        self.positions = (SinePositions if config.positions == "sine" else LearnedPositions)(config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_depth))
        self.encoder_norm = nn.LayerNorm(config.width) if config.pre_norm else nn.Identity()
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(config.width)
        self.queries = nn.Parameter(torch.randn(config.num_classes, config.width))
        self.presence = nn.Linear(config.width, 1)
        nn.init.xavier_uniform_(self.presence.weight)
        nn.init.zeros_(self.presence.bias)

    def encode(self, images: Images, padding: Padding | None = None) -> Memory:
        """Encode a batch.

        Args:
            images: Of one size, or padded to one.
            padding: True where a pixel is padding.

        Raises:
            InvalidInputError: The images have another number of channels, or the padding has another size.
        """
        if images.shape[1] != 3:
            raise InvalidInputError(f"expected images of 3 channels, got {images.shape[1]}")
        if padding is not None and padding.shape != (len(images), *images.shape[2:]):
            raise InvalidInputError(
                f"expected a padding of shape {(len(images), *images.shape[2:])}, one per pixel, got {tuple(padding.shape)}"
            )
        images, padding = self._pad_to_one_cell(images, padding)
        features = self.backbone(images)
        if padding is None:
            return self.encode_features(features)
        cells = nn.functional.interpolate(padding[:, None].float(), size=features.shape[2:])[:, 0].bool()
        return self.encode_features(features, cells)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the cells of an image; at least one each.

        Raises:
            InvalidInputError: The backbone does not take images of this size.
        """
        stride = self.backbone.stride
        return self.backbone.grid_size(max(height, stride), max(width, stride))

    def _pad_to_one_cell(self, images: Images, padding: Padding | None) -> tuple[Tensor, Tensor | None]:
        """Pad images that are smaller than a cell."""
        missing = [max(self.backbone.stride - side, 0) for side in images.shape[2:]]
        if not any(missing):
            return images, padding
        mask = torch.zeros_like(images[:, 0], dtype=torch.bool) if padding is None else padding
        margins = (0, missing[1], 0, missing[0])
        return nn.functional.pad(images, margins), nn.functional.pad(mask, margins, value=True)

    def encode_features(self, features: Features, padding: CellPadding | None = None) -> Memory:
        """Encode the backbone's features; see `encode`."""
        rows, cols = features.shape[2:]
        no_padding = torch.zeros(1, rows, cols, dtype=torch.bool, device=features.device)
        positions = self.positions(no_padding if padding is None else padding).to(features.dtype).flatten(2).mT
        cells, flat = self.projection(features).flatten(2).mT, None if padding is None else padding.flatten(1)
        for layer in self.encoder:
            cells = layer(cells, positions.expand(len(cells), -1, -1), flat)
        return Memory(self.encoder_norm(cells), flat, (rows, cols))

    def search(self, memory: Memory) -> Search:
        """Run the decoder: every class searches the image for itself."""
        queries = self.queries.expand(len(memory.cells), -1, -1)
        state, states, cross_queries = torch.zeros_like(queries), list[Tensor](), list[Tensor]()
        for layer in self.decoder:
            state, layer_queries = layer(state, queries, memory.cells, memory.padding)
            states.append(self.decoder_norm(state))
            cross_queries.append(layer_queries)
        return Search(self.score_presence(states[-1]), torch.stack(states), torch.stack(cross_queries), memory)

    def score_presence(self, states: Float[Tensor, "*b c d"]) -> Float[Tensor, "*b c"]:
        """Turn states of the classes, after the last or an earlier layer, into logits."""
        logits: Tensor = self.presence(states)
        return logits.squeeze(-1)

    def forward(self, images: Images, padding: Padding | None = None) -> Logits:
        """Logits; see `encode`."""
        return self.search(self.encode(images, padding)).logits

    def attention(
        self, search: Search, layer: int, classes: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b k h rows cols"]:
        """Return the cross-attention of class queries over the cells of the image, per head.

        Args:
            search: Output of `search`.
            layer: Index of the decoder layer; negative indices count from the end.
            classes: Classes per image; None for all.

        Returns:
            Maps that sum to 1 over the cells of an image; padding has 0.
        """
        queries = search.cross_queries[layer]
        if classes is not None:
            queries = queries.gather(1, classes.unsqueeze(-1).expand(-1, -1, queries.shape[-1]))
        memory = search.memory
        maps: Tensor = self.decoder[layer].cross_attention.weights(queries, memory.cells, memory.padding)  # type: ignore[union-attr, operator]
        return maps.transpose(1, 2).unflatten(-1, memory.grid_size)

    def load_published(self, state: Mapping[str, Tensor], source: str = "the weights") -> "INTR":
        """Copy weights under the published names.

        Raises:
            CheckpointError: They do not fit; the model is unchanged.
        """
        load_strictly(self, to_own_names(state), source)
        return self
