"""Check that the view of a network that an adapter gives matches what the network computes.

A user may have changed a network in ways that its types do not show: parts replaced, shared, wrapped, quantized, hooked. So every
property that a method relies on is tested on noise images of the size to explain before first use. Results are cached until a module, a
hook, a `forward` or a number changes: what a weight of zero hides shows once it is trained. Writing through `Tensor.data` goes unseen.
"""

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import chain
from operator import is_
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.checks.probabilities import suspect_probabilities
from vitrail.adapters.checks.stability import check_logits, random_states
from vitrail.adapters.checks.structure import list_global_hooks, list_structure, list_versions
from vitrail.adapters.checks.vit_checks import CHECKS
from vitrail.adapters.checks.wrapper_check import check_wrapper
from vitrail.adapters.classifier import Check, Classifier
from vitrail.adapters.memory import is_out_of_memory
from vitrail.core.autocast import without_autocast
from vitrail.core.errors import InvalidInputError, UnsupportedModelError, VitrailError
from vitrail.core.peers import is_killed_worker
from vitrail.core.types import Images, Logits

logger = logging.getLogger(__name__)

T = TypeVar("T")
Shape = tuple[int, ...]

FAILURES = (
    RuntimeError,
    TypeError,
    AttributeError,
    ValueError,
    LookupError,
    AssertionError,
    ArithmeticError,
    OSError,
    StopIteration,
)
"""Errors that networks raise where something does not fit; a class of the user's own says what it means."""


@dataclass
class _Results:
    """Results of the checks of one structure of a network.

    Attributes:
        structure: See `list_structure`.
        versions: See `list_versions`.
        failures: By check and shape of image: why it failed, or None where it passed.
        num_outputs: Number of logits, once known.
        found: What `remember` was given, by key.
    """

    structure: tuple[Any, ...]
    versions: list[Any]
    failures: dict[tuple[Check, Shape | None], str | None] = field(default_factory=dict)
    num_outputs: int | None = None
    found: dict[Hashable, Any] = field(default_factory=dict)


_RESULTS: WeakKeyDictionary[Classifier, _Results] = WeakKeyDictionary()
_TRUSTED: ContextVar[frozenset[tuple[int, Check]]] = ContextVar("trusted", default=frozenset())
"""Checks whose `verified` context is open. Hooks that vitrail sets inside do not count as changes of the network."""


@contextmanager
def verified(classifier: Classifier, checks: tuple[Check, ...], like: Images | None = None) -> Iterator[None]:
    """Run checks that have not passed yet, and trust the network inside the context.

    Args:
        classifier: The adapted network.
        checks: Checks to run besides "logits" and, for a Vision Transformer, "tokens".
        like: Images of a shape that the network takes; defaults to the preprocessing's.

    Raises:
        UnsupportedModelError: A check failed, with the reason.
    """
    always: tuple[Check, ...] = ("logits", "tokens") if isinstance(classifier, ViTAdapter) else ("logits",)
    required = frozenset((id(classifier), check) for check in (*always, *checks))
    trusted = _TRUSTED.get()
    token = _TRUSTED.set(trusted | required)
    try:
        if not required <= trusted:
            _require_checks(classifier, (*always, *checks), like)
        yield
    finally:
        _TRUSTED.reset(token)


def count_outputs(classifier: Classifier) -> int:
    """Count the logits of a network, by a forward pass.

    Raises:
        UnsupportedModelError: The network does not take images of its size, or does not return logits.
    """
    results = _find_results(classifier)
    if results.num_outputs is None:
        with _isolate(classifier), torch.no_grad():
            noise = _make_noise(classifier, _noise_shape(classifier))[:1]
            return _keep_count(classifier, results, noise, _run(classifier, noise))
    return results.num_outputs


def remember(classifier: Classifier, key: Hashable, find: Callable[[], T]) -> T:
    """Return what `find` finds out about the structure of a network, from one call until the structure changes."""
    found = _find_results(classifier).found
    if key not in found:
        found[key] = find()
    return found[key]


def _require_checks(classifier: Classifier, checks: tuple[Check, ...], like: Images | None) -> None:
    results = _find_results(classifier)
    keys = {check: _find_key(results, classifier, check, like) for check in checks}
    missing = [check for check in checks if keys[check] not in results.failures]
    if missing:
        with _isolate(classifier):
            noise = _make_noise(classifier, _noise_shape(classifier, like))
            with torch.no_grad():
                before = random_states(classifier)
                several, alone = _run(classifier, noise), torch.cat([_run(classifier, image[None]) for image in noise])
                draws = before != random_states(classifier)
            _keep_count(classifier, results, noise, several)
            if not torch.isfinite(alone).all():
                raise InvalidInputError(f"{classifier.name} gave logits that are not finite; check its weights and the images")
            for check in missing:
                if check == "logits":
                    failure = check_logits(classifier, noise, alone, several, draws)
                    failure = failure or _explain_failure(lambda: check_wrapper(classifier, noise, several), "wrapper")
                else:
                    failure = _run_check(classifier, check, noise[:1], alone[:1])
                results.failures[keys[check]] = failure
    for check in checks:
        if (reason := results.failures[keys[check]]) is not None:
            refusal = f"cannot explain {classifier.name or type(classifier.module).__name__}: "
            raise UnsupportedModelError(refusal + reason.removeprefix(refusal))  # A check may rely on another one.


