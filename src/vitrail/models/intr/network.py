"""The network itself."""

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
    """An encoded batch.

    Attributes:
        cells: (b, n, d), row by row.
        padding: (b, n), True where a cell is no part of its image; None where all of them are.
        grid_size: Rows and columns.
    """

    cells: Tensor
    padding: Tensor | None
    grid_size: tuple[int, int]


class Search(NamedTuple):
    """What the classes looked for in a batch, and found.

    Attributes:
        logits: (b, c).
        found: After every layer, behind the final norm, (l, b, c, d).
        asked: What every class asked the image for in every layer, (l, b, c, d): the queries of cross-attention.
        memory: The image.
    """

    logits: Tensor
    found: Tensor
    asked: Tensor
    memory: Memory


class INTR(nn.Module):
    """Interpretable transformer: every class has a query of its own that looks for it in the image.

    A logit says how much of its class the query has found; one vector, the same for all classes, reads it off. So what a class
    looks at, the cross-attention of its query, is where its evidence was taken from.

    Args:
        config: The shape.
        backbone: What turns images into features; `vitrail.adapters.build` makes both from a name.

    Source: Paul et al., "A Simple Interpretable Transformer for Fine-Grained Image Classification and Analysis", ICLR 2024,
        arXiv:2311.04157; Carion et al. 2020, arXiv:2005.12872.

    Differs: Any backbone. Attention maps are computed after the fact, for the layers and classes asked for, and do not slow down
        nor change the forward pass. The mean over heads is one, also with norms in front (the published code averages maps of
        queries without their norm).
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
            InvalidInputError: Images of another number of channels, or a padding of another size.
        """
        if images.shape[1] != 3:
            raise InvalidInputError(f"expected images of 3 channels, got {images.shape[1]}")
        if padding is not None and padding.shape != (len(images), *images.shape[2:]):
            raise InvalidInputError(
                f"expected a padding of shape {(len(images), *images.shape[2:])}, one per pixel, got {tuple(padding.shape)}"
            )
        images, padding = self._at_least_a_cell(images, padding)
        features = self.backbone(images)
        if padding is None:
            return self.encode_features(features)
        cells = nn.functional.interpolate(padding[:, None].float(), size=features.shape[2:])[:, 0].bool()
        return self.encode_features(features, cells)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the cells of an image; one of less than a cell has one.

        Raises:
            InvalidInputError: The backbone takes no images of this size.
        """
        stride = self.backbone.stride
        return self.backbone.grid_size(max(height, stride), max(width, stride))

    def _at_least_a_cell(self, images: Images, padding: Padding | None) -> tuple[Tensor, Tensor | None]:
        """Fill up images of less than a cell, as small images of a batch are."""
        lacking = [max(self.backbone.stride - side, 0) for side in images.shape[2:]]
        if not any(lacking):
            return images, padding
        known = torch.zeros_like(images[:, 0], dtype=torch.bool) if padding is None else padding
        below_and_beside = (0, lacking[1], 0, lacking[0])
        return nn.functional.pad(images, below_and_beside), nn.functional.pad(known, below_and_beside, value=True)

    def encode_features(self, features: Features, padding: CellPadding | None = None) -> Memory:
        """Encode the backbone's features; see `encode`."""
        rows, cols = features.shape[2:]
        everywhere = torch.zeros(1, rows, cols, dtype=torch.bool, device=features.device)
        positions = self.positions(everywhere if padding is None else padding).to(features.dtype).flatten(2).mT
        cells, flat = self.projection(features).flatten(2).mT, None if padding is None else padding.flatten(1)
        for layer in self.encoder:
            cells = layer(cells, positions.expand(len(cells), -1, -1), flat)
        return Memory(self.encoder_norm(cells), flat, (rows, cols))

    def search(self, memory: Memory) -> Search:
        """Let every class look for itself."""
        queries = self.queries.expand(len(memory.cells), -1, -1)
        state, found, asked = torch.zeros_like(queries), list[Tensor](), list[Tensor]()
        for layer in self.decoder:
            state, question = layer(state, queries, memory.cells, memory.padding)
            found.append(self.decoder_norm(state))
            asked.append(question)
        return Search(self.read(found[-1]), torch.stack(found), torch.stack(asked), memory)

    def read(self, found: Float[Tensor, "*b c d"]) -> Float[Tensor, "*b c"]:
        """How much of its class every query has found: the logits, also those of earlier layers."""
        logits: Tensor = self.presence(found)
        return logits.squeeze(-1)

    def forward(self, images: Images, padding: Padding | None = None) -> Logits:
        """Logits; see `encode`."""
        return self.search(self.encode(images, padding)).logits

    def attention(
        self, search: Search, layer: int, classes: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b k h rows cols"]:
        """Where classes looked: the cross-attention of their queries, per head.

        Args:
            search: Of a batch.
            layer: Of the decoder; from behind if negative.
            classes: Per image, the classes asked for; None for all of them.

        Returns:
            Over the cells of an image every map sums to 1; padding has 0.
        """
        asked = search.asked[layer]
        if classes is not None:
            asked = asked.gather(1, classes.unsqueeze(-1).expand(-1, -1, asked.shape[-1]))
        memory = search.memory
        maps: Tensor = self.decoder[layer].cross_attention.weights(asked, memory.cells, memory.padding)  # type: ignore[union-attr, operator]
        return maps.transpose(1, 2).unflatten(-1, memory.grid_size)

    def load_published(self, state: Mapping[str, Tensor], source: str = "the weights") -> "INTR":
        """Copy weights under the published names.

        Raises:
            CheckpointError: They do not fit; the model is unchanged then.
        """
        load_strictly(self, to_own_names(state), source)
        return self
