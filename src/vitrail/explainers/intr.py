"""INTR's own explanation: where the query of a class looked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Int
from torch import Tensor

from vitrail.adapters import Check, Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images, Logits
from vitrail.explainers._checks import check_images
from vitrail.explainers._precision import at_least_single
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer
from vitrail.models.intr import INTR

ChooseClasses = Callable[[Logits], Int[Tensor, "b k"]]
"""From the model's logits to some classes per image."""


class QueryAttention(NamedTuple):
    """Where some classes looked.

    Attributes:
        logits: What the model said, (b, c).
        maps: Per class asked for and head, (b, k, h, rows, cols); each sums to 1.
    """

    logits: Tensor
    maps: Tensor


@EXPLAINERS.register("intr")
@final
@dataclass(frozen=True, eq=False)
class INTRQueries(OwnPassExplainer):
    """How much of every cell the query of a class takes, mean over heads: its cross-attention. It sums to 1.

    Args:
        model: An INTR.
        layer: Of the decoder; from behind if negative.
        head: One of them instead of the mean.

    Source: Paul et al. 2024, section 3.3, arXiv:2311.04157.

    Differs: Weights are computed for the layer and the classes that are asked for, from what they asked in an ordinary pass.
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
        return "only an INTR has queries that look for classes; train one, or choose a method for any ViT"

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
        """The model's network."""
        return self.model.module  # type: ignore[return-value]  # `refusal` made sure

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        search = self.intr.search(self.intr.encode(images))
        targets = choose(search.logits)
        maps = self.intr.attention(search, self.layer, targets.unsqueeze(1))[:, 0]
        return Attribution(search.logits, targets, maps.mean(1) if self.head is None else maps[:, self.head])

    def maps(self, images: Images, classes: Int[Tensor, "b k"] | ChooseClasses) -> QueryAttention:
        """Where several classes looked, per head, so that their evidence can be compared.

        Args:
            images: A normalized batch on the model's device.
            classes: Those asked for, per image; or what chooses them by the logits, so that one pass is enough.

        Raises:
            InvalidInputError: Images that are not finite or not a batch, or classes that do not exist.
        """
        check_images(images, self.model)
        num_classes = self.model.num_classes
        with torch.inference_mode(False), self.model.inspecting(), torch.no_grad(), self._autocast():
            search = self.intr.search(self.intr.encode(images.clone() if images.is_inference() else images))
            logits = at_least_single(search.logits)
            chosen = classes if isinstance(classes, Tensor) else classes(logits)
            exist = chosen.ndim == 2 and not chosen.is_floating_point() and bool(((chosen >= 0) & (chosen < num_classes)).all())
            if not exist or len(chosen) != len(images):
                raise InvalidInputError(
                    f"expected some classes between 0 and {num_classes - 1} for each of {len(images)} images, got {chosen.tolist()}"
                )
            maps = self.intr.attention(search, self.layer, chosen.to(images.device))
        return QueryAttention(logits, at_least_single(maps))