def _keep_count(classifier: Classifier, results: _Results, images: Images, logits: Logits) -> int:
    """Keep the number of logits and whether they may be probabilities already; say what a single one means."""
    if results.num_outputs is None and logits.shape[1] == 1 and classifier.output == "softmax":
        logger.info(
            "%s has one logit: explained as sigmoid; give output='none' (--output none) for a regression", classifier.name
        )
    if results.num_outputs is None:
        suspect_probabilities(classifier, images, logits)
    results.num_outputs = num_outputs = logits.shape[1]
    return num_outputs


def _run(classifier: Classifier, images: Images) -> Logits:
    try:
        return classifier.logits(images)
    except FAILURES as error:
        if isinstance(error, VitrailError) or _is_machine_failure(error):
            raise
        raise UnsupportedModelError(
            f"{classifier.name or type(classifier.module).__name__} fails on {len(images)} normalized images of noise of shape "
            f"{tuple(images.shape[1:])} ({_first_line(error)}); make sure that it classifies images of this shape, one by one too"
        ) from error


def _is_machine_failure(error: Exception) -> bool:
    return isinstance(error, MemoryError) or is_out_of_memory(error) or is_killed_worker(error)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _run_check(classifier: Classifier, check: Check, image: Images, alone: Logits) -> str | None:
    """Return why a check other than "logits" fails, or None where it passes."""
    if check != "gradients" and not isinstance(classifier, ViTAdapter):
        return f"it is no Vision Transformer, and has no {check} to look at"
    return _explain_failure(lambda: CHECKS[check](classifier, image, alone), check)  # type: ignore[arg-type]  # Gradients: any classifier's.


def _explain_failure(run: Callable[[], None], what: str) -> str | None:
    """Run a check; return why it fails, or None where it passes."""
    try:
        run()
    except UnsupportedModelError as error:
        return str(error)
    except InvalidInputError:  # Not the network's fault.
        raise
    except FAILURES as error:
        if _is_machine_failure(error):  # It may work next time.
            raise
        return f"its {what} cannot be followed ({_first_line(error)})"
    return None


@contextmanager
def _isolate(classifier: Classifier) -> Iterator[None]:
    """Evaluation mode in the precision of the weights, without side effects on the network."""
    with torch.inference_mode(False), classifier.inspecting(), without_autocast(classifier.device):
        yield


def _noise_shape(classifier: Classifier, like: Images | None = None) -> Shape:
    return (len(classifier.preprocessing.mean), *classifier.probe_size) if like is None else tuple(like.shape[1:])


def _find_key(results: _Results, classifier: Classifier, check: Check, like: Images | None) -> tuple[Check, Shape | None]:
    """Return the key of the result of a check: with the shape of image that it holds for, or None if for all.

    Where no images are given, those of any shape count. Where every photo has a shape of its own, a check of everything would cost more
    than the explanation: then only those run at every shape that show whether the network sees the image as it is.
    """
    if like is None and (known := [key for key in results.failures if key[0] == check]):
        return known[0]
    every_time = classifier.preprocessing.crop_mode != "whole" or check in ("logits", "tokens")
    return check, _noise_shape(classifier, like) if every_time else None


def _make_noise(classifier: Classifier, shape: Shape) -> Float[Tensor, "2 channels height width"]:
    """Return two noise images, the same in every call."""
    # Between 0 and 1: plausible pixels, normalized or not.
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    return noise.to(classifier.device, classifier.dtype)


def _find_results(classifier: Classifier) -> _Results:
    """Return the results for the network as it is; new ones after a change."""
    structure = (
        *classifier.attention_functions(),
        *list_global_hooks(),
        *chain.from_iterable(map(list_structure, classifier.roots)),
    )
    versions = list_versions(structure)
    known = _RESULTS.get(classifier)
    same_structure = known is not None and len(known.structure) == len(structure) and all(map(is_, known.structure, structure))
    if known is None or not same_structure or known.versions != versions:
        num_outputs = known.num_outputs if known is not None and same_structure else None
        known = _RESULTS[classifier] = _Results(structure, versions, num_outputs=num_outputs)
    return known
