"""Check that the gradient of a network's logits is their slope; see `vitrail.adapters.checks.verification`."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vitrail.adapters.classifier import Classifier
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Images, Logits


def check_gradients(classifier: Classifier, image: Images, expected: Logits) -> None:
    """Check that the graph of the logits reaches the image, leaves nothing out, and yields the slope of the logits."""
    if any(parameter.is_inference() for parameter in classifier.module.parameters()):
        raise UnsupportedModelError(
            "its weights were created inside torch.inference_mode() and let no gradient through; create or load it outside"
        )
    image, cuts = image.clone().requires_grad_(), _Cuts()
    with torch.enable_grad():
        with cuts:
            logits = classifier.logits(image)
        if not logits.requires_grad:
            raise UnsupportedModelError(
                "no gradient passes from its logits to the image: it runs without gradients (torch.no_grad, quantized or exported "
                "layers); choose attention, rollout, mutex, occlusion or rise"
            )
        _refuse_unknown_backward(logits)
        # Different weights: the plain sum of all logits may be the same for every image.
        weights = torch.linspace(1, 2, logits.shape[1], device=logits.device).to(logits)
        try:
            gradients = torch.autograd.grad(
                (logits * weights).sum(), [image, *(root for _, root in cuts.roots)], allow_unused=True
            )
        except RuntimeError as error:
            if "heckpoint" not in str(error):
                raise
            raise UnsupportedModelError(
                "it has no gradients with respect to its inner tensors, because it checkpoints activations; turn gradient checkpointing off"
            ) from error
    for (operation, _), gradient in zip(cuts.roots, gradients[1:], strict=True):
        if gradient is not None:
            raise UnsupportedModelError(
                f"its gradients leave out a part of the network: what {operation} returned contributes to the logits without a gradient; "
                "remove what stops gradients, or choose attention, rollout, mutex, occlusion or rise"
            )
    if gradients[0] is None:
        raise UnsupportedModelError(
            "no gradient passes from its logits to the image; choose attention, rollout, mutex, occlusion or rise"
        )
    if not _is_slope(classifier, image.detach(), gradients[0], weights, expected):
        raise UnsupportedModelError(
            "the gradient of its logits is not their slope: backward hooks, guided or straight-through backward passes change it; remove "
            "them, or choose attention, rollout, mutex, occlusion or rise"
        )


@torch.no_grad()
def _is_slope(classifier: Classifier, image: Images, gradient: Tensor, weights: Tensor, expected: Logits) -> bool:
    """Return whether a small step along the gradient changes the logits as predicted. Half precision is too coarse to tell."""
    length, scale = gradient.norm(), (expected * weights).abs().max()
    if image.dtype not in (torch.float32, torch.float64) or not length or not torch.isfinite(length) or not scale:
        return True
    for share in (1e-2, 2e-3, 4e-4):  # Where curvature or kinks spoil a step, the next one decides.
        step = share * torch.minimum(scale / length, image.norm())
        if step * length < 1e3 * torch.finfo(image.dtype).eps * scale:
            return True  # The logits hardly depend on the image: the change is lost in rounding.
        moved = [(classifier.logits(image + sign * step * gradient / length) * weights).sum() for sign in (1, -1)]
        if abs(float((moved[0] - moved[1]) / (2 * step * length)) - 1) < 0.03:
            return True
    return False


class _Cuts(TorchFunctionMode):
    """Find values that leave the graph and take part in the logits again.

    Every detached value becomes the root of a new graph, so that a gradient with respect to it tells whether the logits use it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output, kwargs = func(*args, **(kwargs or {})), kwargs or {}
        name = getattr(func, "__name__", "")
        if name.startswith("new_") or name.endswith("_like"):  # These read a tensor's shape only.
            return output
        if not any(tensor.requires_grad for tensor in _find_tensors((*args, *kwargs.values()))):
            return output
        if type(output) in (tuple, list):
            return type(output)(self._track(name, part) for part in output)
        return self._track(name, output)

    def _track(self, name: str, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        if output.requires_grad and torch.is_grad_enabled():  # Under no_grad, views still claim to require gradients.
            return output
        with torch.enable_grad():
            root = output.detach().requires_grad_()
            self.roots.append((name, root))
            return root.clone()  # Code may write into it, which is forbidden for a leaf.


def _find_tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, tuple | list):
            yield from _find_tensors(part)


def _refuse_unknown_backward(logits: Logits) -> None:
    """Refuse operations without a derivative, for which torch only warns and uses zero."""
    todo, seen = [logits.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "NotImplemented" in node.name():
            raise UnsupportedModelError(
                "it has operations without a derivative, as quantized layers are: gradients would be zero or incomplete; explain it before "
                "it is quantized, or choose attention, rollout, mutex, occlusion or rise"
            )
        todo += [following for following, _ in node.next_functions]
