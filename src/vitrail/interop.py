"""Our explainers as captum, Quantus and pytorch-grad-cam call them, and captum's methods as ours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import signature
from operator import index
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.adapters import Check, Classifier, adapt
from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.core.types import Images, Logits, Relevance, Targets
from vitrail.explainers import Explainer


@final
class LogitsModule(nn.Module):
    """A classifier as a module from images to logits, for libraries that want one, whatever its own network returns.

    Its network becomes a submodule. A deep copy carries a classifier of its own, tied to the copied network.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.module, self.classifier = classifier.module, classifier
        self.training = classifier.module.training

    def forward(self, images: Images) -> Logits:
        return self.classifier.logits(images)


def as_captum(explainer: Explainer) -> Any:
    """An explainer as a `captum.attr.Attribution`, for captum's metrics and `captum.attr.NoiseTunnel`.

    Its `attribute(inputs, target=None)` spreads relevance over the pixels of its patches, so that sums are kept. The target is a class
    for all images, one per image, or None: then the predicted class, in NoiseTunnel and `sensitivity_max` that of every noisy image.

    Raises:
        MissingExtraError: captum is not installed.
    """
    return _captum_view()(explainer)


def _captum(feature: str) -> Any:
    try:
        import captum.attr  # noqa: PLC0415
        import captum.log  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(feature, "captum") from error
    return captum


@cache
def _captum_view() -> type:
    captum = _captum("as_captum")

    @final
    class CaptumView(captum.attr.Attribution):  # type: ignore[misc, name-defined]
        def __init__(self, explainer: Explainer) -> None:
            super().__init__(explainer.model.logits)
            self.explainer = explainer

        @captum.log.log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # NoiseTunnel looks for what this wraps
        def attribute(self, inputs: Any, target: Any = None, **others: Any) -> Any:
            _refuse_options(name for name, value in others.items() if value is not None and value is not False)
            batches = inputs if isinstance(inputs, tuple) else (inputs,)
            if len(batches) != 1:
                raise InvalidInputError(f"expected one batch of images, got a tuple of {len(batches)}; give one at a time")
            attributions = self.explainer.attribute(batches[0], _captum_target(target))
            return (attributions,) if isinstance(inputs, tuple) else attributions

    return CaptumView


def _captum_target(target: Any) -> Any:
    """captum's ways to name classes: one number in a list, tuple or tensor stands for all images."""
    if target is None or isinstance(target, int | str):
        return target
    classes = torch.as_tensor(target)
    return int(classes) if classes.numel() == 1 and not classes.is_floating_point() else classes


def _refuse_options(options: Iterable[str]) -> None:
    if names := ", ".join(sorted(options)):
        raise InvalidInputError(f"expected no options here, got {names}; a method's go to make_explainer(name, model, ...)")


