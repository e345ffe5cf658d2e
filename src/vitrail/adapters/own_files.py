"""Models from files that vitrail wrote."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrail.adapters.architectures import ARCHITECTURES
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.families import adapt
from vitrail.adapters.origin import Origin, frozen_lists
from vitrail.adapters.plain import CELL_SIZE, adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.errors import CheckpointError, InvalidInputError, MissingExtraError
from vitrail.models.checkpoints import Checkpoint, load_strictly
from vitrail.models.hit import HiT
from vitrail.outputs import check_output


def build_described(checkpoint: Checkpoint, path: Path, **options: Any) -> Classifier:
    """Build the network that a file of ours describes, with its weights, preprocessing and class names.

    Raises:
        CheckpointError: A description that makes no sense, or weights that do not fit it.
        InvalidInputError: Options, of which such a file has none.
    """
    if options:
        raise InvalidInputError(f"{path} describes its own model; expected no options, got {', '.join(options)}")
    described = checkpoint.metadata
    try:
        architecture, config = described["architecture"], described["config"]
        module = ARCHITECTURES[architecture](config)
        preprocessing = Preprocessing.from_dict(described["preprocessing"])
        class_names = tuple(map(str, described["class_names"]))
        cell_size = int(described.get("cell_size", CELL_SIZE))
        output = described.get("output", "softmax")
        check_output(output)
    except MissingExtraError:
        raise
    except Exception as error:  # What stands in a file may be anything, and libraries stumble over it anywhere.
        raise CheckpointError(f"the description inside {path} is not one that this version understands: {error!r}") from error
    # Counters keep their integers.
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in checkpoint.state.items()}
    load_strictly(module, state, str(path), optional=module.idle_names() if isinstance(module, HiT) else ())
    name = path.stem if path.stem != "model" else path.parent.name
    if described.get("view") == "plain":
        classifier: Classifier = adapt_plain(module, name, class_names, preprocessing, cell_size)
    else:
        classifier = adapt(module, name=name, class_names=class_names, preprocessing=preprocessing)
    return replace(classifier, origin=Origin(architecture, frozen_lists(config)), output=output)
