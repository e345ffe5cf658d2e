"""The base class of explanation methods, and the registry that lists them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import ClassVar, NamedTuple, get_type_hints

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Check, Classifier, ViTAdapter
from vitrail.adapters.cells import count_pixels, expand_cells
from vitrail.adapters.memory import split_into_batches
from vitrail.core.autocast import Precision, in_precision
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.float32 import at_least_float32
from vitrail.core.options import check_option
from vitrail.core.registry import Registry
from vitrail.core.types import Images, Logits, Relevance, Targets
from vitrail.explainers._checks import check_images, check_targets
from vitrail.explainers._gradients import graph_bytes
from vitrail.explainers._usable import explain_need_of_vit
from vitrail.explanation import Explanation


class Attribution(NamedTuple):
    """What a method computes for a batch.

    Attributes:
        logits: Logits of the images, (b, c).
        targets: The explained class of every image, (b,).
        relevance: Raw relevance, (b, rows, cols).
        bias: The part of the target logit that belongs to no patch, (b,); only for methods whose relevance plus bias sums
            to the logit.
        standard_error: Of the relevance, (b, rows, cols); only for methods that sample.
    """

    logits: Tensor
    targets: Tensor
    relevance: Tensor
    bias: Tensor | None = None
    standard_error: Tensor | None = None


ChooseTargets = Callable[[Logits], Targets]
"""Turns the model's logits into the class to explain, one per image."""


