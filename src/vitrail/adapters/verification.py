"""Whether what an adapter shows of a network is what the network does: checked on images of noise, once per structure.

A network may have been changed in ways that no list of types foresees: parts replaced, shared, wrapped, quantized, hooked. So every
view that a method relies on is tried before it is believed. The answers are kept until a module, a hook or a `forward` changes; weights
may change freely.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.classifier import Check, Classifier
from vitrail.adapters.logits import agree
from vitrail.adapters.memory import is_out_of_memory
from vitrail.adapters.vit_checks import CHECKS
from vitrail.core.autocast import without_autocast
from vitrail.core.errors import InvalidInputError, UnsupportedModelError, VitrailError
from vitrail.core.types import Images, Logits

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

FAILURES = (RuntimeError, TypeError, AttributeError, ValueError, LookupError, AssertionError)
"""What networks raise where something does not fit."""


@dataclass
class _Answers:
    """What was found for one structure of a network: why a check failed, or None where it passed."""

    structure: tuple[Any, ...]
    reasons: dict[Check, str | None] = field(default_factory=dict)
    num_outputs: int | None = None


_ANSWERS: WeakKeyDictionary[Classifier, _Answers] = WeakKeyDictionary()
_TRUSTED: ContextVar[frozenset[tuple[int, Check]]] = ContextVar("trusted", default=frozenset())
"""Checks inside of whose `verified` block the code runs: hooks that vitrail sets there are no change of the network."""


@contextmanager
def verified(classifier: Classifier, checks: tuple[Check, ...], like: Images | None = None) -> Iterator[None]:
    """Make sure of some checks, and trust the network for the time of the block.

    Args:
        classifier: The network, as it is seen.
        checks: What must hold, beside "logits".
        like: Images of a shape that the network takes; that of its preprocessing if not given.

    Raises:
        UnsupportedModelError: A check fails, with the reason.
    """
    always: tuple[Check, ...] = ("logits", "tokens") if isinstance(classifier, ViTAdapter) else ("logits",)
    wanted = frozenset((id(classifier), check) for check in (*always, *checks))
    trusted = _TRUSTED.get()
    token = _TRUSTED.set(trusted | wanted)
    try:
        if not wanted <= trusted:
            _refuse_unless(classifier, (*always, *checks), like)
        yield
    finally:
        _TRUSTED.reset(token)


def count_outputs(classifier: Classifier) -> int:
    """The number of logits, read off a forward pass.

    Raises:
        UnsupportedModelError: The network does not take images of its size, or returns something else than logits.
    """
    answers = _answers(classifier)
    if answers.num_outputs is None:
        with _quiet(classifier), torch.no_grad():
            answers.num_outputs = _plain_logits(classifier, _noise(classifier)[:1]).shape[1]
    return answers.num_outputs


def _refuse_unless(classifier: Classifier, checks: tuple[Check, ...], like: Images | None) -> None:
    answers = _answers(classifier)
    missing = [check for check in checks if check not in answers.reasons]
    if missing:
        with _quiet(classifier):
            noise = _noise(classifier, like)
            with torch.no_grad():
                in_batch, alone = _plain_logits(classifier, noise)[:1], _plain_logits(classifier, noise[:1])
            answers.num_outputs = alone.shape[1]
            if not torch.isfinite(alone).all():
                raise InvalidInputError(f"{classifier.name} gave logits that are not finite; check its weights and the images")
            for check in missing:
                answers.reasons[check] = _reason(classifier, check, noise[:1], alone, in_batch)
    for check in checks:
        if (reason := answers.reasons[check]) is not None:
            raise UnsupportedModelError(f"cannot explain {classifier.name or type(classifier.module).__name__}: {reason}")


def _plain_logits(classifier: Classifier, images: Images) -> Logits:
    try:
        return classifier.logits(images)
    except FAILURES as error:
        if isinstance(error, VitrailError) or is_out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{classifier.name or type(classifier.module).__name__} fails on {len(images)} normalized images of noise of shape "
            f"{tuple(images.shape[1:])} ({_first_line(error)}); make sure that it classifies images of this shape, one by one too"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _reason(classifier: Classifier, check: Check, image: Images, alone: Logits, in_batch: Logits) -> str | None:
    if check == "logits":
        return None if agree(classifier.module, in_batch, alone) else _unsteady(classifier, image, alone)
    if not isinstance(classifier, ViTAdapter):
        return f"it is no Vision Transformer, and has no {check} to look at"
    try:
        CHECKS[check](classifier, image, alone)
    except UnsupportedModelError as error:
        return str(error)
    except InvalidInputError:  # No fault of the network.
        raise
    except FAILURES as error:
        if is_out_of_memory(error):  # Nor is this, and there may be more memory next time.
            raise
        return f"its {check} cannot be followed ({_first_line(error)})"
    return None


def _unsteady(classifier: Classifier, image: Images, alone: Logits) -> str:
    with torch.no_grad():
        again = classifier.logits(image)
    if agree(classifier.module, again, alone):
        return (
            "the logits of an image depend on what else is in the batch (statistics of the batch, or dynamic quantization, whose rounding "
            "follows the whole batch); use fixed statistics, or the network before it was quantized"
        )
    return "it returns other logits for the same image at every call; turn off what is random in it (dropout, sampling, noise)"


@contextmanager
def _quiet(classifier: Classifier) -> Iterator[None]:
    """Evaluation mode, the precision of the weights, and nothing left behind."""
    with torch.inference_mode(False), classifier.inspecting(), without_autocast(classifier.device):
        yield


def _noise(classifier: Classifier, like: Images | None = None) -> Float[Tensor, "2 channels height width"]:
    """Two images, always the same."""
    shape = (len(classifier.preprocessing.mean), *classifier.probe_size) if like is None else like.shape[1:]
    # Between 0 and 1, where images lie, normalized or not.
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    return noise.to(classifier.device, classifier.dtype)


def _answers(classifier: Classifier) -> _Answers:
    now = (*classifier.attention_functions(), *_structure(classifier.module))
    known = _ANSWERS.get(classifier)
    if known is None or len(known.structure) != len(now) or not all(map(is_, known.structure, now)):
        known = _ANSWERS[classifier] = _Answers(now)
    return known


def _structure(module: nn.Module) -> tuple[Any, ...]:
    """All that decides how a network computes, but for its numbers, as objects to compare by identity."""
    return tuple(
        chain.from_iterable(
            (
                part,
                type(part).forward,
                *filter(callable, vars(part).values()),  # A replaced `forward` among them.
                *part._modules.values(),
                *chain.from_iterable(getattr(part, hooks).values() for hooks in HOOKS),
            )
            for part in module.modules()
        )
    )
