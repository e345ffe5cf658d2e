"""INTR's built-in explanation: the cross-attention of a class's own query."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

from jaxtyping import Int
from torch import Tensor

from vitrail.adapters import Check, Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Images, Logits
from vitrail.explainers._checks import check_images
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer
from vitrail.models.intr import INTR

ChooseClasses = Callable[[Logits], Int[Tensor, "b k"]]
"""Turns the model's logits into several classes per image."""


class QueryAttention(NamedTuple):
    """Cross-attention of the queries of several classes.

    Attributes:
        logits: Logits of the images, (b, c).
        maps: Attention per class and head, (b, k, h, rows, cols); each map sums to 1.
    """

    logits: Tensor
    maps: Tensor


@EXPLAINERS.register("intr")
@final
@dataclass(frozen=True, eq=False)
class INTRQueries(Explainer):
    """Cross-attention of the target class's query to every cell, averaged over heads. The map sums to 1.

    Args:
        model: An INTR.
        layer: Decoder layer; negative numbers count from the last.
        head: Use a single head instead of the mean.

    Source: Paul et al. 2024, section 3.3, arXiv:2311.04157.

    Differs: attention is computed only for the requested layer and classes, from the queries of an ordinary forward pass.
    """

    layer: int = -1
    head: int | None = None

    paper: ClassVar[str] = "Paul et al. 2024, arXiv:2311.04157"
    needs_model: ClassVar[str] = "INTR"
    relies_on: ClassVar[tuple[Check, ...]] = ()

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        if isinstance(model.module, INTR):
            return None
        return "only an INTR has queries for classes; train an INTR, or choose another method"

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.intr.config
        if not -config.decoder_depth <= self.layer < config.decoder_depth:
            raise InvalidInputError(
                f"expected a layer between {-config.decoder_depth} and {config.decoder_depth - 1}, got {self.layer}"
            )
        if self.head is not None and not 0 <= self.head < config.num_heads:
            raise InvalidInputError(f"expected a head between 0 and {config.num_heads - 1}, got {self.head}")

    @property
    def intr(self) -> INTR:
        """The network, an INTR."""
        return self.model.module  # type: ignore[return-value]  # checked by `refusal`

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        search = self.intr.search(self.intr.encode(images))
        targets = choose(search.logits)
        maps = self.intr.attention(search, self.layer, targets.unsqueeze(1))[:, 0]
        return Attribution(search.logits, targets, maps.mean(1) if self.head is None else maps[:, self.head])

    def maps(self, images: Images, classes: Int[Tensor, "b k"] | ChooseClasses) -> QueryAttention:
        """Return the cross-attention of several classes per head, to compare their evidence.

        Args:
            images: A normalized batch on the model's device.
            classes: Classes per image, or a function that chooses them by the logits, so that a single pass is enough.

        Raises:
            InvalidInputError: Images that are not a finite batch, or classes that do not exist.
        """
        check_images(images, self.model)
        num_classes = self.model.num_classes
        with self._inspecting():
            search = self.intr.search(self.intr.encode(images.clone() if images.is_inference() else images))
            logits = at_least_float32(search.logits)
            chosen = classes if isinstance(classes, Tensor) else classes(logits)
            valid = chosen.ndim == 2 and not chosen.is_floating_point() and bool(((chosen >= 0) & (chosen < num_classes)).all())
            if not valid or len(chosen) != len(images):
                raise InvalidInputError(
                    f"expected one or more classes between 0 and {num_classes - 1} for each of {len(images)} images, got {chosen.tolist()}"
                )
            maps = self.intr.attention(search, self.layer, chosen.to(images.device))
        return QueryAttention(logits, at_least_float32(maps))
