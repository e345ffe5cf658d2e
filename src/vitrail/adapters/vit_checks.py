"""The views of a Vision Transformer that methods rely on, each tried on one image; see `vitrail.adapters.verification`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.classifier import Check
from vitrail.adapters.logits import agree
from vitrail.errors import UnsupportedModelError
from vitrail.types import Images, Logits


@torch.no_grad()
def check_attention(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """Every block shows probabilities, and with attention shown the network computes what it computes without."""
    seen: list[Tensor] = []

    def keep(weights: Tensor) -> Tensor:
        seen.append(weights)
        return weights

    with vit.compared_attention():
        vit.logits(image)
    with vit.attending(vit.blocks, keep):
        logits = vit.logits(image)
    if len(seen) != len(vit.blocks):
        raise UnsupportedModelError(
            f"expected attention weights from each of {len(vit.blocks)} blocks, got them from {len(seen)}: its attention runs where "
            "vitrail cannot look, in replaced, scripted or foreign code; choose a method that needs no attention, such as occlusion or rise"
        )
    for index, weights in enumerate(seen):
        sums = weights.float().sum(-1)
        if not bool((weights >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), atol=0.02):
            raise UnsupportedModelError(
                f"expected attention weights that are probabilities over the keys, got others in block {index}; methods that read "
                "attention take softmax attention only"
            )
    if not agree(vit.module, logits, expected):
        raise UnsupportedModelError(
            "with its attention weights formed one by one it gives other logits than by itself: a part of its attention was replaced "
            "or wrapped (adapters such as LoRA: merge them first), and vitrail would explain another network"
        )


@torch.no_grad()
def check_parts(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """The parts make the whole, and a pixel of one patch reaches the embedding of no other."""
    for way, logits in vit.rebuilt_logits(image).items():
        if not agree(vit.module, logits, expected):
            raise UnsupportedModelError(
                f"{way} it gives other logits than by itself: hooks, a replaced forward or further parts take part in it, and vitrail "
                "would explain another network; put them into the blocks, or write an adapter"
            )
    patches = vit.patch_embed(image)
    for place, number in (((0, 0), 0), ((-1, -1), -1)):
        changed = image.clone()
        changed[:, :, place[0], place[1]] += 1
        elsewhere = torch.ones(patches.shape[1], dtype=torch.bool, device=patches.device)
        elsewhere[number] = False
        if not torch.allclose(vit.patch_embed(changed)[:, elsewhere], patches[:, elsewhere], rtol=1e-3, atol=1e-5):
            raise UnsupportedModelError(
                "its patches are not embedded one by one: a pixel of one patch changes others, so that patches cannot be replaced exactly; "
                "choose occlusion or rise on vitrail.adapters.plain.adapt_plain"
            )


@torch.no_grad()
def check_head(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """The head makes the logits from the tokens that leave the last block."""
    with vit.record(hidden_states=True) as trace:
        vit.logits(image)
    if not trace.hidden_states or not agree(vit.module, vit.head(trace.hidden_states[-1]), expected):
        raise UnsupportedModelError(
            "its head gives other logits for the tokens of the last block than the network does: it reads more than these, or was "
            "replaced by one that vitrail does not find"
        )


def check_gradients(vit: ViTAdapter, image: Images, expected: Logits) -> None:
    """The graph of the logits reaches the image and every block's attention, and nothing that matters was cut out of it."""
    if any(parameter.is_inference() for parameter in vit.module.parameters()):
        raise UnsupportedModelError(
            "it was created inside torch.inference_mode(), whose weights no gradient passes; create or load it outside"
        )
    image, cuts = image.clone().requires_grad_(), _Cuts()
    with torch.enable_grad():
        with cuts:
            logits = vit.logits(image)
        if not logits.requires_grad:
            raise UnsupportedModelError(
                "no gradient passes from its logits to the image: it runs without gradients (torch.no_grad, quantized or exported "
                "layers); choose attention, rollout, mutex, occlusion or rise"
            )
        _refuse_unknown_backward(logits)
        try:
            gradients = torch.autograd.grad(logits.sum(), [image, *(root for _, root in cuts.found)], allow_unused=True)
        except RuntimeError as error:
            if "heckpoint" not in str(error):
                raise
            raise UnsupportedModelError(
                "its gradients cannot be taken with respect to what is inside of it, since it checkpoints activations; turn gradient "
                "checkpointing off, or use the kind with use_reentrant=False"
            ) from error
    for (operation, _), gradient in zip(cuts.found, gradients[1:], strict=True):
        if gradient is not None:
            raise UnsupportedModelError(
                f"its gradients leave out a part of the network: what {operation} returned takes part in the logits without a gradient; "
                "remove what stops gradients, or choose attention, rollout, mutex, occlusion or rise"
            )
    if gradients[0] is None:
        raise UnsupportedModelError(
            "no gradient passes from its logits to the image; choose attention, rollout, mutex, occlusion or rise"
        )


CHECKS: dict[Check, Callable[[ViTAdapter, Images, Logits], None]] = {
    "attention": check_attention,
    "parts": check_parts,
    "head": check_head,
    "gradients": check_gradients,
}


class _Cuts(TorchFunctionMode):
    """Finds where values leave the graph: every such value becomes the root of a graph of its own, so that a gradient with respect
    to it tells whether it comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output, kwargs = func(*args, **(kwargs or {})), kwargs or {}
        name = getattr(func, "__name__", "")
        if name.startswith("new_") or name.endswith("_like"):  # These read a tensor's shape alone.
            return output
        if not any(tensor.requires_grad for tensor in _tensors((*args, *kwargs.values()))):
            return output
        if type(output) in (tuple, list):
            return type(output)(self._kept(name, part) for part in output)
        return self._kept(name, output)

    def _kept(self, name: str, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        if output.requires_grad and torch.is_grad_enabled():  # Without gradients, views still claim to have them.
            return output
        with torch.enable_grad():
            root = output.detach().requires_grad_()
            self.found.append((name, root))
            return root.clone()  # Code may write into it, which a root forbids.


def _tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, tuple | list):
            yield from _tensors(part)


def _refuse_unknown_backward(logits: Logits) -> None:
    """Refuse operations of which torch knows no derivative: it warns, and goes on with zero."""
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