@final
@dataclass(frozen=True, eq=False)
class CaptumExplainer(Explainer):
    """A captum attribution, summed over the channels and pixels of every cell; made by `from_captum`.

    Source: Kokhlikyan et al. 2020, arXiv:2009.07896; each method's own paper stands in captum's documentation.
    """

    method: Callable[[nn.Module], Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    paper: ClassVar[str] = "Kokhlikyan et al. 2020, arXiv:2009.07896"
    needs_gradients: ClassVar[bool] = True
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("gradients",)

    def __post_init__(self) -> None:
        super().__post_init__()
        built = self._build()
        name, parameters = type(built).__name__, signature(built.attribute).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        ours = {"inputs", "target", "return_convergence_delta"}
        unknown = set() if open_ended else {"target", *self.options} - parameters.keys()
        if unknown := unknown | self.options.keys() & ours:
            known = ", ".join(sorted(parameters.keys() - ours)) or "none"
            raise InvalidInputError(f"{name} has no option {', '.join(sorted(unknown))}; its options: {known}")

    def _build(self) -> Any:
        base = _captum("from_captum").attr.Attribution
        try:
            built = self.method(LogitsModule(self.model))
        except TypeError as error:
            built = error
        if not isinstance(built, base):
            raise InvalidInputError(
                f"expected a captum class, or lambda network: Class(network), got {self.method!r}: {built!r}"
            )
        return built

    @property
    def name(self) -> str:
        return f"captum:{type(self._build()).__name__}"

    def relevance(self, images: Images, targets: Targets) -> Relevance:
        pixels = self._build().attribute(images.detach().requires_grad_(), target=targets, **self.options)
        got = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
        if got != tuple(images.shape):
            raise InvalidInputError(f"expected attributions of {tuple(images.shape)}, got {got}; choose a method for the input")
        return _pool(pixels.sum(1), self.model.grid_size(images))


def from_captum(method: Callable[[nn.Module], Any], classifier: Classifier, **options: Any) -> CaptumExplainer:
    """A captum attribution to the input as an explainer of ours, on any classifier.

    Relevance is the attribution summed over channels and over the pixels of every cell of the classifier's grid, so that sums are kept.

    Args:
        method: A class of `captum.attr`, or a function that makes one, `lambda network: NoiseTunnel(Saliency(network))`.
        classifier: The network to explain; captum meets it as a `LogitsModule`.
        options: Of captum's `attribute`, given at every call: `n_steps=20`, `baselines=0`, `internal_batch_size=16`.

    Raises:
        InvalidInputError: Not a method of captum, one without a target, or an option that it does not have.
        MissingExtraError: captum is not installed.
    """
    return CaptumExplainer(classifier, method, options)


def _pool(pixels: Float[Tensor, "b height width"], grid_size: tuple[int, int]) -> Relevance:
    """Sums over cells, which lie as `Classifier.perturbed_logits` lays them."""
    (count, height, width), (rows, cols) = pixels.shape, grid_size
    row_of = torch.arange(height, device=pixels.device) * rows // height
    col_of = torch.arange(width, device=pixels.device) * cols // width
    strips = pixels.new_zeros(count, rows, width).index_add(1, row_of, pixels)
    return pixels.new_zeros(count, rows, cols).index_add(2, col_of, strips)


def quantus_explain_func(explainer: Explainer) -> Callable[..., NDArray[Any]]:
    """An explainer as Quantus' `explain_func`: `(model, inputs, targets)`, arrays in and out.

    Attributions are (b, 1, height, width): relevance spread over the pixels of its patches, so that sums are kept. Where Quantus passes
    another network than the explainer's, such as a copy with random weights, the same method with the same options explains that one,
    where it is. The keyword `device`, which Quantus adds, is therefore not needed; others are refused.
    """

    def explain_func(model: nn.Module, inputs: Any, targets: Any = None, **others: Any) -> NDArray[Any]:
        _refuse_options(set(others) - {"device"})
        there = _on_network(explainer, model)
        images = torch.tensor(np.asarray(inputs), device=there.model.device, dtype=there.model.dtype)
        classes = None if targets is None else torch.as_tensor(np.asarray(targets), device=images.device)
        return there.attribute(images, classes).sum(1, keepdim=True).float().numpy(force=True)

    return explain_func


def _on_network(explainer: Explainer, module: nn.Module) -> Explainer:
    """The same method with the same options on another network of the same kind."""
    model = explainer.model
    if isinstance(module, LogitsModule):
        model = module.classifier
    elif type(module) is type(model.module):  # Itself or a copy, also of what only the user's own classifier knows.
        model = replace(model, module=module)
    else:
        model = adapt(
            module, name=model.name, class_names=model.class_names, preprocessing=model.preprocessing, output=model.output
        )
    return replace(explainer, model=model)


@final
@dataclass
class Cam(AbstractContextManager["Cam"]):
    """An explainer that is called as pytorch-grad-cam's methods are; made by `as_cam`."""

    explainer: Explainer

    def __call__(
        self,
        input_tensor: Images,
        targets: Sequence[Any] | Tensor | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> NDArray[np.float32]:
        """Maps in [0, 1], (b, height, width), for one index or `ClassifierOutputTarget` an image, else for the predicted classes."""
        if aug_smooth or eigen_smooth:
            raise InvalidInputError("expected aug_smooth and eigen_smooth to be False, got True; leave it out")
        images = input_tensor.to(self.explainer.model.device)
        classes = None if targets is None else torch.tensor([_category(target) for target in targets], device=images.device)
        positive = self.explainer.explain(images, classes).relevance.float().clamp_min(0).unsqueeze(1)
        maps = nn.functional.interpolate(positive, size=images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
        maps = maps - maps.amin((1, 2), keepdim=True)
        return (maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)).numpy(force=True)

    def __exit__(self, *failure: object) -> None:
        """Nothing to release: no hook outlives a call."""


def as_cam(explainer: Explainer) -> Cam:
    """An explainer called as pytorch-grad-cam's methods are, also by `with as_cam(explainer) as cam:`.

    As there, maps lose what speaks against the class, are blended between patches, and each fills the range from 0 to 1.
    """
    return Cam(explainer)


def _category(target: Any) -> int:
    kind = type(target)
    # Others of that library have a category too, but score something else than a class's logit.
    if not kind.__module__.startswith("pytorch_grad_cam.") or kind.__name__ == "ClassifierOutputTarget":
        with suppress(TypeError):
            return index(getattr(target, "category", target))
    raise InvalidInputError(
        f"expected class indices or ClassifierOutputTarget as targets, got {kind.__name__}; name a class per image"
    )
