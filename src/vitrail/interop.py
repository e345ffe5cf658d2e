"""Use vitrail's explainers from captum, Quantus and pytorch-grad-cam, and captum's methods from vitrail."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import signature
from operator import index
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail.adapters import Check, Classifier, adapt
from vitrail.adapters.cells import sum_cells
from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.core.types import Images, Logits
from vitrail.explainers import Attribution, Explainer
from vitrail.explainers.base import ChooseTargets


@final
class LogitsModule(nn.Module):
    """A module from images to logits for libraries that need one, whatever the classifier's network returns.

    The network becomes a submodule. A deep copy has its own classifier with the copied network.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.module, self.classifier = classifier.module, classifier
        self.training = classifier.module.training

    def forward(self, images: Images) -> Logits:
        return self.classifier.logits(images)


def as_captum(explainer: Explainer) -> Any:
    """Wrap an explainer as a `captum.attr.Attribution`, for captum's metrics and `captum.attr.NoiseTunnel`.

    Its `attribute(inputs, target=None)` spreads a patch's relevance evenly over its pixels, so that sums are kept. The target is a
    class for all images, one per image, or None for the predicted class (of every noisy image, in NoiseTunnel and `sensitivity_max`).

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

        @captum.log.log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]  # NoiseTunnel unwraps this decorator
        def attribute(self, inputs: Any, target: Any = None, **options: Any) -> Any:
            _refuse_options(name for name, value in options.items() if value is not None and value is not False)
            batches = inputs if isinstance(inputs, tuple) else (inputs,)
            if len(batches) != 1:
                raise InvalidInputError(f"expected one batch of images, got a tuple of {len(batches)}; pass one at a time")
            attributions = self.explainer.attribute(batches[0], _captum_target(target))
            return (attributions,) if isinstance(inputs, tuple) else attributions

    return CaptumView


def _captum_target(target: Any) -> Any:
    """Convert captum's targets: a single number in a list, tuple or tensor is the class for all images."""
    if target is None or isinstance(target, int | str):
        return target
    classes = torch.as_tensor(target)
    return int(classes) if classes.numel() == 1 and not classes.is_floating_point() else classes


def _refuse_options(options: Iterable[str]) -> None:
    if names := ", ".join(sorted(options)):
        raise InvalidInputError(f"expected no options here, got {names}; pass them to make_explainer(name, model, ...)")


