"""Build models from files that vitrail wrote."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from vitrail.adapters.adapting import adapt
from vitrail.adapters.build_spec import BuildSpec, lists_to_tuples
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.libraries import get_described_library
from vitrail.adapters.plain import CELL_SIZE, adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import CheckpointError, InvalidInputError, MissingExtraError, VitrailError
from vitrail.core.outputs import check_output
from vitrail.models.checkpoints import Checkpoint, expect_fit, load_strictly, to_single_precision
from vitrail.models.hit import HiT
from vitrail.models.limits import build_on_meta, check_numbers

RUN_CONFIG = "config.yaml"
"""File of the folder of a training run."""

MAX_REASON_LENGTH = 500
"""Number of characters of a reason that are shown: values in a file may be as long as the file."""


def build_described(checkpoint: Checkpoint, path: Path, **options: Any) -> Classifier:
    """Build the network that a vitrail file describes, with its weights, preprocessing and class names.

    Raises:
        CheckpointError: The description is invalid, or the weights do not fit it.
        InvalidInputError: Options were given.
    """
    if options:
        raise InvalidInputError(f"{path} describes its own model; expected no options, got {', '.join(options)}")
    described, source = checkpoint.metadata, str(path)
    try:
        architecture, config = described["architecture"], described["config"]
        build = partial(get_described_library(architecture).rebuild, config)
        preprocessing = Preprocessing.from_dict(described["preprocessing"])
        class_names = tuple(map(str, described["class_names"]))
        cell_size = int(described.get("cell_size", CELL_SIZE))
        output = described.get("output", "softmax")
        check_output(output)
    except MissingExtraError:
        raise
    except Exception as error:  # A file may contain anything.
        raise _invalid_description(path, error) from error
    check_numbers(config, source)
    state = to_single_precision(checkpoint.state)
    skeleton = build_on_meta(build, source, sum(tensor.nbytes for tensor in state.values()))
    if skeleton is not None:  # Before allocating memory for weights that the file may not have.
        expect_fit(skeleton.state_dict(), state, source, _optional_names(skeleton))
    try:
        module = build()
    except MissingExtraError:
        raise
    except Exception as error:  # Invalid descriptions make libraries fail anywhere.
        raise _invalid_description(path, error) from error
    load_strictly(module, state, source, optional=_optional_names(module))
    name = model_name(path)
    if described.get("view") == "plain":
        classifier: Classifier = adapt_plain(module, name, class_names, preprocessing, cell_size)
    else:
        classifier = adapt(module, name=name, class_names=class_names, preprocessing=preprocessing)
    return replace(classifier, build_spec=BuildSpec(architecture, lists_to_tuples(config)), output=output)


def model_name(path: Path) -> str:
    """Return the name of a model from its file: of a training run, that of its folder, so that models of several runs differ."""
    folder = path.resolve().parent
    if path.stem == "model" or (path.stem == "best" and (folder / RUN_CONFIG).exists()):
        return folder.name
    return f"{folder.name}-last" if path.stem == "last" and (folder / RUN_CONFIG).exists() else path.stem


def _optional_names(module: nn.Module) -> list[str]:
    """List the weights that a file may leave out."""
    return module.unused_names() if isinstance(module, HiT) else []


def _invalid_description(path: Path, error: Exception) -> CheckpointError:
    reason = str(error) if isinstance(error, VitrailError) else repr(error)
    return CheckpointError(
        f"the description inside {path} is not one that this version understands: {shorten(reason, MAX_REASON_LENGTH)}"
    )