@dataclass(frozen=True, eq=False)
class Explainer(ABC):
    """An explanation method with its model and options.

    Methods are final, frozen dataclasses registered in `EXPLAINERS`; their fields after `model` are their options. A method
    implements `attribution`.

    Attributes:
        model: The network to explain.
        precision: "full" runs the network in the precision of its weights; "bf16" and "fp16" use torch's autocast, which is
            faster and changes the map a little.
    """

    model: Classifier
    precision: Precision = field(default="full", kw_only=True)

    paper: ClassVar[str]
    """Authors, year, arXiv number."""
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights", "parts", "head", "gradients")
    """Properties of the adapted network that the method relies on; they are verified before it runs."""
    needs_gradients: ClassVar[bool] = False
    needs_feature_map: ClassVar[bool] = False
    """Whether the method needs a feature map of networks that are no Vision Transformers."""
    needs_class: ClassVar[bool] = True
    """Whether relevance is that of a class. Methods without one explain networks that give an embedding, too."""
    needs_training: ClassVar[bool] = False
    gives_probabilities: ClassVar[bool] = False
    """Whether relevance is the probability of keeping a patch, so that masks need no rescaling."""
    is_control: ClassVar[bool] = False  # a yardstick for other methods
    batches_passes: ClassVar[bool] = False
    """Whether the method runs many passes and divides them into batches itself; for others, large batches of images are divided."""
    needs_model: ClassVar[str] = "any ViT"
    """Which networks the method supports, in words; "any" accepts every classifier."""

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        """Return why this method cannot explain a model, or None if it can."""
        return None if cls.needs_model == "any" or isinstance(model, ViTAdapter) else explain_need_of_vit(model)

    def __post_init__(self) -> None:
        reason = type(self).refusal(self.model)
        if self.needs_class and self.model.output == "embedding":
            reason = (
                "the method explains a class, and this network gives an embedding; give it classes by prompts, reference images, a probe "
                "or a direction (vitrail.similarity, or --prompts, --references, --probe)"
            ) + (", or choose attention or rollout" if isinstance(self.model, ViTAdapter) else "")
        if reason:
            raise UnsupportedModelError(f"{self.name} cannot explain {self.model.name}: {reason}")
        types = get_type_hints(type(self))
        for option in fields(self):
            check_option(option.name, getattr(self, option.name), types[option.name])

    @property
    def name(self) -> str:
        """Name of the method in results: the one it is registered under."""
        return next((name for name, method in EXPLAINERS.items() if method is type(self)), type(self).__name__)

    @property
    def vit(self) -> ViTAdapter:
        """The model as a Vision Transformer, for methods that refuse everything else."""
        return self.model  # type: ignore[return-value]

    @abstractmethod
    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        """Compute logits, targets and relevance of a batch, in a single pass where the method allows.

        Runs in evaluation mode, with gradients enabled if `needs_gradients`.

        Args:
            images: A checked batch.
            choose: Call it with the model's logits to get the class to explain for every image.
        """

    def explain(self, images: Images, target: int | str | Targets | None = None) -> Explanation:
        """Explain a batch.

        Args:
            images: A normalized batch on the model's device.
            target: A class index or name for all images, a class index per image, or None for the predicted class.

        Raises:
            InvalidInputError: Images that are not a finite batch, or targets that do not fit.
            UnknownNameError: No class has this name.
            UnsupportedModelError: The network does not have a property that the method relies on, or relevance is not finite.
        """
        check_images(images, self.model)
        with self._inspecting(), self.model.verified(*self.checks, like=images):
            # Tensors made in inference mode cannot get gradients.
            images = images.clone() if images.is_inference() else images.detach()
            attribution = self._attribute_in_batches(images, target)
        if not torch.isfinite(attribution.relevance).all():
            raise UnsupportedModelError(
                f"{self.name} gave relevance that is not finite on {self.model.name}: numbers overflow; use "
                "precision=full and float32 weights"
            )
        bias, error = attribution.bias, attribution.standard_error
        return Explanation(
            relevance=at_least_float32(attribution.relevance.detach()),
            targets=attribution.targets,
            logits=at_least_float32(attribution.logits.detach()),
            method=self.name,
            bias=None if bias is None else at_least_float32(bias.detach()),
            model=self.model.name,
            class_names=self.model.class_names,
            output=self.model.output,
            standard_error=None if error is None else at_least_float32(error.detach()),
        )

    def _attribute_in_batches(self, images: Images, target: int | str | Targets | None) -> Attribution:
        """Run `attribution` on as many images at a time as fit into memory; the images of a batch do not affect each other."""

        def run(batch: slice) -> Attribution:
            parts = self.attribution(
                images[batch], lambda logits: self._choose_targets(target, logits.detach(), len(images), batch)
            )
            # Without their graphs, which would fill the memory.
            return Attribution(*(None if part is None else part.detach() for part in parts))  # type: ignore[arg-type]

        if self.batches_passes:
            return run(slice(0, len(images)))
        bytes_each = self.model.bytes_per_image(images)
        bytes_kept = graph_bytes(self.model, images) if self.needs_gradients else 0
        return _join(split_into_batches(run, len(images), bytes_each, self.model.device, bytes_kept))

    def __call__(self, images: Images, targets: Targets) -> Relevance:
        """Return relevance for given classes; metrics call this for changed images or a changed model."""
        return self.explain(images, targets).relevance

    def placeholder_logits(self, images: Images, keep: Bool[Tensor, "b n"]) -> Logits | None:
        """Return logits with removed patches replaced by the method's own placeholder; None if it has none."""
        return None

    def trained_weights(self) -> Mapping[str, str]:
        """Return fingerprints of the method's trained weights by name; empty for methods that are not trained."""
        return {}

    @property
    def checks(self) -> list[Check]:
        """Properties of this network that are verified before the method runs."""
        return [
            check
            for check in self.relies_on
            if (self.needs_gradients if check == "gradients" else isinstance(self.model, ViTAdapter))
        ]

    @contextmanager
    def _inspecting(self) -> Iterator[None]:
        """Run the network in evaluation mode and in this precision, with gradients only if the method needs them."""
        with (
            torch.inference_mode(False),
            self.model.inspecting(),
            torch.set_grad_enabled(self.needs_gradients),
            in_precision(self.precision, self.model.device),
        ):
            yield

    def attribute(self, inputs: Images, target: int | Targets | None = None) -> Float[Tensor, "b channels height width"]:
        """Return attributions to pixels, with captum's signature: a patch's relevance is spread evenly over its pixels."""
        relevance = self.explain(inputs, target).relevance
        (_, num_channels, height, width), (_, rows, cols) = inputs.shape, relevance.shape
        num_pixels = count_pixels((height, width), (rows, cols), relevance.device)
        pixels = expand_cells(relevance, (height, width)) / (expand_cells(num_pixels, (height, width)) * num_channels)
        return pixels.unsqueeze(1).expand_as(inputs).clone()

    def _choose_targets(
        self, target: int | str | Targets | None, logits: Tensor, num_images: int, batch: slice
    ) -> Int[Tensor, " part"]:
        """Return the classes to explain for a batch of the images; a given list has one for every image."""
        self.model.check_logits(logits)
        if self.model.output == "embedding":
            if target is not None:
                raise InvalidInputError(f"expected no target for {self.model.name}, which gives an embedding, got {target!r}")
            return logits.new_zeros(len(logits), dtype=torch.long)
        if target is None:
            return logits.argmax(-1)
        if isinstance(target, bool):
            raise InvalidInputError(f"expected a class index or name as the target, got {target}")
        if isinstance(target, Integral | str):
            index = self.model.class_index(target if isinstance(target, str) else int(target))
            return torch.full((len(logits),), index, device=logits.device)
        try:
            targets = torch.as_tensor(target, device=logits.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"expected a class index or name, or {num_images} class indices, one per image, got {target!r}"
            ) from error
        targets = check_targets(targets, num_images, logits.shape[1])[batch]
        return targets.clone() if targets.is_inference() else targets


def _join(batches: Sequence[Attribution]) -> Attribution:
    """Join what was computed for parts of a batch."""
    if len(batches) == 1:
        return batches[0]
    # A method gives bias and standard error for all images or for none.
    return Attribution(*(None if parts[0] is None else torch.cat(parts) for parts in zip(*batches, strict=True)))  # type: ignore[arg-type]


EXPLAINERS: Registry[type[Explainer]] = Registry("method")
"""All methods by their public names."""
