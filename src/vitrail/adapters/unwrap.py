"""Find the network inside wrappers: compiled, parallel, averaged, with LoRA, of Lightning, with a normalization before it.

Nothing is believed by name except for torch's own wrappers: a module inside stands for the whole only if, on noise, the whole gives the
logits of that module. Where the whole changes the images first, it must do so by a factor and a shift per channel.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.input_normalization import LARGE, fit_normalization, make_images, normalize_input
from vitrail.adapters.libraries import find_library
from vitrail.adapters.logits import expect_logits, logits_agree
from vitrail.adapters.plain import PlainClassifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.wrappers import strip
from vitrail.core.autocast import without_autocast
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import forward_pre_hooks, inspecting, replaced_methods, uncompiled
from vitrail.core.types import Images

SHARDED = "torch.distributed.fsdp"
"""Package of wrappers whose weights are spread over processes."""


@dataclass(frozen=True)
class Unwrapped:
    """What to adapt in place of a module.

    Attributes:
        module: The network inside, or the module itself.
        preprocessing: Turns a photo into its input; None for the network's own.
        normalizes: Whether the module normalizes its images itself, so that the preprocessing leaves that out.
        output_key: Index or key of the logits in what it returns.
        note: Why it is the module itself although there is a network inside, for messages.
        changed_before: The network inside that never receives the images as they are, nor normalized: how photos are to be prepared
            cannot be known. Empty if there is none.
    """

    module: nn.Module
    preprocessing: Preprocessing | None = None
    output_key: int | str | None = None
    note: str = ""
    normalizes: bool = False
    changed_before: str = ""


def unwrap(module: nn.Module, output_key: int | str | None = None) -> Unwrapped:
    """Find the network inside a module, where it is certain that it computes the same.

    The user's objects stay as they are. A network behind a normalization becomes a copy that shares its weights and normalizes its
    input, so that it takes the wrapper's images.

    Args:
        output_key: Index or key of the logits in what it returns.

    Raises:
        UnsupportedModelError: Its weights are spread over processes, or it cannot be run while the network inside can.
    """
    if any(base.__module__.startswith(SHARDED) for part in module.modules() for base in type(part).__mro__):
        raise UnsupportedModelError(
            f"expected a network in one piece, got a {type(module).__name__} whose weights are spread over processes (FSDP); gather them "
            "into a network without FSDP and give that"
        )
    module = strip(module)
    library = find_library(module)
    if _adapt(module) is not None or (library is not None and not library.plain):
        return Unwrapped(module, output_key=output_key)
    found = list({id(part): (path, part) for path, part in _find_networks(module)}.values())
    if len(found) > 1:
        names = ", ".join(path for path, _ in found)
        note = f"it holds {len(found)} networks that vitrail knows; to look into one, give it: {names}"
        first = _adapt(found[0][1])
        if first is None:
            return Unwrapped(module, None, output_key, note)
        outside = Unwrapped(module, first.preprocessing, output_key, note)
        with suppress(Exception):  # Networks raise anything; the checks before an explanation say what.
            for path, inner in found:
                if received := _run_spied(module, inner, make_images(first), output_key)[1]:
                    return _note_changes(outside, received, path)
        return outside
    if not found and library is None:
        found = list(_find_holder(module))
    if not found:
        return Unwrapped(module, output_key=output_key)
    path, inner = found[0]
    return _compare(module, inner, path, output_key)


def _adapt(module: nn.Module) -> Classifier | None:
    """Adapt a network as one that vitrail can look into; None if it cannot."""
    with suppress(UnsupportedModelError):
        if (library := find_library(module)) is not None:
            return library.adapt(module, type(module).__name__, (), None)
    return None


def _find_networks(module: nn.Module, path: str = "network") -> Iterator[tuple[str, nn.Module]]:
    """List the outermost networks inside that vitrail can look into, with the attribute that holds each."""
    for name, child in module.named_children():
        here, inner = _name_part(path, name), strip(child)
        if _adapt(inner) is not None:
            yield here, inner
        else:
            yield from _find_networks(inner, here)


def _find_holder(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """List the one part that holds all parameters, which may be a network behind a normalization."""
    everything = {id(parameter) for parameter in module.parameters()}
    for name, child in module.named_children():
        if everything and everything == {id(parameter) for parameter in child.parameters()}:
            yield _name_part("network", name), strip(child)


def _name_part(path: str, name: str) -> str:
    return f"{path}[{name}]" if name.isdigit() else f"{path}.{name}"


def _compare(module: nn.Module, inner: nn.Module, path: str, output_key: int | str | None) -> Unwrapped:
    """Return the network inside if the module gives its logits, on images that are the same or normalized first."""
    known = _adapt(inner) or _view_plain(inner)
    outside = Unwrapped(module, known.preprocessing, output_key)
    if not isinstance(known, PlainClassifier):
        note = (
            f"it holds a {type(inner).__name__}, but changes what comes out of it; to look into that, make a head of your own {path}.head, "
            f"and give {path}, which leaves out all else that {type(module).__name__} does"
        )
        outside = replace(outside, note=note)
    try:
        images = make_images(known)
        expected, received = _run_spied(module, inner, images, output_key)
    except UnsupportedModelError as error:
        return replace(outside, note=str(error))
    except NotImplementedError as error:
        if isinstance(known, PlainClassifier):
            return outside
        raise UnsupportedModelError(
            f"expected a network that takes images, got a {type(module).__name__} without a forward pass; give the network that it "
            f"holds: {path}"
        ) from error
    except Exception:  # noqa: BLE001 (networks raise anything; the checks before an explanation say what)
        return outside
    normalization = fit_normalization(images, received[0]) if len(received) == 1 else None
    if normalization is None:
        return _note_changes(outside, received, path)
    # The network inside may return its logits alone, or as the whole does.
    keys = list(dict.fromkeys((None, output_key)))
    if torch.equal(images, received[0]):
        agreeing = (key for key in keys if _gives(replace(known, output_key=key), images, expected))
        return next((Unwrapped(inner, output_key=key) for key in agreeing), outside)
    preprocessing = normalization.preprocessing_before(known.preprocessing)
    if preprocessing is None:
        note = f"it changes the images before {path}, by more than a normalization of pixels"
        return _note_changes(replace(outside, note=note), received, path)
    outside = replace(outside, preprocessing=preprocessing, normalizes=True)
    if isinstance(known, PlainClassifier):
        return outside
    normalizing = normalize_input(inner, normalization)
    agreeing = (key for key in keys if _gives(replace(known, module=normalizing, output_key=key), images, expected))
    return next((Unwrapped(normalizing, preprocessing, key, normalizes=True) for key in agreeing), outside)


def _note_changes(outside: Unwrapped, received: list[Tensor], path: str) -> Unwrapped:
    """Note if a network inside runs, but never on pixels of the same scale: its own preprocessing is then not that of the whole."""
    if not received or any(map(_keeps_scale, received)):
        return outside
    return replace(outside, changed_before=path)


def _keeps_scale(received: Tensor) -> bool:
    """Return whether the images of `make_images` have their pixels, possibly moved, resized, or with a border of zeros."""
    if len(received) < 2:
        return False
    zero, large = received[0].float(), received[1].float()
    kept = (large - LARGE).abs() < 0.01 * LARGE
    return not zero.any() and bool(kept.any() and (kept | (large == 0)).all())


def _view_plain(module: nn.Module) -> Classifier:
    library = find_library(module)
    own = None if library is None else library.preprocessing(module)
    return PlainClassifier(module, own or Preprocessing(), name=type(module).__name__)


def _run_spied(module: nn.Module, inner: nn.Module, images: Images, key: int | str | None) -> tuple[Tensor, list[Tensor]]:
    """Run a module; return its logits, and what a network inside receives at every call: the images, where it is called with parts of them.

    If only parts of the network run, such as all but its head, it is what the first of them receives.
    """
    called, embedded = list[Tensor](), list[Tensor]()
    own = inner.forward

    def spy(*inputs: Any, **options: Any) -> Any:
        called.extend([value for value in (*inputs, *options.values()) if isinstance(value, Tensor)][:1])
        return own(*inputs, **options)

    def see(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        embedded.extend(value for value in inputs[:1] if isinstance(value, Tensor) and value.ndim == images.ndim)

    # Scripts call no hooks.
    parts = [part for part in inner.modules() if part is not inner and not isinstance(part, torch.jit.ScriptModule)]
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        inspecting(module),
        uncompiled(module),
        without_autocast(images.device),
        replaced_methods("forward", [(inner, spy)]),
        forward_pre_hooks([(part, see) for part in parts]),
    ):
        output = module(images.clone())
    output = output if key is not None else getattr(output, "logits", output)
    logits = expect_logits(output, len(images), type(module).__name__, key)
    if called and sum(map(len, called)) == len(images) and len({each.shape[1:] for each in called}) == 1:
        called = [torch.cat(called)]
    return logits, called or embedded[:1]


@torch.no_grad()
def _gives(classifier: Classifier, images: Images, expected: Tensor) -> bool:
    """Return whether a network gives these logits."""
    with suppress(UnsupportedModelError), torch.inference_mode(False), classifier.inspecting(), without_autocast(images.device):
        logits = classifier.logits(images)
        return logits.shape == expected.shape and logits_agree(classifier.module, logits[2:], expected[2:])
    return False
