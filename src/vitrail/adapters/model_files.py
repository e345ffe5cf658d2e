"""Models from files that vitrail wrote."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from vitrail.adapters.adapting import adapt
from vitrail.adapters.build_spec import BuildSpec, frozen_lists
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.plain import CELL_SIZE, adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.rebuilding import ARCHITECTURES
from vitrail.core.errors import CheckpointError, InvalidInputError, MissingExtraError
from vitrail.core.outputs import check_output
from vitrail.models.checkpoints import Checkpoint, expect_fit, in_single, load_strictly
from vitrail.models.hit import HiT
from vitrail.models.limits import check_numbers, sketch


def build_described(checkpoint: Checkpoint, path: Path, **options: Any) -> Classifier:
    """Build the network that a file of ours describes, with its weights, preprocessing and class names.

    Raises:
        CheckpointError: A description that makes no sense, or weights that do not fit it.
        InvalidInputError: Options, of which such a file has none.
    """
    if options:
        raise InvalidInputError(f"{path} describes its own model; expected no options, got {', '.join(options)}")
    described, source = checkpoint.metadata, str(path)
    try:
        architecture, config = described["architecture"], described["config"]
        build = partial(ARCHITECTURES[architecture], config)
        preprocessing = Preprocessing.from_dict(described["preprocessing"])
        class_names = tuple(map(str, described["class_names"]))
        cell_size = int(described.get("cell_size", CELL_SIZE))
        output = described.get("output", "softmax")
        check_output(output)
    except Exception as error:  # What stands in a file may be anything.
        raise _not_understood(path, error) from error
    check_numbers(config, source)
    state = in_single(checkpoint.state)
    sketched = sketch(build, source)
    if sketched is not None:  # Before memory is taken: the file may hold little of what it asks for.
        expect_fit(sketched.state_dict(), state, source, _idle(sketched))
    try:
        module = build()
    except MissingExtraError:
        raise
    except Exception as error:  # Libraries stumble over odd descriptions anywhere.
        raise _not_understood(path, error) from error
    load_strictly(module, state, source, optional=_idle(module))
    name = path.stem if path.stem != "model" else path.parent.name
    if described.get("view") == "plain":
        classifier: Classifier = adapt_plain(module, name, class_names, preprocessing, cell_size)
    else:
        classifier = adapt(module, name=name, class_names=class_names, preprocessing=preprocessing)
    return replace(classifier, build_spec=BuildSpec(architecture, frozen_lists(config)), output=output)


def _idle(module: nn.Module) -> list[str]:
    """Weights that a file need not hold."""
    return module.unused_names() if isinstance(module, HiT) else []


def _not_understood(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"the description inside {path} is not one that this version understands: {error!r}")