@final
@dataclass(frozen=True, eq=False)
class CaptumExplainer(Explainer):
    """A captum attribution summed over the channels and pixels of every cell; see `from_captum`.

    Source: Kokhlikyan et al. 2020, arXiv:2009.07896; captum's documentation names the papers of its methods.
    """

    method: Callable[[nn.Module], Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    paper: ClassVar[str] = "Kokhlikyan et al. 2020, arXiv:2009.07896"
    needs_gradients: ClassVar[bool] = True
    batches_passes: ClassVar[bool] = True
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("gradients",)

    def __post_init__(self) -> None:
        super().__post_init__()
        built = self._build()
        name, parameters = type(built).__name__, signature(built.attribute).parameters
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        reserved = {"inputs", "target", "return_convergence_delta"}
        unknown = set() if open_ended else {"target", *self.options} - parameters.keys()
        if unknown := unknown | self.options.keys() & reserved:
            known = ", ".join(sorted(parameters.keys() - reserved)) or "none"
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

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        with torch.no_grad():
            logits = self.model.logits(images)
        targets = choose(logits)
        pixels = self._build().attribute(images.detach().requires_grad_(), target=targets, **self.options)
        got = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
        if got != tuple(images.shape):
            raise InvalidInputError(
                f"expected attributions of {tuple(images.shape)}, got {got}; use a method that attributes to the input"
            )
        return Attribution(logits, targets, sum_cells(pixels.sum(1), self.model.grid_size(images)))


def from_captum(method: Callable[[nn.Module], Any], classifier: Classifier, **options: Any) -> CaptumExplainer:
    """Build an explainer from a captum method that attributes to the input, for any classifier.

    Relevance is the attribution summed over channels and over the pixels of every cell, so that sums are kept.

    Args:
        method: A class of `captum.attr`, or a function that builds a method: `lambda network: NoiseTunnel(Saliency(network))`.
        classifier: The network to explain; captum gets it as a `LogitsModule`.
        options: Options of the method's `attribute`, such as `n_steps=20`, `baselines=0` or `internal_batch_size=16`.

    Raises:
        InvalidInputError: No captum method, a method without a target, or an option that it does not have.
        MissingExtraError: captum is not installed.
    """
    return CaptumExplainer(classifier, method, options)


def quantus_explain_func(explainer: Explainer) -> Callable[..., NDArray[Any]]:
    """Wrap an explainer as Quantus' `explain_func(model, inputs, targets)`, with numpy arrays as input and output.

    Attributions have shape (b, 1, height, width); a patch's relevance is spread evenly over its pixels. If Quantus passes another
    network, such as a copy with random weights, the same method explains that network on its device. The keyword `device` is ignored.
    """

    def explain_func(model: nn.Module, inputs: Any, targets: Any = None, **options: Any) -> NDArray[Any]:
        _refuse_options(set(options) - {"device"})
        moved = _replace_network(explainer, model)
        images = torch.tensor(np.asarray(inputs), device=moved.model.device, dtype=moved.model.dtype)
        classes = None if targets is None else torch.as_tensor(np.asarray(targets), device=images.device)
        return moved.attribute(images, classes).sum(1, keepdim=True).float().numpy(force=True)

    return explain_func


def _replace_network(explainer: Explainer, module: nn.Module) -> Explainer:
    """Return the method with the same options for another network of the same kind."""
    model = explainer.model
    if isinstance(module, LogitsModule):
        model = module.classifier
    elif type(module) is type(model.module):  # the network itself or a copy
        model = replace(model, module=module, wrapper=None)
    else:
        other = adapt(
            module, name=model.name, preprocessing=model.preprocessing, output=model.output, output_key=model.output_key
        )
        model = replace(other, class_names=model.class_names, directions=model.directions, text=model.text)
    return replace(explainer, model=model)


@final
@dataclass
class Cam(AbstractContextManager["Cam"]):
    """An explainer with the interface of pytorch-grad-cam's methods; see `as_cam`."""

    explainer: Explainer

    def __call__(
        self,
        input_tensor: Images,
        targets: Sequence[Any] | Tensor | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> NDArray[np.float32]:
        """Return maps in [0, 1], (b, height, width), for one class index or `ClassifierOutputTarget` per image, or the predictions."""
        if aug_smooth or eigen_smooth:
            raise InvalidInputError("expected aug_smooth and eigen_smooth to be False, got True; leave them out")
        images = input_tensor.to(self.explainer.model.device)
        classes = (
            None if targets is None else torch.tensor([_class_of_target(target) for target in targets], device=images.device)
        )
        positive = self.explainer.explain(images, classes).relevance.float().clamp_min(0).unsqueeze(1)
        maps = nn.functional.interpolate(positive, size=images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
        maps = maps - maps.amin((1, 2), keepdim=True)
        return (maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)).numpy(force=True)

    def __exit__(self, *failure: object) -> None:
        """Do nothing: hooks are removed after every call."""


def as_cam(explainer: Explainer) -> Cam:
    """Wrap an explainer with the interface of pytorch-grad-cam's methods, including `with as_cam(explainer) as cam:`.

    Negative relevance is dropped, maps are enlarged bilinearly, and each map is scaled to [0, 1], as in pytorch-grad-cam.
    """
    return Cam(explainer)


def _class_of_target(target: Any) -> int:
    kind = type(target)
    # Other targets of pytorch-grad-cam have a category too, but score something else than the logit of a class.
    if not kind.__module__.startswith("pytorch_grad_cam.") or kind.__name__ == "ClassifierOutputTarget":
        with suppress(TypeError):
            return index(getattr(target, "category", target))
    raise InvalidInputError(
        f"expected class indices or ClassifierOutputTarget as targets, got {kind.__name__}; pass one class per image"
    )
