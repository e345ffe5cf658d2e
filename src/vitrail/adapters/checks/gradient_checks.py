"""Check that the gradient of a network's logits is their slope; see `vitrail.adapters.checks.verification`."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vitrail.adapters.checks.slopes import PRECISE_DTYPES, is_slope
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.logits import find_unmasked, logits_agree
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Images, Logits

NUDGE = 0.1
"""Relative change of a number that has left the graph, to find out whether the logits depend on it."""

TO_NUMBERS = ("item", "__float__", "tolist")
"""Methods of a tensor that return numbers of Python."""

LIKE_ANOTHER = ("to", "type_as", "expand_as", "view_as", "reshape_as")
"""Methods that read only the form of their argument: its type, device or shape."""


def check_gradients(classifier: Classifier, image: Images, expected: Logits) -> None:
    """Check that the graph of the logits reaches the image, leaves nothing out, and yields the slope of the logits."""
    if any(parameter.is_inference() for parameter in classifier.module.parameters()):
        raise UnsupportedModelError(
            "its weights were created inside torch.inference_mode() and let no gradient through; create or load it outside"
        )
    _refuse_backward_hooks(classifier, image)
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
        # Different weights: the plain sum of all logits may be the same for every image. Masks such as -1e9 would drown it.
        weights = torch.linspace(1, 2, logits.shape[1], device=logits.device).to(logits) * find_unmasked(expected)[0]
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
    if cuts.numbers:
        with torch.enable_grad(), _Cuts(factor=1 + NUDGE):
            nudged = classifier.logits(image)
        if not logits_agree(classifier.module, nudged.detach(), logits.detach()):
            raise UnsupportedModelError(
                f"its gradients leave out a part of the network: the number that {cuts.numbers[0]} returned contributes to the logits "
                "without a gradient; keep it a tensor, or choose attention, rollout, mutex, occlusion or rise"
            )
    if gradients[0] is None:
        raise UnsupportedModelError(
            "no gradient passes from its logits to the image; choose attention, rollout, mutex, occlusion or rise"
        )
    if not is_slope(classifier, image.detach(), gradients[0], weights, expected):
        raise UnsupportedModelError(
            "the gradient of its logits is not their slope: backward hooks, guided or straight-through backward passes change it; remove "
            "them, or choose attention, rollout, mutex, occlusion or rise"
        )


def _refuse_backward_hooks(classifier: Classifier, image: Images) -> None:
    """Refuse backward hooks where `is_slope` is too coarse to tell whether they change gradients."""
    hooked = any(part._backward_hooks or part._backward_pre_hooks for part in classifier.module.modules())
    if hooked and image.dtype not in PRECISE_DTYPES:
        raise UnsupportedModelError(
            f"its backward hooks may change its gradients, which cannot be checked in {image.dtype}; remove them, or convert it to float32"
        )


class _Cuts(TorchFunctionMode):
    """Find values that leave the graph and take part in the logits again.

    Every detached value becomes the root of a new graph, so that a gradient with respect to it tells whether the logits use it. A number
    of Python has no graph; another run in which it is changed tells.

    Args:
        factor: Multiplies numbers that leave the graph.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.roots: list[tuple[str, Tensor]] = []
        self.numbers: list[str] = []
        self.factor = factor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output, kwargs = func(*args, **(kwargs or {})), kwargs or {}
        name = getattr(func, "__name__", "")
        if name.startswith("new_") or name.endswith("_like"):  # These read a tensor's shape only.
            return output
        read = args[:1] if name in LIKE_ANOTHER else (*args, *kwargs.values())
        if not any(tensor.requires_grad for tensor in _find_tensors(read)):
            return output
        if name in TO_NUMBERS:
            return self._change(name, output)
        if type(output) in (tuple, list):
            return type(output)(self._track(name, part) for part in output)
        return self._track(name, output)

    def _change(self, name: str, number: Any) -> Any:
        self.numbers.append(name)
        return [self._change(name, part) for part in number] if isinstance(number, list) else number * self.factor

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
