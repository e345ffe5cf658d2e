"""Networks of any library with a user's own weights: the file tells classes, channels, image size and, sometimes, the network."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitrail.adapters import adapting
from vitrail.adapters.build_spec import ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import POSITIONS, head_names, position_grid
from vitrail.adapters.foreign_heads import find_foreign_head, list_leftover, refuse_foreign_head
from vitrail.adapters.libraries import get_library
from vitrail.adapters.library import Library
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.training_settings import TrainingSettings
from vitrail.adapters.weight_matching import load_match, match_weights
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, failures_as
from vitrail.core.hooks import attributes
from vitrail.models.checkpoints import Checkpoint, read_checkpoint
from vitrail.models.limits import build_on_meta

logger = logging.getLogger(__name__)

TRAINERS = ("timm", "torchvision")
"""Libraries whose training scripts name the network in their files."""

NUM_PROBE_CLASSES = 7
"""Number of classes of the network that is built to learn its names and shapes."""


def load_with_weights(source: str, name: str, path: Path, key: str | None = None, **options: Any) -> Classifier:
    """Build a network of a library and load weights from a file; nothing is downloaded for it but configurations.

    The number of classes, channels and the image size are those of the weights; a file without a head gives an embedding.

    Args:
        source: Key of the library in `ENTRIES`.
        name: Name of the network in the library.
        key: Group or prefix of the weights to take, where several fit.
        options: Options of the network, under its library's names; `num_classes` demands a head.

    Raises:
        UnknownNameError: There is no such network.
        CheckpointError: The file is damaged or unsafe, or its weights are not all of the network's.
        InvalidInputError: The network does not have these options.
    """
    if options.pop("pretrained", False):
        raise InvalidInputError("expected pretrained or weights, got both; leave out pretrained")
    checkpoint = read_checkpoint(path)
    library = get_library(source)
    settings = library.read_training(checkpoint.extra)
    if settings is None or settings.name != name:
        settings = TrainingSettings(name)
    return _build(library, f"{source}:{name}", settings, checkpoint, path, key, options)


def load_self_described(checkpoint: Checkpoint, path: Path, key: str | None, **options: Any) -> Classifier | None:
    """Build the network that the training script named in a file; None if none did.

    Raises:
        CheckpointError: The weights are not all of the network's.
        InvalidInputError: The network does not have these options.
    """
    problems = list[CheckpointError]()
    for source in TRAINERS:
        library = get_library(source)
        settings = library.read_training(checkpoint.extra)
        if settings is None:
            continue
        try:
            return _build(library, f"{source}:{settings.name}", settings, checkpoint, path, key, options)
        except UnknownNameError:
            continue
        except CheckpointError as error:  # Two libraries may have networks of one name.
            problems.append(error)
    if problems:
        raise problems[0]
    return None


def fill_with_weights(classifier: Classifier, path: Path, key: str | None = None) -> Classifier:
    """Load weights from a file into a network that exists; a classifier in the file that the network lacks is warned about.

    Raises:
        CheckpointError: The file is damaged or unsafe, or its weights are not all of the network's.
    """
    checkpoint = read_checkpoint(path)
    match = match_weights(classifier.module, checkpoint, str(path), key)
    head = find_foreign_head(list_leftover(match, checkpoint.states[match.key], classifier.module.state_dict()))
    if head:
        logger.warning("%s also holds a classifier, which %s lacks and which is not explained: %s", path, classifier.name, head)
    _report(path, classifier.name, load_match(classifier.module, match, str(path)))
    return replace(classifier, name=_name(classifier.name, path))


def _build(
    library: Library,
    name: str,
    settings: TrainingSettings,
    checkpoint: Checkpoint,
    path: Path,
    key: str | None,
    options: Mapping[str, Any],
) -> Classifier:
    own = {**settings.options, **options}
    num_classes = own.pop("num_classes", None)
    spec = ModelSpec(num_classes or NUM_PROBE_CLASSES, options=own)
    skeleton = _build_skeleton(library, settings.name, spec, name, checkpoint)
    match = match_weights(skeleton, checkpoint, str(path), key)
    if num_classes != 0:  # Whoever asks for an embedding does without any head.
        refuse_foreign_head(list_leftover(match, checkpoint.states[match.key], skeleton.state_dict()), name, str(path))
    spec = _fit_spec(spec, skeleton, match.state, num_classes)
    classifier = library.build(settings.name, spec)
    notes = load_match(classifier.module, match, str(path))
    _report(path, name, notes)
    if not spec.num_classes and num_classes is None:
        logger.warning("%s holds no head for %s: its embedding is explained, without classes", path, name)
    if settings.class_map and not classifier.class_names:
        logger.info("%s was trained with the class map %s; give it as class names", path, settings.class_map)
    what = f"the preprocessing that the training settings in {path} describe is invalid"
    with failures_as(CheckpointError, what, causes=(InvalidInputError, TypeError)):
        preprocessing: Preprocessing = replace(classifier.preprocessing, **settings.preprocessing)
    return replace(classifier, name=_name(name, path), preprocessing=preprocessing)


def _build_skeleton(library: Library, name: str, spec: ModelSpec, title: str, checkpoint: Checkpoint) -> nn.Module:
    """Build the network without memory, where its library can, to learn the names and shapes of its weights."""
    num_bytes = sum(tensor.nbytes for state in checkpoint.states.values() for tensor in state.values())
    # The network itself is described when it is built.
    with attributes([logging.getLogger(adapting.__name__)], disabled=True):
        skeleton = build_on_meta(lambda: library.build(name, spec).module, title, num_bytes)
        return library.build(name, spec).module if skeleton is None else skeleton


def _fit_spec(spec: ModelSpec, skeleton: nn.Module, state: Mapping[str, Tensor], num_classes: int | None) -> ModelSpec:
    """Return the specification of the network that the weights belong to."""
    built = skeleton.state_dict()
    heads = [name for name in head_names(skeleton) if built[name].shape[0] == spec.num_classes]
    if num_classes is None:
        num_classes = next((len(state[name]) for name in heads if name in state), 0)
    spec = replace(spec, num_classes=num_classes)
    first = next((name for name, tensor in built.items() if tensor.ndim == 4 and name in state), None)
    if first is None or state[first].ndim != 4:
        return spec
    if state[first].shape[1] != built[first].shape[1]:
        spec = replace(spec, in_channels=state[first].shape[1])
    grid = position_grid(skeleton)
    positions = next((name for name in built if name.rpartition(".")[2] in POSITIONS and name in state), None)
    if grid is None or positions is None or state[positions].shape == built[positions].shape or state[positions].ndim != 3:
        return spec
    prefix = built[positions].shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(state[positions].shape[1] - prefix, 0))
    height, width = state[first].shape[-2:]
    return replace(spec, image_size=(side * height, side * width))


def _report(path: Path, name: str, notes: str) -> None:
    logger.info("weights of %s from %s%s", name, path, f": {notes}" if notes else "")


def _name(name: str, path: Path) -> str:
    return f"{name} ({path.name})"
