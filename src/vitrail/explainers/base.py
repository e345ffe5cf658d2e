"""The frame around every method: what a method writes is `relevance`, everything else is here."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, get_type_hints

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.adapters import Check, Classifier, ViTAdapter
from vitrail.core.autocast import Precision, in_precision
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.registry import Registry
from vitrail.core.types import Images, Logits, Relevance, Targets
from vitrail.explainers._checks import check_images, check_targets, expect_kind
from vitrail.explainers._precision import at_least_single
from vitrail.explanation import Explanation


class Attribution(NamedTuple):
    """What a method found in a batch.

    Attributes:
        logits: What the model said, (b, c).
        targets: The explained class of every image, (b,).
        relevance: Raw relevance, (b, rows, cols).
        bias: What belongs to no patch, (b,), where the method accounts for the whole logit.
    """

    logits: Tensor
    targets: Tensor
    relevance: Tensor
    bias: Tensor | None = None


ChooseTargets = Callable[[Logits], Targets]
"""From the model's logits to the checked class to explain, one per image."""


@dataclass(frozen=True, eq=False)
class Explainer(ABC):
    """A method, tied to a model and its options. Methods are final, frozen dataclasses registered in `EXPLAINERS`.

    Attributes:
        model: The network to explain.
        precision: "full" runs the network in the precision of its weights; "bf16" and "fp16" by torch's autocast: faster, and
            the map changes a little.
    """

    model: Classifier
    precision: Precision = field(default="full", kw_only=True)

    paper: ClassVar[str]
    """Authors, year, arXiv number."""
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights", "parts", "head", "gradients")
    """Views of the network that the method takes for true; they are checked before it runs."""
    needs_gradients: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    gives_probabilities: ClassVar[bool] = False
    """Whether relevance is the probability that a patch is to be kept: a mask then needs no scale of its own."""
    needs_model: ClassVar[str] = "any ViT"
    """Which networks it works on, in words; "any" lets every classifier in."""

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        """Why this method cannot explain this model, or None where it can."""
        return None if cls.needs_model == "any" or isinstance(model, ViTAdapter) else "it needs a Vision Transformer"

    def __post_init__(self) -> None:
        reason = type(self).refusal(self.model)
        if reason:
            raise UnsupportedModelError(f"{self.name} cannot explain {self.model.name}: {reason}")
        for option in fields(self):
            expect_kind(option.name, getattr(self, option.name), get_type_hints(type(self))[option.name])

    @property
    def name(self) -> str:
        """The method's name in results."""
        return method_name(type(self))

    @property
    def vit(self) -> ViTAdapter:
        """The model as a Vision Transformer, for the methods that refuse everything else."""
        return self.model  # type: ignore[return-value]

    @abstractmethod
    def relevance(self, images: Images, targets: Targets) -> Relevance:
        """Relevance of every patch for one class per image; called in evaluation mode, gradients as the method needs them.

        Args:
            images: A checked batch.
            targets: A checked class per image.
        """

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        """Logits, targets and relevance of a checked batch. See `OwnPassExplainer` for methods that write this instead."""
        with torch.no_grad():
            logits = self.model.logits(images)
        targets = choose(logits)
        return Attribution(logits, targets, self.relevance(images, targets))

    def explain(self, images: Images, target: int | str | Targets | None = None) -> Explanation:
        """Explain a batch.

        Args:
            images: A normalized batch on the model's device.
            target: A class index or name for all images, a class index per image, or None for the predicted class.

        Raises:
            InvalidInputError: Images that are not finite or not a batch, or targets that do not fit.
            UnknownNameError: No class of that name.
        """
        check_images(images, self.model)
        # In inference mode there are no gradients, and of its tensors none can be asked for.
        with (
            torch.inference_mode(False),
            self.model.inspecting(),
            self.model.verified(*self.checks, like=images),
            torch.set_grad_enabled(self.needs_gradients),
            self._autocast(),
        ):
            images = images.clone() if images.is_inference() else images.detach()
            found = self.attribution(images, lambda logits: self._targets(target, logits.detach()))
        if not torch.isfinite(found.relevance).all():
            raise UnsupportedModelError(
                f"{self.name} gave relevance that is not finite on {self.model.name}: numbers overflow; use "
                "precision=full and float32 weights"
            )
        return Explanation(
            relevance=at_least_single(found.relevance.detach()),
            targets=found.targets,
            logits=at_least_single(found.logits.detach()),
            method=self.name,
            bias=None if found.bias is None else at_least_single(found.bias.detach()),
            model=self.model.name,
            class_names=self.model.class_names,
            output=self.model.output,
        )

    def __call__(self, images: Images, targets: Targets) -> Relevance:
        """Relevance for given classes: what a metric asks for, of other images or of the model while it is changed."""
        return self.explain(images, targets).relevance

    def logits_without(self, images: Images, keep: Bool[Tensor, "b n"]) -> Logits | None:
        """Logits where removed patches are what the method itself puts in their place; None for a method that has nothing."""
        return None

    def learned(self) -> Mapping[str, str]:
        """What tells its trained weights from others; nothing for a method that is not trained."""
        return {}

    @property
    def checks(self) -> list[Check]:
        """Views of this network that are checked before the method runs."""
        if not isinstance(self.model, ViTAdapter):
            return []
        return [check for check in self.relies_on if check != "gradients" or self.needs_gradients]

    def _autocast(self) -> AbstractContextManager[Any]:
        return in_precision(self.precision, self.model.device)

    def attribute(self, inputs: Images, target: int | Targets | None = None) -> Float[Tensor, "b channels height width"]:
        """captum's signature: relevance spread over the pixels of its patches, so that sums are kept."""
        relevance = self.explain(inputs, target).relevance
        row_of, col_of = (
            torch.arange(pixels, device=relevance.device) * cells // pixels
            for pixels, cells in zip(inputs.shape[-2:], relevance.shape[-2:], strict=True)
        )
        # Where cells do not divide the image evenly, some hold a pixel more than others.
        area = row_of.bincount()[row_of][:, None] * col_of.bincount()[col_of]
        pixels = relevance[:, row_of][:, :, col_of] / (area * inputs.shape[1])
        return pixels.unsqueeze(1).expand_as(inputs).clone()

    def _targets(self, target: int | str | Targets | None, logits: Tensor) -> Targets:
        self.model.check_logits(logits)
        if target is None:
            return logits.argmax(-1)
        if isinstance(target, Integral | str):
            index = self.model.class_index(target if isinstance(target, str) else int(target))
            return torch.full((len(logits),), index, device=logits.device)
        try:
            targets = torch.as_tensor(target, device=logits.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"expected a class index or name, or {len(logits)} class indices, one per image, got {target!r}"
            ) from error
        checked = check_targets(targets, logits)
        return checked.clone() if checked.is_inference() else checked


