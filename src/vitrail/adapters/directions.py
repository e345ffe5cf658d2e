"""Directions in an embedding space, whose agreement with the embedding of an image is a logit."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import Output
from vitrail.core.types import Logits

FLAT = 16
"""Distance between normalized vectors, in units of rounding, below which they count as the same."""


@dataclass(frozen=True, eq=False)
class Directions:
    """A bank of directions: turns embeddings of images into logits.

    The logit of a class is `scale * similarity + bias`, of the direction of that class which the image is most similar to.

    Attributes:
        vectors: One or several directions per class, (k, d).
        classes: The class of every direction, (k,); every class from 0 to the largest has at least one.
        scale: Factor of the similarity.
        bias: Added to the logits: one for all classes, or one per class, (1,) or (c,).
        cosine: Whether the similarity is the cosine; else the inner product, as in a linear probe.
    """

    vectors: Float[Tensor, "k d"]
    classes: Int[Tensor, " k"]
    scale: float
    bias: Float[Tensor, " c"]
    cosine: bool = True

    def __post_init__(self) -> None:
        if (
            self.vectors.ndim != 2
            or self.classes.shape != self.vectors.shape[:1]
            or self.bias.shape not in ((1,), (self.num_classes,))
        ):
            raise InvalidInputError(
                "expected directions (k, d), a class of each, and one bias or one per class, got the shapes "
                f"{', '.join(str(tuple(part.shape)) for part in (self.vectors, self.classes, self.bias))}; check where they come from"
            )
        if not torch.isfinite(self.vectors).all() or not torch.isfinite(self.bias).all():
            raise InvalidInputError("expected directions of finite numbers, got others; check where they come from")
        if self.cosine and not bool((self.vectors.norm(dim=1) > 0).all()):
            raise InvalidInputError("expected directions that are not zero, got one of length 0; leave it out")
        present = self.classes.unique()
        if not torch.equal(present, torch.arange(len(present), device=present.device)):
            raise InvalidInputError(
                f"expected at least one direction for every class from 0, got classes {present.tolist()[:8]}"
            )

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return int(self.classes.max()) + 1

    @property
    def fingerprint(self) -> str:
        """A digest of all numbers, to tell comparisons apart."""
        digest = hashlib.sha256(f"{self.scale} {self.cosine}".encode())
        for values in (self.vectors, self.classes, self.bias):
            digest.update(f"{values.dtype} {tuple(values.shape)} {values.tolist()}".encode())
        return digest.hexdigest()[:32]

    def __call__(self, embeddings: Float[Tensor, "b d"]) -> Logits:
        """Return the logits of embedded images.

        Raises:
            InvalidInputError: The embeddings have another width than the directions.
        """
        if embeddings.shape[-1] != self.vectors.shape[1]:
            raise InvalidInputError(
                f"expected directions of {embeddings.shape[-1]} numbers, as the network's embeddings, got {self.vectors.shape[1]}; use "
                "those of the same model"
            )
        # By device and type: `to(embeddings)` would look as if the gradient of the embeddings were cut.
        device, dtype = embeddings.device, embeddings.dtype
        vectors = self.vectors.to(device, dtype)
        if self.cosine:
            embeddings, vectors = nn.functional.normalize(embeddings, dim=-1), nn.functional.normalize(vectors, dim=-1)
        similarity = embeddings @ vectors.T
        if self.cosine and similarity.requires_grad:
            # At its largest and smallest values, a cosine is flat, and its computed gradient is rounding error that looks like a map.
            flat = self._find_flat(embeddings.detach())
            similarity.register_hook(lambda gradient: gradient.masked_fill(flat, 0))
        if len(vectors) > self.num_classes:  # The nearest direction of every class decides.
            belongs = self.classes.to(vectors.device) == torch.arange(self.num_classes, device=vectors.device)[:, None]
            similarity = similarity[:, None].masked_fill(~belongs, float("-inf")).amax(-1)
        return self.scale * similarity + self.bias.to(device, dtype)

    def _find_flat(self, embeddings: Float[Tensor, "b d"]) -> Bool[Tensor, "b k"]:
        """Return which normalized embeddings have the same or the opposite direction as a vector, up to rounding."""
        tolerance = FLAT * torch.finfo(embeddings.dtype).eps
        wide = at_least_float32(embeddings)
        vectors = nn.functional.normalize(self.vectors.to(wide.device, wide.dtype), dim=-1)
        # Matrix products, by which `cdist` is faster, round away the small distances that are looked for.
        distances = [torch.cdist(wide, sign * vectors, compute_mode="donot_use_mm_for_euclid_dist") for sign in (1, -1)]
        return torch.minimum(*distances) < tolerance


class TextTower(ABC):
    """Abstract: embeds texts into the space of a network's image embeddings, as CLIP's text tower does."""

    module: Any
    """A model of images and texts with a `logit_scale` and, if it was trained with sigmoids as SigLIP, a `logit_bias`."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "k d"]:
        """Embed texts, without normalizing.

        Raises:
            InvalidInputError: A text does not fit the tower.
        """

    @property
    def scale(self) -> float:
        """Learned factor of cosine similarities."""
        return float(self.module.logit_scale.detach().exp())

    @property
    def bias(self) -> float:
        """Learned bias of the logits; 0 where there is none."""
        bias = getattr(self.module, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach())

    @property
    def output(self) -> Output:
        """How the model was trained: "softmax" over texts (CLIP), or "sigmoid" per text (SigLIP)."""
        # A bias makes sense for sigmoids only; a softmax would not see it.
        return "softmax" if getattr(self.module, "logit_bias", None) is None else "sigmoid"