@dataclass(frozen=True, eq=False)
class OwnPassExplainer(Explainer):
    """Abstract: a method that runs the network itself and so meets the logits on its way; it writes `attribution`."""

    @abstractmethod
    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution: ...

    def relevance(self, images: Images, targets: Targets) -> Relevance:
        return self.attribution(images, lambda logits: targets).relevance


EXPLAINERS: Registry[type[Explainer]] = Registry("method")
"""Every method by its public name."""


def method_name(method: type[Explainer]) -> str:
    """The name that a method is registered under."""
    return next((name for name, entry in EXPLAINERS.items() if entry is method), method.__name__)


def distinct_names(explainers: Sequence[Explainer]) -> list[str]:
    """The names of methods, under which their results are kept apart.

    Raises:
        InvalidInputError: None is given, or one twice.
    """
    names = [explainer.name for explainer in explainers]
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"expected at least one method, each once, got {', '.join(names) or 'none'}")
    return names


def make_explainer(name: str, model: Classifier, **options: Any) -> Explainer:
    """Build a method by name.

    Raises:
        UnknownNameError: No such method.
        UnsupportedModelError: The method cannot explain this model.
        InvalidInputError: An option that the method does not have.
    """
    method = EXPLAINERS[name]
    known = [field.name for field in fields(method) if field.name != "model"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidInputError(
            f"method {name!r} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}"
        )
    return method(model, **options)
